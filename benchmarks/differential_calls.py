"""The calls of the differential, in order: every rpc of TorchServe's two services, each way to call it wrong, each kind of result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from servegrpc.compat.torchserve import inference_pb2 as inference
from servegrpc.compat.torchserve import management_pb2 as management
from servegrpc.core.archiver import ARCHIVE_SUFFIXES

RESULTS = (
    "dict", "list", "empty list", "empty dict", "tuple", "str", "empty str", "non-ASCII str", "non-ASCII dict", "bytes",
    "empty bytes", "bytearray", "long str", "long bytes", "int", "big int", "float", "small float", "NaN", "infinity", "true", "none",
    "nested", "int keys", "escapes", "float tensor", "int tensor", "scalar tensor", "empty tensor", "half tensor", "numpy array",
    "numpy scalar", "numpy float64", "set", "object", "tensor in dict", "bytes in list",
)  # fmt: skip
DEEDS = ("raise", "key error", "memory", "cuda", "own exception", "no list", "none", "too many", "too few", "string")
PREDICTION_CODES = (200, 302, 400, 401, 403, 404, 408, 409, 413, 416, 422, 429, 499, 500, 501, 503, 504, 507, 600, 42)
READY = '"status": "READY"'


@dataclass(frozen=True)
class Call:
    """One call. With `until`, it is repeated until its reply has that text, and like those not `compared` it leaves no outcome."""

    label: str
    method: str
    requests: tuple[Message, ...]
    until: str = ""
    compared: bool = True


def calls() -> Iterator[Call]:
    """Yield all calls."""
    yield Call("Ping: no models", "Ping", (Empty(),))
    yield from _registering()
    yield from _predicting()
    yield from _failing()
    yield from _streaming()
    yield from _describing()
    yield from _listing()
    yield from _scaling()
    yield from _versions()
    yield from _unregistering()
    yield Call("Ping: at the end", "Ping", (Empty(),))


def _register(label: str, **fields: object) -> Call:
    return Call(f"RegisterModel: {label}", "RegisterModel", (management.RegisterModelRequest(**fields),))  # type: ignore[arg-type]


def _start(archive: str, **fields: object) -> Call:
    return _register(f"{archive}, one worker", url=f"{archive}.mar", initial_workers=1, synchronous=True, max_batch_delay=100, **fields)


def _predict(label: str, model: str, data: bytes | None = b"x", *, method: str = "Predictions", version: str = "", **inputs: bytes) -> Call:
    given = inputs if data is None else {"data": data, **inputs}
    request = inference.PredictionsRequest(model_name=model, model_version=version, input=given)
    return Call(f"{method}: {label}", method, (request,))


def _describe(label: str, model: str, version: str = "", *, customized: bool = False, until: str = "") -> Call:
    request = management.DescribeModelRequest(model_name=model, model_version=version, customized=customized)
    return Call(f"DescribeModel: {label}", "DescribeModel", (request,), until)


def _scale(label: str, **fields: object) -> Call:
    return Call(f"ScaleWorker: {label}", "ScaleWorker", (management.ScaleWorkerRequest(**fields),))  # type: ignore[arg-type]


def _default(label: str, model: str, version: str) -> Call:
    return Call(f"SetDefault: {label}", "SetDefault", (management.SetDefaultRequest(model_name=model, model_version=version),))


def _unregister(label: str, model: str, version: str = "") -> Call:
    return Call(
        f"UnregisterModel: {label}", "UnregisterModel", (management.UnregisterModelRequest(model_name=model, model_version=version),)
    )


def _list(label: str, limit: int = 0, token: int = 0) -> Call:
    return Call(f"ListModels: {label}", "ListModels", (management.ListModelsRequest(limit=limit, next_page_token=token),))


def _registering() -> Iterator[Call]:
    yield _list("no models", 10)
    yield _register("no url")
    yield _register("missing archive", url="missing.mar")
    yield _register("missing archive without an ending", url="missing")
    yield _register("relative path", url="../echo.mar")
    yield _register("download fails", url="file:///none/x.mar")
    yield _register("scheme not allowed", url="ftp://127.0.0.1/x.mar")
    yield _register("unknown runtime", url="echo.mar", runtime="python4")
    yield _start("echo")
    yield _register("the same again", url="echo.mar", initial_workers=1, synchronous=True)
    yield _register("no workers", url="echo.mar", model_name="idle", synchronous=True)
    yield _register("no workers, not waiting", url="echo.mar", model_name="later")
    yield _register("not waiting", url="echo.mar", model_name="soon", initial_workers=1)
    yield _describe("until soon is ready", "soon", until=READY)
    yield _register(
        "all settings", url="kinds.mar", model_name="kinds", batch_size=2, max_batch_delay=5, response_timeout=77, startup_timeout=88,
        initial_workers=1, synchronous=True, runtime="python", handler="kinds_handler.py:handle",
    )  # fmt: skip
    yield _register("handler fails to load", url="failing.mar", initial_workers=1, synchronous=True, startup_timeout=20)
    yield _register(
        "handler that is not there", url="echo.mar", model_name="nohandler", handler="nothing.py", initial_workers=1, synchronous=True
    )
    for name in ("failing", "nohandler"):  # TorchServe removes them or not, by a race of its own
        yield replace(_unregister(f"{name}, if it is there", name), compared=False)
    yield _register("no manifest", url="nameless.mar")
    yield _register("no manifest, name and handler given", url="nameless.mar", model_name="named", handler="echo_handler.py")
    yield _register("numbers below zero", url="echo.mar", model_name="negative", batch_size=-1, max_batch_delay=-1, initial_workers=-1)
    for archive in ("values", "misbehave", "status", "stream", "described", "badly", "sequence", "configured"):
        yield _start(archive)
    for archive_format, suffix in ARCHIVE_SUFFIXES.items():
        yield _register(f"packed as {archive_format}", url=f"values-{archive_format}{suffix}", initial_workers=1, synchronous=True)
    yield Call("Ping: models with all their workers", "Ping", (Empty(),))


def _predicting() -> Iterator[Call]:
    for result in RESULTS:
        yield _predict(result, "values", result.encode())
    for archive_format in ARCHIVE_SUFFIXES:
        yield _predict(f"packed as {archive_format}", f"values-{archive_format}", b"nested")
    yield replace(_unregister("values-no-archive, if it is there", "values-no-archive"), compared=False)
    for label, data in {"empty": b"", "text": b"text", "no UTF-8": b"\xff\xfe", "zeros": bytes(1000), "100 kB": b"ab" * 50_000}.items():
        yield _predict(f"echo, {label}", "echo", data)
    yield _predict("echo, 4 MB", "echo", bytes(range(256)) * 16_000)
    yield _predict("echo, key body", "echo", None, body=b"body")
    yield _predict("kinds, one input", "kinds", b"x")
    yield _predict("kinds, several inputs", "kinds", b"x", image=b"\x89PNG", target=b"0", body=b"{}")
    yield _predict("kinds, a large and a small input", "kinds", b"x" * 20_000, target=b"1")
    yield _predict("kinds, no input", "kinds", None)
    yield _predict("kinds, an empty name", "kinds", None, **{"": b"x"})
    yield _predict("kinds, a name in another script", "kinds", None, 画像=b"x")
    yield _predict("configured", "configured", b"x")
    yield _predict("with a version", "echo", version="1.0")


def _failing() -> Iterator[Call]:
    yield _predict("no model name", "")
    yield _predict("unknown model", "nobody")
    yield _predict("unknown version", "echo", version="9.9")
    yield _predict("unknown model and version", "nobody", version="9.9")
    yield _predict("no workers", "idle")
    yield _predict("no workers, with a version", "idle", version="1.0")
    for deed in DEEDS:
        yield _predict(f"handler: {deed}", "misbehave", deed.encode())
    for code in PREDICTION_CODES:
        yield _predict(f"PredictionException {code}", "misbehave", f"prediction {code}".encode())
    for code in (200, 404, 503):
        yield _predict(f"response status {code}", "status", str(code).encode())
    for deed in ("exit", "kill"):
        yield _predict(f"worker ends: {deed}", "misbehave", deed.encode())
        yield _describe("until misbehave is ready", "misbehave", until=READY)
        yield _predict(f"after its worker ended: {deed}", "misbehave")
    yield _register(
        "short response timeout", url="misbehave.mar", model_name="hasty", response_timeout=1, initial_workers=1, synchronous=True
    )
    yield _predict("response timeout", "hasty", b"hang")
    yield _describe("until hasty is ready", "hasty", until=READY)
    yield _predict("after a response timeout", "hasty")


def _stream2(label: str, model: str, *sent: tuple[str, bytes]) -> Call:
    requests = tuple(inference.PredictionsRequest(model_name=model, sequence_id=sequence, input={"data": data}) for sequence, data in sent)
    return Call(f"StreamPredictions2: {label}", "StreamPredictions2", requests)


def _streaming() -> Iterator[Call]:
    def stream(label: str, model: str, data: bytes = b"x", version: str = "") -> Call:
        return _predict(label, model, data, method="StreamPredictions", version=version)

    yield stream("four parts", "stream", b"3")
    yield stream("one part", "stream", b"0")
    yield stream("fails in the middle", "stream", b"-2")
    yield stream("no model name", "")
    yield stream("unknown model", "nobody")
    yield stream("unknown version", "echo", version="9.9")
    yield stream("no workers", "idle")
    yield _stream2("a sequence", "sequence", ("one", b"1"), ("one", b"2"), ("one", b"3"))
    yield _stream2("a request without a sequence id", "sequence", ("", b"1"))
    yield _stream2("unknown model", "nobody", ("one", b"1"))
    yield _stream2("a handler that fails", "sequence", ("two", b"fail"))
    yield _stream2("a model without sequences", "echo", ("one", b"1"))
    yield stream("a handler that does not stream", "badly")
    yield _describe("until badly is ready", "badly", until=READY)
    yield _predict("a handler that streams", "stream", b"2")


def _describing() -> Iterator[Call]:
    for model in ("echo", "idle", "kinds", "configured", "sequence"):
        yield _describe(model, model)
    yield _describe("with a version", "echo", "1.0")
    yield _describe("all versions", "echo", "all")
    yield _describe("no model name", "")
    yield _describe("unknown model", "nobody")
    yield _describe("unknown version", "echo", "9.9")
    yield _describe("all versions of an unknown model", "nobody", "all")
    yield _describe("customized", "described", customized=True)
    yield _describe("customized, handler returns text", "badly", customized=True)
    yield _describe("customized, all versions", "described", "all", customized=True)
    yield _describe("customized, unknown model", "nobody", customized=True)
    yield _describe("customized, unknown version", "described", "9.9", customized=True)
    yield _describe("customized, no workers", "idle", customized=True)


def _listing() -> Iterator[Call]:
    for limit, token in ((0, 0), (3, 0), (3, 3), (3, 100), (100, 0), (1000, 0), (-1, 0), (3, -1), (1, 1)):
        yield _list(f"limit {limit}, token {token}", limit, token)


def _scaling() -> Iterator[Call]:
    yield _scale("to two, waiting", model_name="echo", min_worker=2, synchronous=True)
    yield _describe("two workers", "echo")
    yield _scale("to one, waiting, with a version", model_name="echo", model_version="1.0", min_worker=1, max_worker=1, synchronous=True)
    yield _scale("with at most three", model_name="echo", min_worker=1, max_worker=3, synchronous=True)
    yield _describe("at most three", "echo")
    yield _scale("nothing given", model_name="idle", synchronous=True)
    yield _predict("scaled up from none", "idle")
    yield _scale("not waiting", model_name="echo", min_worker=1)
    yield _scale("more at least than at most", model_name="echo", min_worker=3, max_worker=2)
    yield _scale("below zero", model_name="idle", min_worker=-3, synchronous=True)
    yield _scale("no model name", min_worker=1)
    yield _scale("unknown model", model_name="nobody", min_worker=1)
    yield _scale("unknown version", model_name="echo", model_version="9.9", min_worker=1)


def _versions() -> Iterator[Call]:
    for version in ("2.0", "10.1"):
        yield _register(f"version {version}", url=f"echo-{version}.mar", initial_workers=1, synchronous=True, max_batch_delay=100)
    yield _predict("second version", "echo", version="2.0")
    yield _describe("the default of three", "echo")
    yield _default("second version", "echo", "2.0")
    yield _describe("another default", "echo")
    yield _default("unknown version", "echo", "3.3.3")
    yield _default("unknown model", "zzz", "1.0")
    yield _default("no version", "echo", "")
    yield _default("no model name", "", "1.0")


def _unregistering() -> Iterator[Call]:
    yield _unregister("the default", "echo")
    yield _unregister("the default, by its version", "echo", "2.0")
    yield _unregister("a version", "echo", "10.1")
    yield _unregister("a version that is gone", "echo", "10.1")
    yield _unregister("unknown model", "nobody")
    yield _unregister("unknown version", "kinds", "7")
    yield _unregister("no model name", "")
    yield _unregister("by name", "kinds")
    yield _unregister("by name and version", "values", "1.0")
    yield _unregister("again", "kinds")
    yield _predict("unregistered", "kinds")
    yield _describe("unregistered", "kinds")
