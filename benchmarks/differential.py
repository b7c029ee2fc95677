"""The same calls against TorchServe 0.12 and servegrpc, replies and codes compared: `python -m benchmarks.differential`.

Runs in the project's own environment; `python -m benchmarks.setup` makes TorchServe's. Writes every outcome to
`benchmarks/results/differential.json` and the differences, each with its reason, to `docs/torchserve-differences.md`. Exits with 1 for a
difference without a reason, or a reason without a difference.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import grpc
from google.protobuf import text_format

from benchmarks.differential_calls import Call
from benchmarks.differential_models import write_archives
from benchmarks.differential_reasons import REASONS, reason_of, table
from benchmarks.differential_setups import SETUPS, Setup
from benchmarks.models import HERE, ROOT
from benchmarks.peers import ManagedPeer, ServeGrpc, TorchServe
from servegrpc.compat.open_inference import infer_pb2 as infer
from servegrpc.compat.open_inference import server_pb2 as about
from servegrpc.compat.torchserve import inference_pb2 as inference
from servegrpc.compat.torchserve import management_pb2 as management

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
OPEN_INFERENCE = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"
SERVICES = {  # of the methods on the inference port
    **dict.fromkeys(("Ping", "Predictions", "StreamPredictions", "StreamPredictions2"), INFERENCE),
    **dict.fromkeys(("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer"), OPEN_INFERENCE),
}
ELEMENTS = {"BOOL": "?", "INT32": "i", "INT64": "q", "UINT8": "B", "FP32": "f", "FP64": "d"}  # of raw contents, for `struct`
SECONDS = 60  # for a call; TorchServe needs half of it to start a worker that fails
STREAM_SECONDS = 8  # for a streamed call, of which TorchServe leaves some hanging
READY_SECONDS = 90
LONGEST = 2000  # characters of a reply that are kept as they are
LONGEST_SHOWN = 400  # characters of a reply that the table shows in whole
VOLATILE = re.compile(r'"(id|startTime|memoryUsage|pid)": ("[^"]*"|\d+)')  # parts of a description that differ in every run

Metadata = tuple[tuple[str, str], ...]


class Outcome(NamedTuple):
    """What came of a call; bytes as text, or as their length and hash when they are long or no text."""

    code: str
    details: str
    replies: tuple[str, ...]


def main() -> int:
    """Run all calls on both servers; exit code 0 when every difference has its reason."""
    theirs, ours = dict[str, Outcome](), dict[str, Outcome]()
    with tempfile.TemporaryDirectory() as folder:
        for setup in SETUPS:
            theirs |= run(setup, _their_peer(setup, Path(folder)))
            ours |= run(setup, _our_peer(setup, Path(folder)))
    different = {label: told(theirs[label], ours[label]) for label in theirs if theirs[label] != ours[label]}
    reasons = {label: reason_of(label, *map(_text_of, (theirs[label], ours[label]))) for label in different}
    outcomes = {label: {"torchserve": theirs[label]._asdict(), "servegrpc": ours[label]._asdict()} for label in theirs}
    (HERE / "results" / "differential.json").write_text(json.dumps(outcomes, indent=1, ensure_ascii=False) + "\n")
    (ROOT / "docs" / "torchserve-differences.md").write_text(table(len(theirs), different, reasons))
    unexplained = [label for label in different if not reasons[label]]
    stale = [label for labels in REASONS.values() for label in labels if label not in different]
    print(f"{len(theirs)} calls, {len(different)} different, {len(unexplained)} of them without a reason")
    for label in unexplained:
        print(f"no reason: {label}\n  {different[label][0]}\n  {different[label][1]}")
    for label in stale:
        print(f"no difference any more: {label}")
    return 1 if unexplained or stale else 0


def _their_peer(setup: Setup, folder: Path) -> TorchServe:
    peer = TorchServe(folder)
    peer.properties, peer.options = setup.properties, setup.options
    return peer


def _our_peer(setup: Setup, folder: Path) -> ServeGrpc:
    peer = ServeGrpc(folder)
    (peer.folder / "config.properties").write_text("\n".join(setup.properties))
    peer.options = ("--ts-config", str(peer.folder / "config.properties"), *setup.options)
    return peer


def _text_of(outcome: Outcome) -> str:
    return "\n".join((outcome.code, outcome.details, *outcome.replies))


def told(theirs: Outcome, ours: Outcome) -> tuple[str, str]:
    """Return two outcomes as texts: of long replies, only the lines that differ."""
    pairs = zip_longest("\n".join(theirs.replies).split("\n"), "\n".join(ours.replies).split("\n"), fillvalue="")
    lines = list(zip(*[pair for pair in pairs if pair[0] != pair[1]], strict=True)) or [(), ()]
    if len(theirs.replies) != 1 or len(ours.replies) != 1 or max(map(len, (*theirs.replies, *ours.replies))) < LONGEST_SHOWN:
        lines = [theirs.replies, ours.replies]
    ends = [f"{end.code} {end.details}".strip() for end in (theirs, ours)]
    return tuple(" ".join((end, *map(str.strip, some))) for end, some in zip(ends, lines, strict=True))  # type: ignore[return-value]


def run(setup: Setup, peer: ManagedPeer) -> dict[str, Outcome]:
    """Start a server with the archives in its model store, make all calls and stop it; returns the outcomes by label."""
    write_archives(peer.folder)
    peer.open()
    try:
        file = peer.folder / "key_file.json"
        tokens = {port: key["key"] for port, key in json.loads(file.read_text()).items()} if file.exists() else {}
        with grpc.insecure_channel(peer.inference) as inference_port, grpc.insecure_channel(peer.management) as management_port:
            outcomes: dict[str, Outcome] = {}
            for call in setup.calls():
                channel = inference_port if call.method in SERVICES else management_port
                metadata = (("authorization", f"Bearer {tokens.get(call.key, call.key)}"),) if call.key else ()
                if call.until:
                    _wait(channel, call, metadata)
                    continue
                label = setup.name + call.label
                if label in outcomes:
                    raise RuntimeError(f"{label}: the label is there twice.")
                outcome = make(channel, call, metadata)
                if call.compared:
                    outcomes[label] = outcome
            return outcomes
    finally:
        peer.close()


def _wait(channel: grpc.Channel, call: Call, metadata: Metadata) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while call.until not in "".join(make(channel, call, metadata).replies):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{call.label}: not in time.")
        time.sleep(0.2)


def make(channel: grpc.Channel, call: Call, metadata: Metadata) -> Outcome:
    """Make one call; returns what came of it."""
    path = f"/{SERVICES.get(call.method, MANAGEMENT)}/{call.method}"
    raw = [request.SerializeToString() for request in call.requests]
    replies: list[bytes] = []
    try:
        if call.method == "StreamPredictions":
            for reply in channel.unary_stream(path)(raw[0], timeout=STREAM_SECONDS, metadata=metadata):
                replies.append(reply)
        elif call.method == "StreamPredictions2":
            _converse(channel, path, raw, replies)
        else:
            replies.append(channel.unary_unary(path)(raw[0], timeout=SECONDS, metadata=metadata))
    except grpc.RpcError as error:
        return Outcome(error.code().name, error.details(), tuple(shown(call.method, reply) for reply in replies))
    return Outcome("OK", "", tuple(shown(call.method, reply) for reply in replies))


def _converse(channel: grpc.Channel, path: str, raw: list[bytes], replies: list[bytes]) -> None:
    """Send all requests, and close only when as many replies are there: TorchServe loses them otherwise."""
    requests: SimpleQueue[bytes | None] = SimpleQueue()
    for request in raw:
        requests.put(request)
    for reply in channel.stream_stream(path)(iter(requests.get, None), timeout=STREAM_SECONDS):
        replies.append(reply)
        if len(replies) == len(raw):
            requests.put(None)


def shown(method: str, raw: bytes) -> str:
    """Return a reply as text, in the order of its fields."""
    if method == "Ping":
        return inference.TorchServeHealthResponse.FromString(raw).health
    if method not in SERVICES:
        return VOLATILE.sub(r'"\1": …', management.ManagementResponse.FromString(raw).msg)
    if SERVICES[method] == OPEN_INFERENCE:
        return _open_inference_text(method, raw)
    reply = inference.PredictionResponse.FromString(raw)
    status = f"status {reply.status.code} {reply.status.message!r} " if reply.HasField("status") else ""
    sequence = f"sequence {reply.sequence_id!r} " if reply.HasField("sequence_id") else ""
    return status + sequence + _text(reply.prediction)


def _open_inference_text(method: str, raw: bytes) -> str:
    if method != "ModelInfer":
        reply = getattr(about, f"{method}Response").FromString(raw)
        return text_format.MessageToString(reply, as_utf8=True).strip()
    reply = infer.ModelInferResponse.FromString(raw)
    lines = [f"{reply.model_name} {reply.model_version} {reply.id!r}"]
    for index, tensor in enumerate(reply.outputs):
        values = [item for _, items in tensor.contents.ListFields() for item in items]
        if index < len(reply.raw_output_contents):  # servegrpc sends these, TorchServe the others: what counts is what they hold
            values = _elements(reply.raw_output_contents[index], tensor.datatype)
        lines.append(f"{tensor.name} {tensor.datatype} {list(tensor.shape)} {values}")
    return "\n".join(lines)


def _elements(raw: bytes, datatype: str) -> list[object]:
    if datatype != "BYTES":
        return [value for (value,) in struct.iter_unpack(f"<{ELEMENTS[datatype]}", raw)]
    values: list[object] = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        values.append(raw[4:end])
        raw = raw[end:]
    return values


def _text(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if len(content) > LONGEST or not text.replace("\n", "").isprintable():
        return f"{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"
    return text


if __name__ == "__main__":
    sys.exit(main())
