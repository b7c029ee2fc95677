"""What is fuzzed within this process: a function for each kind of bytes, and the errors by which it may refuse them."""

import contextlib
import io
import json
import os
import shutil
import socket
import struct
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from fuzz.inputs import fields, message, mutated
from servegrpc.compat.open_inference import infer_pb2
from servegrpc.compat.torchserve import inference_pb2 as ts
from servegrpc.core.archive import open_archive
from servegrpc.core.model_config import parse_model_config
from servegrpc.engine.channel import HEADER, LANES, Channel, ChannelError, Kind
from servegrpc.errors import ServeError
from servegrpc.reply import Reply
from servegrpc.tsconfig.properties import parse_properties
from servegrpc.v1 import inference_pb2
from servegrpc.wire import native, open_inference, scan, torchserve

CONFIG = """minWorkers: 2
batchSize: 8
maxBatchDelay: 5
deviceIds: [0, 1]
handler: {a: [1, 2.5, null], b: "text"}
inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
sequenceBatching: true
"""
PROPERTIES = 'inference_address=http://127.0.0.1:8080\nmodels={\\\n "m": {"1.0": {"batchSize": 4}}}\n# a comment\nkey : a\\u0041\n'


@dataclass(frozen=True)
class Target:
    """One thing to fuzz: `make` gives an input, `take` must return or raise one of `refusals`."""

    name: str
    make: object
    take: object
    refusals: tuple[type[Exception], ...] = (ServeError,)
    share: float = 1.0  # of the cases, beside the others


@contextlib.contextmanager
def targets():
    """Make all targets; what they need of the machine is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        yield [*_requests(), *_texts(), *_archives(Path(folder)), *(stack.enter_context(_channel(side)) for side in ("server", "worker"))]


def _tensor(datatype, shape, *raw, **contents):
    inputs = [{"name": "x", "datatype": datatype, "shape": shape, **({"contents": contents} if contents else {})}]
    return infer_pb2.ModelInferRequest(model_name="fuzzed", id="1", inputs=inputs, raw_input_contents=raw)


FOUR_FLOATS = struct.pack("<4f", 1, 2, 3, 4)
LARGE = bytes(70_000)
VALUES = (
    {"binary": b"bytes"},
    {"text": "text"},
    {"json": {"list_value": {"values": [{"number_value": 1}, {"struct_value": {"fields": {"a": {"null_value": 0}}}}]}}},
    {"tensor": {"data_type": 11, "shape": [2, 2], "data": FOUR_FLOATS}},
    {"tensor": {"data_type": 13, "shape": [1], "data": b"\1\0\0\0a"}},
    {"named": {"values": {"a": {"text": "b"}}}},
    {"binary": LARGE},
    {"tensor": {"data_type": 11, "shape": [len(LARGE) // 4], "data": LARGE}},
)
NATIVE = [
    inference_pb2.PredictRequest(model_name="fuzzed", request_id="1", inputs={"data": value, "more": {"text": ""}}) for value in VALUES
]
TORCHSERVE = [ts.PredictionsRequest(model_name="fuzzed", input={"data": data, "more": b"{}"}) for data in (b"bytes", LARGE)]
OPEN_INFERENCE = [
    _tensor("FP32", [2, 2], FOUR_FLOATS),
    _tensor("BYTES", [1, 1], b"\1\0\0\0a"),
    _tensor("INT64", [2], int64_contents=[1, -2]),
    _tensor("FP32", [len(LARGE) // 4], LARGE),
]


def _requests():
    """Routes and decoders of the three dialects."""
    kinds = {
        "servegrpc.v1": (NATIVE, scan.route, native.decode),
        "TorchServe": (TORCHSERVE, torchserve.route, torchserve.decode),
        "Open Inference": (OPEN_INFERENCE, open_inference.route, open_inference.OpenInferenceCodec().decode),
    }
    for name, (good, route, decode) in kinds.items():
        yield Target(f"{name} route", _maker(good), route, share=2)
        yield Target(f"{name} decode", _maker(good), lambda raw, decode=decode: decode(memoryview(raw)), share=2)
        yield Target(f"{name} borrow", _maker(good), lambda raw, decode=decode: decode(memoryview(bytearray(raw)), borrow=True), share=0.5)
    yield Target("Open Inference id", _maker(OPEN_INFERENCE), open_inference.request_id_of, share=0.5)


def _maker(good):
    """Make requests: arbitrary fields, arbitrary messages of the type of `good`, and mutations of those and of `good`."""
    serialized = [request.SerializeToString() for request in good]

    def make(chance):
        if chance.random() < 0.2:
            return fields(chance)
        raw = chance.choice(serialized) if chance.random() < 0.6 else message(type(good[0]), chance).SerializeToString()
        return raw if chance.random() < 0.1 else mutated(raw, chance)

    return make


def _texts():
    """Configuration files."""

    def maker(text):
        return lambda chance: mutated(text.encode(), chance).decode(errors="replace")

    yield Target("model-config.yaml", maker(CONFIG), parse_model_config, share=0.1)
    yield Target("config.properties", maker(PROPERTIES), parse_properties, share=0.1)


def _archives(folder):
    """Archive files, both formats, changed byte by byte."""
    file, root = folder / "fuzzed.mar", folder / "unpacked"
    root.mkdir()

    def take(raw):
        file.write_bytes(raw)
        try:
            open_archive(file, store=None, unpack_root=root, max_unpacked_bytes=2**20).remove()
        finally:
            left = list(root.iterdir())
            for path in left:
                shutil.rmtree(path)
        if left:
            raise AssertionError(f"{len(left)} folders were left")

    for name, raw in (("zip", _zip()), ("tar.gz", _tar())):
        yield Target(f"archive, {name}", lambda chance, raw=raw: mutated(raw, chance), take, share=0.15)
    manifest = json.dumps(MANIFEST).encode()
    yield Target("archive, manifest", lambda chance: _zip(mutated(manifest, chance)), take, share=0.15)


MANIFEST = {
    "runtime": "python",
    "archiverVersion": "0.12.0",
    "model": {"modelName": "m", "handler": "h.py", "modelVersion": "1.0", "configFile": "model-config.yaml", "serializedFile": "w.pt"},
}


def _files(manifest):
    manifest = json.dumps(MANIFEST).encode() if manifest is None else manifest
    return {
        "MAR-INF/MANIFEST.json": manifest,
        "h.py": b"def handle(data, context): ...",
        "model-config.yaml": CONFIG.encode(),
        "w.pt": b"w" * 99,
    }


def _zip(manifest=None):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _files(manifest).items():
            archive.writestr(name, content)
    return out.getvalue()


def _tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in _files(None).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@dataclass
class _Sent:
    """A request as the server's end sends it."""

    payload: bytes
    dialect: int = 0
    request_id: str = "id"
    headers: tuple = (("key", "value"),)
    arrived: float = 0.0
    deadline: float = 1.0
    streamed: bool = False


