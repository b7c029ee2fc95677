"""Handlers of the package through a real server: envelopes, explanations beside predictions, text as it is generated."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from servegrpc.client import CallError

pytestmark = pytest.mark.both_lanes

DOUBLE = """
def handle(data, context):
    if data is None:
        return None
    return [row * 2 for row in data]
"""
EXPLAIN = """
import torch
from servegrpc.handlers import BaseHandler

class Weighed(BaseHandler):
    def initialize(self, context):
        self.device = torch.device("cpu")
        self.model = torch.nn.Identity()

    def get_insights(self, tensor, raw, target):
        return [{"target": target, "seen": tensor.tolist()}]

    def describe_handle(self):
        return {"answers": "what it gets"}
"""
WRITER = """
from threading import Thread

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from servegrpc.handlers import BaseHandler
from servegrpc.handlers.hf_batch_streamer import TextIteratorStreamerBatch
from servegrpc.handlers.streaming import NOTHING

class Writer(BaseHandler):
    def initialize(self, context):
        words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(32)}, unk_token="w0"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1")
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=32, n_positions=64, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1, pad_token_id=0)
        self.model = GPT2LMHeadModel(config).eval()

    def handle(self, data, context):
        prompts = self.tokenizer([row["data"] for row in data], return_tensors="pt", padding=True)
        streamer = TextIteratorStreamerBatch(self.tokenizer, len(data), skip_prompt=True, timeout=60)
        settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "streamer": streamer}
        thread = Thread(target=self.model.generate, kwargs={**prompts, **settings})
        thread.start()
        for texts in streamer:
            yield [text or NOTHING for text in texts]
        thread.join()
"""


@pytest.mark.slow
def test_an_envelope_around_a_function(client, register):
    """Four requests of several instances each, at once → each its own predictions; one of another format is refused alone."""
    name = register("double", code=DOUBLE, config="batchSize: 4\nmaxBatchDelay: 200\nserviceEnvelope: kserve\n")
    requests = [{"instances": [index, index + 1]} for index in range(3)]
    sent = [*(json.dumps(request).encode() for request in requests), b'{"inputs": []}']

    def call(data):
        try:
            return client.predict(name, data).output
        except CallError as error:
            return error

    with ThreadPoolExecutor(4) as threads:
        *replies, refused = threads.map(call, sent)
    assert replies == [{"predictions": [2 * index, 2 * index + 2]} for index in range(3)]
    assert (refused.reason, "instances" in str(refused)) == ("INVALID_INPUT", True)


@pytest.mark.slow
def test_headers_ask_for_more_than_a_prediction(client, register):
    """A request explains, one describes and one predicts, in one batch → each what it asked for."""
    name = register("weighed", code=EXPLAIN, config="batchSize: 3\nmaxBatchDelay: 200\n")
    asked = [[("explain", "True")], [("describe", "True")], []]

    def call(metadata):
        return client.predict(name, {"data": [1.5, 2.5], "target": 4}, metadata=metadata).output

    with ThreadPoolExecutor(3) as threads:
        explained, described, predicted = threads.map(call, asked)
    assert explained == {"target": 4, "seen": [[1.5, 2.5]]}
    assert described == {"answers": "what it gets"}
    assert predicted == [1.5, 2.5]


@pytest.mark.slow
def test_text_streams_as_it_is_generated(client, register):
    """Two callers of a transformers model in one batch → each a stream of words, six in all."""
    name = register("writer", code=WRITER, config="batchSize: 2\nmaxBatchDelay: 200\n")

    def call(prompt):
        return [message.output for message in client.stream(name, prompt)]

    with ThreadPoolExecutor(2) as threads:
        streams = list(threads.map(call, ["w3 w4", "w5 w6"]))
    for pieces in streams:
        assert len(pieces) > 1
        assert len("".join(pieces).split()) == 6
