"""TextIteratorStreamerBatch with a tiny random model of transformers."""

import queue
import threading

import pytest
import torch

from servegrpc.handlers.hf_batch_streamer import TextIteratorStreamerBatch

WORDS = ["<pad>", "<end>", *(f"w{number}" for number in range(30))]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


@pytest.fixture(scope="module")
def model():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=64, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1, pad_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def generate(model, tokenizer, prompts, streamer):
    """Generate on a thread, as handlers do; returns the texts of each step, and all of each sequence's tokens."""
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    done = {}

    def run():
        done["tokens"] = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, streamer=streamer)

    thread = threading.Thread(target=run)
    thread.start()
    steps = list(streamer)
    thread.join()
    return steps, done["tokens"]


@pytest.mark.slow
def test_each_sequence_streams_its_text(model, tokenizer):
    """Two prompts → in each step a text of each; together what the model generated, prompt left out; and so the next time."""
    streamer = TextIteratorStreamerBatch(tokenizer, 2, skip_prompt=True, timeout=30, skip_special_tokens=True)
    for prompts in (["w1 w2", "w3 w4"], ["w5 w6", "w7 w8"]):
        steps, tokens = generate(model, tokenizer, prompts, streamer)
        assert len(steps) > 2
        assert {len(step) for step in steps} == {2}
        joined = ["".join(texts) for texts in zip(*steps, strict=True)]
        assert joined == tokenizer.batch_decode(tokens[:, 2:], skip_special_tokens=True)


@pytest.mark.slow
def test_another_batch_size_is_an_error(tokenizer):
    """Tokens of three sequences for a streamer of two → ValueError that says what to set."""
    with pytest.raises(ValueError, match="for 2 sequences and got tokens of 3; set batch_size"):
        TextIteratorStreamerBatch(tokenizer, 2).put(torch.zeros(3))


@pytest.mark.slow
def test_a_silent_model_times_out(tokenizer):
    """No tokens within the timeout → queue.Empty, not a wait for ever."""
    with pytest.raises(queue.Empty):
        next(iter(TextIteratorStreamerBatch(tokenizer, 1, timeout=0.01)))
