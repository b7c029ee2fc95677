"""Handlers in the words that handlers for TorchServe are written in, unchanged, in a real server."""

import grpc
import pytest

from servegrpc.client import CallError

SERVICE_IDIOM = """
import logging
from abc import ABC

import torch
from ts.torch_handler.base_handler import BaseHandler

logger = logging.getLogger(__name__)

class Doubler(BaseHandler, ABC):
    def initialize(self, ctx):
        self.manifest = ctx.manifest
        properties = ctx.system_properties
        self.device = torch.device("cuda:" + str(properties.get("gpu_id")) if torch.cuda.is_available() else "cpu")
        self.model = torch.nn.Identity()
        self.initialized = True

    def preprocess(self, requests):
        texts = [request.get("data") or request.get("body") for request in requests]
        texts = [text.decode("utf-8") if isinstance(text, (bytes, bytearray)) else text for text in texts]
        return torch.tensor([float(text) for text in texts])

    def inference(self, batch):
        return self.model(batch) * 2

    def postprocess(self, output):
        return output.tolist()

_service = Doubler()

def handle(data, context):
    try:
        if not _service.initialized:
            _service.initialize(context)
        if data is None:
            return None
        data = _service.preprocess(data)
        data = _service.inference(data)
        return _service.postprocess(data)
    except Exception as error:
        raise error
"""
FACTS = """
import os
import sys
import ts
from ts.context import Context

def handle(data, context):
    if data is None:
        return None
    folder = context.system_properties["model_dir"]
    same = [os.getcwd() == folder, sys.path[0] == folder, isinstance(context, Context)]
    return [[ts.__version__, Context.__module__, *same, context.system_properties.get("server_version")]] * len(data)
"""
STAR = """
from ts.torch_handler.base_handler import *

class Handler(BaseHandler):
    def initialize(self, context):
        logger.info("initialized")
        self.context = context

    def handle(self, data, context):
        return [os.path.basename("a/b") + str(torch.tensor(1).item())] * len(data)
"""

STREAMS = """
from ts.handler_utils.utils import send_intermediate_predict_response

class Streamer:
    def initialize(self, context):
        self.words = ["one", "two"]

    def handle(self, data, context):
        for word in self.words:
            send_intermediate_predict_response([word] * len(data), context.request_ids, "Intermediate Prediction success", 200, context)
        return ["three"] * len(data)
"""
REFUSES = """
from ts.utils.util import PredictionException

def handle(data, context):
    if data is not None:
        raise PredictionException("no such class", 404)
"""


@pytest.mark.slow
def test_service_idiom(client, register):
    """A module-level function with a service of its own → initialized once, and it answers."""
    model = register(code=SERVICE_IDIOM)
    assert client.predict(model, b"21", timeout=60).output == 42


def test_facts(client, register):
    """A handler looks at its process → the archive's folder is the working directory and first on the path, and ts is ours."""
    model = register(code=FACTS)
    assert client.predict(model, "x").output == ["0.12.0", "servegrpc.worker.context", True, True, True, "0.12.0"]


@pytest.mark.slow
def test_star_import(client, register):
    """A handler imports all that TorchServe's module has → what that imports itself is there as well."""
    assert client.predict(register(code=STAR), "x").output == "b1"


@pytest.mark.slow
def test_wins_over_the_real_package(start_server, archive, tmp_path):
    """TorchServe is installed where the server runs → handlers get our modules all the same."""
    (tmp_path / "ts").mkdir()
    (tmp_path / "ts" / "__init__.py").write_text("__version__ = 'real'")
    server = start_server(archive("facts", code=FACTS), environment={"PYTHONPATH": str(tmp_path)})
    with server.client() as client:
        assert client.predict("facts", "x").output[:2] == ["0.12.0", "servegrpc.worker.context"]


def test_intermediate_messages(client, register):
    """A handler sends messages before its last one → a stream has them in order, and a call that takes one gets the last."""
    model = register(code=STREAMS)
    assert [message.output for message in client.stream(model, "x")] == ["one", "two", "three"]
    assert client.predict(model, "x").output == "three"


def test_prediction_exception(client, register):
    """A handler raises PredictionException with an HTTP code → the caller gets its words, and the code's status."""
    with pytest.raises(CallError, match="no such class") as caught:
        client.predict(register(code=REFUSES), "x")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
