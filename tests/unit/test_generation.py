"""GenerationHandler: its text is that of `generate`, whoever joins and leaves meanwhile."""

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from servegrpc.errors import InvalidInput
from servegrpc.handlers.generation import GenerationHandler
from servegrpc.handlers.generation_request import TextStream, read_options
from servegrpc.handlers.kv_batch import KvBatch, layers_of
from servegrpc.handlers.stepping import StepRequest
from servegrpc.handlers.streaming import NOTHING, Last

SMALL = {"vocab_size": 256, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


class ByteTokenizer:
    """One token per byte of UTF-8."""

    eos_token_id = 0

    def encode(self, text):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(tokens).decode(errors="replace")


class TokenNames(ByteTokenizer):
    """Tokens as text that shows each: what a random model writes is no UTF-8."""

    def decode(self, tokens):
        return "".join(f"{token} " for token in tokens)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=96, initializer_range=0.5, **SMALL))


def llama():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(max_position_embeddings=96, initializer_range=0.5, **sizes, **SMALL))


@pytest.fixture(scope="module", params=[pytest.param(gpt2, id="gpt2"), pytest.param(llama, id="llama", marks=pytest.mark.slow)])
def handler(request):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    handler = GenerationHandler()
    handler.use(request.param().double(), TokenNames())
    yield handler
    torch.set_num_threads(threads)


def started(handler, prompt, **options):
    request = StepRequest({"data": {"prompt": prompt, **options}}, prompt)
    handler.start(request)
    return request


def run(handler, arrivals, away=()):
    """Drive the steps: `arrivals` maps a step to the requests that come before it; `away` are (step, request) without a place in it."""
    texts, live, step = {}, [], 0
    while live or any(later >= step for later in arrivals):
        live += [started(handler, prompt, **options) for prompt, options in arrivals.get(step, ())]
        active = [request for request in live if (step, request.request_id) not in away]
        for request, value in zip(active, handler.step(active) if active else (), strict=True):
            text = value.value if isinstance(value, Last) else "" if value is NOTHING else value
            texts[request.request_id] = texts.get(request.request_id, "") + text
            if isinstance(value, Last):
                live.remove(request)
                handler.finish(request)
        step += 1
    return texts


def generated(handler, prompt, count):
    """The text of `generate`, which is the end token's before it."""
    tokens = torch.tensor([list(prompt.encode())])
    reply = handler.model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, do_sample=False)
    found = reply[0, tokens.shape[1] :].tolist()
    return handler.tokenizer.decode(found[: found.index(0)] if 0 in found else found)


def test_alone(handler):
    """One request → token for token what `generate` makes."""
    assert run(handler, {0: [("Light", {"max_new_tokens": 30})]}) == {"Light": generated(handler, "Light", 30)}


@pytest.mark.slow
def test_joining_and_leaving(handler):
    """Prompts of several lengths join at several steps and leave at others → each has what `generate` makes of it alone."""
    lengths = {"a": 9, "a longer prompt than others": 25, "Rays": 3, "Of colours": 31, "b": 1, "last of all": 12}
    joins = {0: ["a", "Rays"], 1: ["a longer prompt than others"], 4: ["Of colours", "b"], 40: ["last of all"]}
    arrivals = {step: [(prompt, {"max_new_tokens": lengths[prompt]}) for prompt in prompts] for step, prompts in joins.items()}
    assert run(handler, arrivals) == {prompt: generated(handler, prompt, count) for prompt, count in lengths.items()}


def test_left_out_for_a_while(handler):
    """A slow reader's request has no place in some steps → it goes on later, where it was."""
    arrivals = {0: [("one", {"max_new_tokens": 8}), ("other one", {"max_new_tokens": 20})]}
    away = {(step, "one") for step in (2, 3, 4, 9)}
    assert run(handler, arrivals, away) == {"one": generated(handler, "one", 8), "other one": generated(handler, "other one", 20)}


