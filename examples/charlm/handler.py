"""Continues a text in the manner of Newton's Opticks, character by character, for up to `batchSize` callers at once."""

from pathlib import Path

import torch
from model import CharLM, CharTokenizer

from servegrpc.handlers.generation import GenerationHandler


class CharLMHandler(GenerationHandler):
    """Streams what comes after each prompt. See docs/streaming.md for what callers may send."""

    def load(self, context):
        """Return the network with its weights, which are stored as 16-bit numbers, and its tokenizer."""
        torch.set_num_threads(1)  # so small a network is slower on several
        model = CharLM()
        weights = torch.load(Path(context.system_properties["model_dir"]) / "charlm.pt", weights_only=True)
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        return model, CharTokenizer()
