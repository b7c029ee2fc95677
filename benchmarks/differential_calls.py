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
    """One call. With `until`, it is repeated until its reply has that text, and like those not `compared` it leaves no outcome.

    `key` is the port whose token it carries, or another text in place of a token.
    """

    label: str
    method: str
    requests: tuple[Message, ...]
    until: str = ""
    compared: bool = True
    key: str = ""


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


def register(label: str, **fields: object) -> Call:
    """Register an archive."""
    return Call(f"RegisterModel: {label}", "RegisterModel", (management.RegisterModelRequest(**fields),))  # type: ignore[arg-type]


def _start(archive: str, **fields: object) -> Call:
    return register(f"{archive}, one worker", url=f"{archive}.mar", initial_workers=1, synchronous=True, **fields)


def predict(label: str, model: str, data: bytes | None = b"x", *, method: str = "Predictions", version: str = "", **inputs: bytes) -> Call:
    """Predict, or ask for a stream, with `data` and other inputs."""
    given = inputs if data is None else {"data": data, **inputs}
    request = inference.PredictionsRequest(model_name=model, model_version=version, input=given)
    return Call(f"{method}: {label}", method, (request,))


def describe(label: str, model: str, version: str = "", *, customized: bool = False, until: str = "") -> Call:
    """Describe a model."""
    request = management.DescribeModelRequest(model_name=model, model_version=version, customized=customized)
    return Call(f"DescribeModel: {label}", "DescribeModel", (request,), until)


def scale(label: str, **fields: object) -> Call:
    """Change the number of workers."""
    return Call(f"ScaleWorker: {label}", "ScaleWorker", (management.ScaleWorkerRequest(**fields),))  # type: ignore[arg-type]


def set_default(label: str, model: str, version: str) -> Call:
    """Make a version the default."""
    return Call(f"SetDefault: {label}", "SetDefault", (management.SetDefaultRequest(model_name=model, model_version=version),))


def unregister(label: str, model: str, version: str = "") -> Call:
    """Unregister a model or a version."""
    return Call(
        f"UnregisterModel: {label}", "UnregisterModel", (management.UnregisterModelRequest(model_name=model, model_version=version),)
    )


def list_models(label: str, limit: int = 0, token: int = 0) -> Call:
    """List models."""
    return Call(f"ListModels: {label}", "ListModels", (management.ListModelsRequest(limit=limit, next_page_token=token),))


def _registering() -> Iterator[Call]:
    yield list_models("no models", 10)
    yield register("no url")
    yield register("missing archive", url="missing.mar")
    yield register("missing archive without an ending", url="missing")
    yield register("relative path", url="../echo.mar")
    yield register("download fails", url="file:///none/x.mar")
    yield register("scheme not allowed", url="ftp://127.0.0.1/x.mar")
    yield register("unknown runtime", url="echo.mar", runtime="python4")
    yield _start("echo")
    yield register("the same again", url="echo.mar", initial_workers=1, synchronous=True)
    yield register("no workers", url="echo.mar", model_name="idle", synchronous=True)
    yield register("no workers, not waiting", url="echo.mar", model_name="later")
    yield register("not waiting", url="echo.mar", model_name="soon", initial_workers=1)
    yield describe("until soon is ready", "soon", until=READY)
    yield register(
        "all settings", url="kinds.mar", model_name="kinds", batch_size=2, max_batch_delay=5, response_timeout=77, startup_timeout=88,
        initial_workers=1, synchronous=True, runtime="python", handler="kinds_handler.py:handle",
    )  # fmt: skip
    yield register("handler fails to load", url="failing.mar", initial_workers=1, synchronous=True, startup_timeout=20)
    yield register(
        "handler that is not there", url="echo.mar", model_name="nohandler", handler="nothing.py", initial_workers=1, synchronous=True
    )
    for name in ("failing", "nohandler"):  # TorchServe removes them or not, by a race of its own
        yield replace(unregister(f"{name}, if it is there", name), compared=False)
    yield register("no manifest", url="nameless.mar")
    yield register("no manifest, name and handler given", url="nameless.mar", model_name="named", handler="echo_handler.py")
    yield register("numbers below zero", url="echo.mar", model_name="negative", batch_size=-1, max_batch_delay=-1, initial_workers=-1)
    for archive in ("values", "misbehave", "status", "stream", "described", "badly", "sequence", "configured", "steps", "once"):
        yield _start(archive)
    for archive_format, suffix in ARCHIVE_SUFFIXES.items():
        yield register(f"packed as {archive_format}", url=f"values-{archive_format}{suffix}", initial_workers=1, synchronous=True)
    yield Call("Ping: models with all their workers", "Ping", (Empty(),))


def _predicting() -> Iterator[Call]:
    for result in RESULTS:
        yield predict(result, "values", result.encode())
    for archive_format in ARCHIVE_SUFFIXES:
        yield predict(f"packed as {archive_format}", f"values-{archive_format}", b"nested")
    yield replace(unregister("values-no-archive, if it is there", "values-no-archive"), compared=False)
    for label, data in {"empty": b"", "text": b"text", "no UTF-8": b"\xff\xfe", "zeros": bytes(1000), "100 kB": b"ab" * 50_000}.items():
        yield predict(f"echo, {label}", "echo", data)
    yield predict("echo, 4 MB", "echo", bytes(range(256)) * 16_000)
    yield predict("echo, key body", "echo", None, body=b"body")
    yield predict("kinds, one input", "kinds", b"x")
    yield predict("kinds, several inputs", "kinds", b"x", image=b"\x89PNG", target=b"0", body=b"{}")
    yield predict("kinds, a large and a small input", "kinds", b"x" * 20_000, target=b"1")
    yield predict("kinds, no input", "kinds", None)
    yield predict("kinds, an empty name", "kinds", None, **{"": b"x"})
    yield predict("kinds, a name in another script", "kinds", None, 画像=b"x")
    yield predict("configured", "configured", b"x")
    yield predict("with a version", "echo", version="1.0")