def test_cancelled(handler):
    """A caller leaves in the middle, and then all do → the other's text is not touched; nothing is held after the last."""
    first, second = started(handler, "first", max_new_tokens=20), started(handler, "second", max_new_tokens=6)
    values = [handler.step([first, second])[1], handler.step([first, second])[1]]
    handler.finish(first)
    values += [handler.step([second])[0] for _ in range(4)]
    handler.finish(second)
    assert "".join(values[:-1]) + values[-1].value == generated(handler, "second", 6)
    assert handler._batch is None
    assert handler._rows == []


def test_seed(handler):
    """A seed and a temperature → the same text twice, whoever else is there; another seed → another text."""
    options = {"temperature": 5.0, "max_new_tokens": 12}
    alone = run(handler, {0: [("x", {**options, "seed": 1})]})["x"]
    together = run(handler, {0: [("y", options)], 2: [("x", {**options, "seed": 1})]})["x"]
    assert alone == together != run(handler, {0: [("x", {**options, "seed": 2})]})["x"]


def test_top_k_of_one(handler):
    """A choice among one → the likeliest token each time."""
    sampled = run(handler, {0: [("Light", {"max_new_tokens": 10, "temperature": 2.0, "top_k": 1})]})
    assert sampled == {"Light": generated(handler, "Light", 10)}


def test_stop_text(handler):
    """A text to stop at → the text before it, and the end."""
    whole = generated(handler, "Light", 12)
    stop = whole[len(whole) // 2 :][:5]
    assert run(handler, {0: [("Light", {"max_new_tokens": 12, "stop": stop})]}) == {"Light": whole.partition(stop)[0]}


def test_too_long(handler):
    """A prompt and more tokens than the model's positions → refused by name."""
    with pytest.raises(InvalidInput, match='"max_new_tokens" 95 are more than the 96') as refused:
        started(handler, "ab", max_new_tokens=95)
    assert refused.value.field == "inputs.max_new_tokens"


def test_split_and_join():
    """Rows of different lengths joined and split → the same keys, and a mask that says which are padding."""
    rows = [KvBatch([(torch.rand(1, 2, size, 3), torch.rand(1, 2, size, 3))], torch.ones(1, size, dtype=torch.int64)) for size in (4, 1, 3)]
    batch = KvBatch.join(rows)
    assert batch.mask.tolist() == [[1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]]
    for row, again in zip(rows, batch.split(), strict=True):
        assert torch.equal(layers_of(row.cache)[0][0], layers_of(again.cache)[0][0])


@pytest.mark.parametrize(
    "row",
    [
        {"data": "Light"},
        {"body": bytearray(b"Light")},
        {"data": {"prompt": "Light"}},
        {"data": bytearray(json.dumps({"prompt": "Light"}).encode())},
        {"prompt": bytearray(b"Light")},
    ],
)
def test_prompt(row):
    """A prompt as text, bytes, JSON, JSON in bytes or an input of its own → the prompt, and what the model gives by default."""
    options = read_options(row, 7)
    assert (options.prompt, options.max_new_tokens, options.temperature) == ("Light", 7, 0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", "many"),
        ("temperature", -1),
        ("top_k", 1.5),
        ("seed", True),
        ("stop", [""]),
        ("prompt", ""),
        ("best_of", 2),
    ],
)
def test_wrong_field(field, value):
    """A field that is wrong or unknown → refused, by its name."""
    with pytest.raises(InvalidInput, match=field) as refused:
        read_options({"data": {"prompt": "Light", field: value}}, 7)
    assert refused.value.field == f"inputs.{field}"


def test_characters_of_several_tokens():
    """Tokens that are single bytes of characters → whole characters, as soon as they are there."""
    text = TextStream(ByteTokenizer().decode, ())
    assert [text.add(token) for token in "né€😀.".encode()] == ["n", "", "é", "", "", "€", "", "", "", "😀", "."]


def test_stop_text_over_several_tokens():
    """What may be a stop text is held back → it is sent when it is none, and never when it is."""
    text = TextStream(ByteTokenizer().decode, ("END",))
    assert [text.add(token) for token in b"AENEND"] == ["A", "", "", "EN", "", ""]
    assert (text.stopped, text.rest()) == (True, "")
