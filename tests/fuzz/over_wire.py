"""What is fuzzed from outside: every rpc of both ports of a real server, and the HTTP/2 below them.

The server must answer each call with a status that may be, keep its workers and its memory, and log no fault of its own.
"""

import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from servers import ServerProcess

from fuzz.inputs import NAMES, fields, message, mutated
from servegrpc.client.errors import call_error
from servegrpc.compat.open_inference import service_pb2 as oip
from servegrpc.compat.torchserve import inference_pb2 as ts_inference
from servegrpc.compat.torchserve import management_pb2 as ts_management
from servegrpc.core.archiver import ArchiveSpec, write_archive
from servegrpc.v1 import inference_pb2, management_pb2

HANDLER = """
def handle(data, context):
    return None if data is None else [len(row) for row in data]
"""
AT_ONCE = 32
CALL_SECONDS = 20
STOP_SECONDS = 20
WATCH_SECONDS = 0.05  # streams that end only when their caller does
MEMORY_BYTES = 96 * 2**20
HARMLESS = tuple(name for name in NAMES if name != "fuzzed")  # for the rpcs that would take the model away
CHANGING = ("Register", "Unregister", "Scale", "SetDefault", "RepositoryModel")
WATCHING = ("WatchModels", "Watch")

Code = grpc.StatusCode
MAY_BE = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.FAILED_PRECONDITION,
    Code.ALREADY_EXISTS,
    Code.UNIMPLEMENTED,
    Code.RESOURCE_EXHAUSTED,
}
TORCHSERVE_MAY_BE = {*MAY_BE, Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE}  # upstream's own, for what callers do wrong


@dataclass(frozen=True)
class Rpc:
    """One method on one port, and the class of what it takes."""

    port: str
    path: str
    request: type
    streams: bool  # requests

    @property
    def changes(self):
        return self.path.rpartition("/")[2].startswith(CHANGING)

    @property
    def names(self):
        return HARMLESS if self.changes else NAMES

    @property
    def watches(self):
        return self.path.endswith(WATCHING)


def rpcs():
    """Return every method of every service, on each port that has it."""
    torchserve = "org.pytorch.serve.grpc"
    served = {
        "inference": (
            (inference_pb2, "servegrpc.v1.InferenceService"),
            (ts_inference, f"{torchserve}.inference.InferenceAPIsService"),
            (oip, "inference.GRPCInferenceService"),
            (oip, f"{torchserve}.openinference.GRPCInferenceService"),
        ),
        "management": (
            (management_pb2, "servegrpc.v1.ManagementService"),
            (ts_management, f"{torchserve}.management.ManagementAPIsService"),
            (oip, "inference.GRPCInferenceService"),
        ),
    }
    common = ((health_pb2, "grpc.health.v1.Health"), (reflection_pb2, "grpc.reflection.v1alpha.ServerReflection"))
    return [
        Rpc(port, f"/{name}/{method.name}", GetMessageClass(method.input_type), method.client_streaming)
        for port, services in served.items()
        for file, name in (*services, *common)
        for method in file.DESCRIPTOR.services_by_name[name.rpartition(".")[2]].methods
    ]


@dataclass
class WireOutcome:
    """What came of it; without `wrong`, all was well."""

    codes: Counter = field(default_factory=Counter)
    garbage: int = 0
    grown_bytes: int = 0
    wrong: list[str] = field(default_factory=list)