@contextlib.contextmanager
def _channel(side):
    """Control messages: true ones of the other end, caught on their way and changed."""
    server, descriptors = Channel.pair(4)
    peer = socket.socket(fileno=os.dup(descriptors[0]))
    worker = Channel.from_descriptors([descriptors[0], *map(os.dup, descriptors[1:])])
    receiver = server if side == "server" else worker
    sender = peer if side == "server" else socket.socket(fileno=os.dup(server._socket.fileno()))
    true = _true_messages(server, worker, side)

    def make(chance):
        if chance.random() < 0.1:
            head = HEADER.pack(
                chance.randint(0, 12), chance.randrange(256), chance.randint(0, 1), chance.randint(0, 5), 0, chance.getrandbits(32), 0
            )
            return head + chance.randbytes(chance.randint(0, 200))
        return mutated(chance.choice(true), chance) or b"\0"

    def take(raw):
        sender.send(raw)
        receiver.receive()

    try:
        yield Target(f"channel, the {side}'s end", make, take, (ChannelError,), share=1)
    finally:
        peer.close()
        sender.close()
        worker.close()
        server.close()


def _true_messages(server, worker, side):
    """Return messages that the other end really sends, small and in the slab."""
    found = []
    for size in (10, 40_000):
        for lane in range(LANES):
            if side == "server":
                worker.send_replies(lane, [Reply(b"b" * size, ticket=1, index=i, message="m", trailers=(("k", "v"),)) for i in range(3)])
                found.append(_caught(server))
            else:
                server.send_batch(lane, 1, [_Sent(b"p" * size) for _ in range(3)], monotonic())
                found.append(_caught(worker))
    sender, receiver = (worker, server) if side == "server" else (server, worker)
    for kind in Kind:
        sender.send(kind, {"cause": "text", "slots": 4, "numbers": [1, 2, 3]})
        found.append(_caught(receiver))
    return found


def _caught(channel):
    return channel._socket.recv(2**20)
