"""The loop of a worker that runs one batch at a time, with the server's end of the channel in the test."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from servegrpc.core.request import Request
from servegrpc.engine.channel import Channel, Kind
from servegrpc.tensors import parse_declaration
from servegrpc.v1 import inference_pb2
from servegrpc.values import encode_value
from servegrpc.wire.codecs import CODECS
from servegrpc.worker import batch_loop, held
from servegrpc.worker.answers import Answers
from servegrpc.worker.batch_loop import CLEAN, HOLD_NANOSECONDS, BatchLoop
from servegrpc.worker.context import Context
from servegrpc.worker.joining import joined
from servegrpc.worker.runner import Runner

LATE = HOLD_NANOSECONDS * 20


@pytest.fixture
def ends():
    """The server's and the worker's end."""
    server, descriptors = Channel.pair(16)
    worker = Channel.from_descriptors([descriptors[0], *map(os.dup, descriptors[1:])])
    yield server, worker
    server.close()
    worker.close()


def serve(ends, entry, inputs, batch_size=1):
    """Run a loop on one hand-over of these inputs, until it is told to stop."""
    server, worker = ends
    payloads = [inference_pb2.PredictRequest(inputs={"x": encode_value(value)}).SerializeToString() for value in inputs]
    server.send_batch(0, 1, [Request(payload, 0, f"r{index}", print) for index, payload in enumerate(payloads)], 0.0)
    context = Context("m", "/", {}, batch_size, None)
    loop = BatchLoop(worker, Runner(entry, context, Answers(CODECS, "m", "1.0", 1, True)), batch_size)
    server.send(Kind.STOP)
    assert loop.serve() == CLEAN


def answered(server):
    """Return the indexes of the replies that have come until now."""
    indexes = []
    while server.wait_readable(0) and (message := server.receive()):
        indexes += [reply.index for reply in getattr(message, "replies", ())]
    return indexes


def test_joined_requests_begin_by_rows(ends):
    """A hand-over of several calls has requests of several rows → those of each call count as begun when it begins, and no others."""
    server, _ = ends
    begun = []

    def handle(rows, context):
        begun.append((len(context.request_ids), server.started(0)))
        return [{"y": rows[0]["x"]}]

    spec = {"datatype": "FP32", "shape": [-1, 2], "batchable": True}
    declared = parse_declaration({"inputs": [{"name": "x", **spec}], "outputs": [{"name": "y", **spec}]})
    serve(ends, joined(handle, declared, 8), [np.ones((rows, 2), np.float32) for rows in (4, 4, 3, 8, 1, 1)], 8)
    assert begun == [(2, 2), (1, 3), (1, 4), (2, 6)]


def test_handler_ends_its_process(ends):
    """A handler ends its process in the middle of a hand-over → those before are answered all the same."""
    server, _ = ends

    def handle(rows, context):
        if rows[0]["x"] == 2:
            raise SystemExit
        return ["done"]

    with pytest.raises(SystemExit):
        serve(ends, handle, [0, 1, 2, 3])
    assert answered(server) == [0, 1]


@pytest.fixture
def clock(monkeypatch):
    """What the loop sees of time: `now` in monotonic nanoseconds, and what the process has `worked`. The test moves both."""
    clock = SimpleNamespace(now=0, worked=0)
    monkeypatch.setattr(batch_loop, "monotonic_ns", lambda: clock.now)
    monkeypatch.setattr(batch_loop, "process_time_ns", lambda: clock.worked)
    monkeypatch.setattr(held, "LOOK_SECONDS", 20)  # its thread goes by the real time, and shall not come before
    return clock


def test_quick_calls_after_a_slow_one(ends, clock):
    """A call was slow, the next one is quick → its reply does not wait for the one after it, which may be slow again."""
    server, _ = ends
    seen = []

    def handle(rows, context):
        seen.append(answered(server))
        took = LATE if rows[0]["x"] == "slow" else 1
        clock.now += took
        clock.worked += took
        return ["done"]

    serve(ends, handle, ["slow", "quick", "quick"])
    assert seen == [[], [0], [1]]


def test_quick_calls_after_one_that_did_not_run(ends, clock):
    """A call took long since its process was not run meanwhile → the replies of the quick calls behind it are sent together, as ever."""
    server, _ = ends
    seen = []

    def handle(rows, context):
        seen.append(answered(server))
        clock.now += LATE if rows[0]["x"] == "late" else 1
        return ["done"]

    serve(ends, handle, ["late", "quick", "quick", "quick"])
    assert seen == [[], [0], [], []]
    assert answered(server) == [1, 2, 3]