def fuzz_wire(calls, connections, seed, folder, *, lane="on"):
    """Make so many calls and so many connections of garbage."""
    server = start(Path(folder), lane)
    outcome = WireOutcome()
    try:
        with server.client() as client:
            before = _workers(client)
            process = psutil.Process(server.process.pid)
            _calls(server, calls // 10, seed, outcome)
            _garbage(server, connections // 10, seed, outcome)
            held = process.memory_info().rss
            _calls(server, calls - calls // 10, seed + 1, outcome)
            _garbage(server, connections - connections // 10, seed + 1, outcome)
            outcome.grown_bytes = process.memory_info().rss - held
            if outcome.grown_bytes > MEMORY_BYTES:
                outcome.wrong.append(f"memory grew by {outcome.grown_bytes >> 20} MiB")
            if _workers(client) != before:
                outcome.wrong.append("a worker was lost")
            if client.predict("fuzzed", {"a": b"1", "b": "2"}).output != 2:
                outcome.wrong.append("a good request got a wrong answer")
        outcome.wrong += server.log.lines("server error")[:10]
        server.process.terminate()
        if server.wait(STOP_SECONDS):
            outcome.wrong.append(f"the server ended with {server.wait()}")
    finally:
        server.stop()
    return outcome


def start(folder, lane):
    """Start a server with the model that takes anything."""
    handler = folder / "fuzzed.py"
    handler.write_text(HANDLER)
    config = folder / "model-config.yaml"
    config.write_text("batchSize: 8\nminWorkers: 2\n")
    spec = ArchiveSpec("fuzzed", str(handler), "1.0", config_file=str(config), export_path=str(folder / "store"))
    return ServerProcess("--fast-lane", lane, "--allow-client-shm", "/fuzz", write_archive(spec))


def _workers(client):
    return sorted(worker.pid for version in client.model("fuzzed").versions for worker in version.workers)


def _calls(server, count, seed, outcome):
    found = rpcs()
    channels = {port: grpc.insecure_channel(getattr(server, port)) for port in ("inference", "management")}

    def case(number):
        chance = random.Random(f"{seed} {number}")
        rpc = chance.choice(found)
        bodies = [_body(rpc, chance) for _ in range(chance.randint(0, 3) if rpc.streams else 1)]
        code, text, reason = _call(channels[rpc.port], rpc, bodies)
        outcome.codes[code.name] += 1
        if not _may_be(rpc, code, text, reason):
            outcome.wrong.append(f"{rpc.port} {rpc.path}: {code.name} {reason} {text[:200]}; for {[body[:150].hex() for body in bodies]}")

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in threads.map(case, range(count)):
            pass
    for channel in channels.values():
        channel.close()


def _body(rpc, chance):
    raw = fields(chance) if chance.random() < 0.15 else message(rpc.request, chance, rpc.names).SerializeToString()
    if chance.random() < 0.5:
        raw = mutated(raw, chance)
    return raw.replace(b"fuzzed", b"nobody") if rpc.changes else raw


def _call(channel, rpc, bodies):
    """Make one call, as a stream of both sides whatever its arity; a watch is left after a moment."""
    call = channel.stream_stream(rpc.path)(iter(bodies), timeout=WATCH_SECONDS if rpc.watches else CALL_SECONDS)
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        found = call_error(error)
        return found.code, found.message, found.reason
    return Code.OK, "", ""


def _may_be(rpc, code, text, reason):
    if reason == "SERVER_ERROR" or "The server failed" in text:
        return False
    if code is Code.DEADLINE_EXCEEDED:
        return rpc.watches
    if code is Code.INTERNAL and text == "Exception deserializing request!":  # grpcio's own, where its methods are not wrapped
        return rpc.path.endswith(("Health/Watch", "ServerReflectionInfo"))
    return code in (TORCHSERVE_MAY_BE if "pytorch" in rpc.path else MAY_BE)


def _garbage(server, count, seed, outcome):
    """Send bytes that are no HTTP/2, or not quite, each on a connection of its own."""
    for case in range(count):
        chance = random.Random(f"{seed} http {case}")
        host, _, port = chance.choice([server.inference, server.management]).rpartition(":")
        with suppress(ConnectionError, TimeoutError), socket.create_connection((host, int(port)), timeout=CALL_SECONDS) as connection:
            connection.sendall(_http(chance))
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.01)
            while connection.recv(2**16):
                pass
        outcome.garbage += 1


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _http(chance):
    if chance.random() < 0.1:
        return chance.choice([PREFACE, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b""]) + chance.randbytes(chance.randint(0, 300))
    path = chance.choice([rpc.path for rpc in rpcs() if not rpc.changes])
    true = _frame(4, 0, 0, b"") + _request(path, 1) + _request("/servegrpc.v1.InferenceService/Predict", 3)
    if chance.random() < 0.3:
        kind, flags, stream = chance.randint(0, 12), chance.getrandbits(8), chance.choice([0, 1, 2, 3, 5, 2**31 - 1])
        true += _frame(kind, flags, stream, chance.randbytes(chance.choice([0, 1, 4, 5, 8, 100])))
    return PREFACE + (true if chance.random() < 0.1 else mutated(true, chance))


def _request(path, stream):
    """Return a call as HTTP/2 frames; its headers are spelled out."""
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a", "content-type": "application/grpc", "te": "trailers"}
    block = b"".join(b"\0" + bytes([len(key)]) + key.encode() + bytes([len(text)]) + text.encode() for key, text in headers.items())
    body = inference_pb2.PredictRequest(model_name="fuzzed", inputs={"data": {"text": "x"}}).SerializeToString()
    return _frame(1, 4, stream, block) + _frame(0, 1, stream, b"\0" + len(body).to_bytes(4, "big") + body)


def _frame(kind, flags, stream, body):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
