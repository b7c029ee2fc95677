"""The loop of a worker that runs one batch at a time, with the server's end of the channel in the test."""

import os

import numpy as np
import pytest

from servegrpc.core.request import Request
from servegrpc.engine.channel import Channel, Kind
from servegrpc.tensors import parse_declaration
from servegrpc.v1 import inference_pb2
from servegrpc.values import encode_value
from servegrpc.wire.codecs import CODECS
from servegrpc.worker.answers import Answers
from servegrpc.worker.batch_loop import CLEAN, BatchLoop
from servegrpc.worker.context import Context
from servegrpc.worker.joining import joined
from servegrpc.worker.runner import Runner


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