def _failing() -> Iterator[Call]:
    yield predict("no model name", "")
    yield predict("unknown model", "nobody")
    yield predict("unknown version", "echo", version="9.9")
    yield predict("unknown model and version", "nobody", version="9.9")
    yield predict("no workers", "idle")
    yield predict("no workers, with a version", "idle", version="1.0")
    for deed in DEEDS:
        yield predict(f"handler: {deed}", "misbehave", deed.encode())
    for code in PREDICTION_CODES:
        yield predict(f"PredictionException {code}", "misbehave", f"prediction {code}".encode())
    for code in (200, 404, 503):
        yield predict(f"response status {code}", "status", str(code).encode())
    for deed in ("exit", "kill"):
        yield predict(f"worker ends: {deed}", "misbehave", deed.encode())
        yield describe("until misbehave is ready", "misbehave", until=READY)
        yield predict(f"after its worker ended: {deed}", "misbehave")
    yield register(
        "short response timeout", url="misbehave.mar", model_name="hasty", response_timeout=1, initial_workers=1, synchronous=True
    )
    yield predict("response timeout", "hasty", b"hang")
    yield describe("until hasty is ready", "hasty", until=READY)
    yield predict("after a response timeout", "hasty")


def _stream2(label: str, model: str, *sent: tuple[str, bytes]) -> Call:
    requests = tuple(inference.PredictionsRequest(model_name=model, sequence_id=sequence, input={"data": data}) for sequence, data in sent)
    return Call(f"StreamPredictions2: {label}", "StreamPredictions2", requests)


def _streaming() -> Iterator[Call]:
    def stream(label: str, model: str, data: bytes = b"x", version: str = "") -> Call:
        return predict(label, model, data, method="StreamPredictions", version=version)

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
    yield stream("continuous batching", "steps")
    yield stream("a handler that does not stream", "badly")
    yield describe("until badly is ready", "badly", until=READY)
    yield predict("a handler that streams", "stream", b"2")


def _describing() -> Iterator[Call]:
    for model in ("echo", "idle", "kinds", "configured", "sequence"):
        yield describe(model, model)
    yield describe("with a version", "echo", "1.0")
    yield describe("all versions", "echo", "all")
    yield describe("no model name", "")
    yield describe("unknown model", "nobody")
    yield describe("unknown version", "echo", "9.9")
    yield describe("all versions of an unknown model", "nobody", "all")
    yield describe("customized", "described", customized=True)
    yield describe("customized, handler returns text", "badly", customized=True)
    yield describe("customized, all versions", "described", "all", customized=True)
    yield describe("customized, unknown model", "nobody", customized=True)
    yield describe("customized, unknown version", "described", "9.9", customized=True)
    yield describe("customized, no workers", "idle", customized=True)


def _listing() -> Iterator[Call]:
    for limit, token in ((0, 0), (3, 0), (3, 3), (3, 100), (100, 0), (1000, 0), (-1, 0), (3, -1), (1, 1)):
        yield list_models(f"limit {limit}, token {token}", limit, token)


def _scaling() -> Iterator[Call]:
    yield scale("to two, waiting", model_name="echo", min_worker=2, synchronous=True)
    yield describe("two workers", "echo")
    yield scale("to one, waiting, with a version", model_name="echo", model_version="1.0", min_worker=1, max_worker=1, synchronous=True)
    yield scale("with at most three", model_name="echo", min_worker=1, max_worker=3, synchronous=True)
    yield describe("at most three", "echo")
    yield scale("nothing given", model_name="idle", synchronous=True)
    yield predict("scaled up from none", "idle")
    yield scale("not waiting", model_name="echo", min_worker=1)
    yield scale("more at least than at most", model_name="echo", min_worker=3, max_worker=2)
    yield scale("below zero", model_name="idle", min_worker=-3, synchronous=True)
    yield scale("more than can be had", model_name="once", min_worker=2, synchronous=True)
    yield predict("scaled to more than can be had", "once")
    yield replace(unregister("once", "once"), compared=False)
    yield scale("no model name", min_worker=1)
    yield scale("unknown model", model_name="nobody", min_worker=1)
    yield scale("unknown version", model_name="echo", model_version="9.9", min_worker=1)


def _versions() -> Iterator[Call]:
    for version in ("2.0", "10.1"):
        yield register(f"version {version}", url=f"echo-{version}.mar", initial_workers=1, synchronous=True)
    yield predict("second version", "echo", version="2.0")
    yield describe("the default of three", "echo")
    yield set_default("second version", "echo", "2.0")
    yield describe("another default", "echo")
    yield set_default("unknown version", "echo", "3.3.3")
    yield set_default("unknown model", "zzz", "1.0")
    yield set_default("no version", "echo", "")
    yield set_default("no model name", "", "1.0")


def _unregistering() -> Iterator[Call]:
    yield unregister("the default", "echo")
    yield unregister("the default, by its version", "echo", "2.0")
    yield unregister("a version", "echo", "10.1")
    yield unregister("a version that is gone", "echo", "10.1")
    yield unregister("unknown model", "nobody")
    yield unregister("unknown version", "kinds", "7")
    yield unregister("no model name", "")
    yield unregister("by name", "kinds")
    yield unregister("by name and version", "values", "1.0")
    yield unregister("again", "kinds")
    yield predict("unregistered", "kinds")
    yield describe("unregistered", "kinds")
