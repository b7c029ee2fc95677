"""The same calls against TorchServe 0.12 and servegrpc, replies and codes compared: `python -m benchmarks.differential`.

Runs in the project's own environment; `python -m benchmarks.setup` makes TorchServe's. Writes every outcome to
`benchmarks/results/differential.json` and the differences, each with its reason, to `docs/torchserve-differences.md`. Exits with 1 for a
difference without a reason, or a reason without a difference.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import grpc

from benchmarks.differential_calls import Call, calls
from benchmarks.differential_models import write_archives
from benchmarks.differential_reasons import REASONS, reason_of, table
from benchmarks.models import HERE, ROOT
from benchmarks.peers import ManagedPeer, ServeGrpc, TorchServe
from servegrpc.compat.torchserve import inference_pb2 as inference
from servegrpc.compat.torchserve import management_pb2 as management

METHODS = ("Ping", "Predictions", "StreamPredictions", "StreamPredictions2")  # on the inference port
INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"
SECONDS = 60  # for a call; TorchServe needs half of it to start a worker that fails
STREAM_SECONDS = 8  # for a streamed call, of which TorchServe leaves some hanging
READY_SECONDS = 90
LONGEST = 2000  # characters of a reply that are kept as they are
LONGEST_SHOWN = 400  # characters of a reply that the table shows in whole
VOLATILE = re.compile(r'"(id|startTime|memoryUsage|pid)": ("[^"]*"|\d+)')  # parts of a description that differ in every run


class Outcome(NamedTuple):
    """What came of a call; bytes as text, or as their length and hash when they are long or no text."""

    code: str
    details: str
    replies: tuple[str, ...]


def main() -> int:
    """Run all calls on both servers; exit code 0 when every difference has its reason."""
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = run(TorchServe(Path(folder))), run(ServeGrpc(Path(folder)))
    different = {label: told(theirs[label], ours[label]) for label in theirs if theirs[label] != ours[label]}
    outcomes = {label: {"torchserve": theirs[label]._asdict(), "servegrpc": ours[label]._asdict()} for label in theirs}
    (HERE / "results" / "differential.json").write_text(json.dumps(outcomes, indent=1, ensure_ascii=False) + "\n")
    (ROOT / "docs" / "torchserve-differences.md").write_text(table(len(theirs), different))
    unexplained = [label for label in different if not reason_of(label)]
    stale = [label for labels in REASONS.values() for label in labels if label not in different]
    print(f"{len(theirs)} calls, {len(different)} different, {len(unexplained)} of them without a reason")
    for label in unexplained:
        print(f"no reason: {label}\n  {different[label][0]}\n  {different[label][1]}")
    for label in stale:
        print(f"no difference any more: {label}")
    return 1 if unexplained or stale else 0


def told(theirs: Outcome, ours: Outcome) -> tuple[str, str]:
    """Return two outcomes as texts: of long replies, only the lines that differ."""
    pairs = zip_longest("\n".join(theirs.replies).split("\n"), "\n".join(ours.replies).split("\n"), fillvalue="")
    lines = list(zip(*[pair for pair in pairs if pair[0] != pair[1]], strict=True)) or [(), ()]
    if len(theirs.replies) != 1 or len(ours.replies) != 1 or max(map(len, (*theirs.replies, *ours.replies))) < LONGEST_SHOWN:
        lines = [theirs.replies, ours.replies]
    ends = [f"{end.code} {end.details}".strip() for end in (theirs, ours)]
    return tuple(" ".join((end, *map(str.strip, some))) for end, some in zip(ends, lines, strict=True))  # type: ignore[return-value]


def run(peer: ManagedPeer) -> dict[str, Outcome]:
    """Start a server with the archives in its model store, make all calls and stop it; returns the outcomes by label."""
    write_archives(peer.folder)
    peer.open()
    try:
        with grpc.insecure_channel(peer.inference) as inference_port, grpc.insecure_channel(peer.management) as management_port:
            outcomes: dict[str, Outcome] = {}
            for call in calls():
                channel = inference_port if call.method in METHODS else management_port
                if call.until:
                    _wait(channel, call)
                    continue
                if call.label in outcomes:
                    raise RuntimeError(f"{call.label}: the label is there twice.")
                outcome = make(channel, call)
                if call.compared:
                    outcomes[call.label] = outcome
            return outcomes
    finally:
        peer.close()


def _wait(channel: grpc.Channel, call: Call) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while call.until not in "".join(make(channel, call).replies):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{call.label}: not in time.")
        time.sleep(0.2)


def make(channel: grpc.Channel, call: Call) -> Outcome:
    """Make one call; returns what came of it."""
    path = f"/{INFERENCE if call.method in METHODS else MANAGEMENT}/{call.method}"
    raw = [request.SerializeToString() for request in call.requests]
    replies: list[bytes] = []
    try:
        if call.method == "StreamPredictions":
            for reply in channel.unary_stream(path)(raw[0], timeout=STREAM_SECONDS):
                replies.append(reply)
        elif call.method == "StreamPredictions2":
            _converse(channel, path, raw, replies)
        else:
            replies.append(channel.unary_unary(path)(raw[0], timeout=SECONDS))
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
    if method not in METHODS:
        return VOLATILE.sub(r'"\1": …', management.ManagementResponse.FromString(raw).msg)
    reply = inference.PredictionResponse.FromString(raw)
    status = f"status {reply.status.code} {reply.status.message!r} " if reply.HasField("status") else ""
    sequence = f"sequence {reply.sequence_id!r} " if reply.HasField("sequence_id") else ""
    return status + sequence + _text(reply.prediction)


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
