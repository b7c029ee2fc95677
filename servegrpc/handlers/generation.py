"""The base handler for language models: continues prompts token by token, all live requests in one call of the model.

    start: prefill one prompt ─► step: the batch reads its newest tokens ─► choose the next ones ─► text ─► step …

A request that joins gives its first token in the step after its `start`, from the prefill, and reads it with the others in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import torch

from servegrpc.errors import InvalidInput
from servegrpc.handlers.generation_request import GenerationOptions, Sampler, TextStream, read_options
from servegrpc.handlers.kv_batch import KvBatch
from servegrpc.handlers.stepping import StepHandler, StepRequest
from servegrpc.handlers.streaming import NOTHING, Last

if TYPE_CHECKING:
    from servegrpc.worker.context import Context


class Tokenizer(Protocol):
    """What is needed of a tokenizer; those of `transformers` have it."""

    eos_token_id: int | None

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens."""

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens."""


class ModelOutput(Protocol):
    """What a model returns."""

    logits: torch.Tensor  # [rows, tokens, vocabulary]
    past_key_values: object


@dataclass(slots=True, eq=False)
class Generation:
    """One request between two steps."""

    options: GenerationOptions
    text: TextStream
    logits: torch.Tensor | None  # of the next token, until it is chosen
    own: KvBatch | None  # its row, while it is not in the batch
    sampler: Sampler | None = None  # none: the likeliest token
    tokens: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # to a caller that takes one answer


class GenerationHandler(StepHandler):
    """Streams the continuation of each prompt, as pieces of text; a unary caller gets it whole. `docs/streaming.md` says what to send.

    Works with causal language models that keep the keys and values of all tokens and take `input_ids`, `attention_mask`, `position_ids`,
    `past_key_values` and `use_cache`. Override `load` for one that `transformers` does not load.
    """

    def __init__(self) -> None:
        self.model: torch.nn.Module
        self.tokenizer: Tokenizer
        self.device = torch.device("cpu")
        self.max_new_tokens = 64  # of requests that do not say
        self._longest = 0  # tokens of a prompt and its continuation; 0: no limit
        self._ends: frozenset[int] = frozenset()
        self._batch: KvBatch | None = None
        self._rows: list[Generation] = []  # the rows of `_batch`
        self._live = 0

    def initialize(self, context: Context) -> None:  # type: ignore[override]  # the worker gives it no other
        """Load the model. `handler: max_new_tokens` in model-config.yaml is for requests that do not say."""
        gpu = context.system_properties["gpu_id"]
        self.device = torch.device("cpu" if gpu is None or not torch.cuda.is_available() else f"cuda:{gpu}")
        settings = context.model_yaml_config.get("handler")
        if isinstance(settings, dict):
            self.max_new_tokens = int(settings.get("max_new_tokens", self.max_new_tokens))
        model, tokenizer = self.load(context)
        self.use(model, tokenizer)

    def load(self, context: Context) -> tuple[torch.nn.Module, Tokenizer]:
        """Return model and tokenizer: what `save_pretrained` wrote to the archive."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = context.system_properties["model_dir"]
        model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder)
        return model, cast("Tokenizer", AutoTokenizer.from_pretrained(folder))

    def use(self, model: torch.nn.Module, tokenizer: Tokenizer) -> None:
        """Work with a loaded model, which is moved to the worker's device."""
        self.model, self.tokenizer = model.to(self.device).eval(), tokenizer
        self._longest = getattr(getattr(model, "config", None), "max_position_embeddings", 0)
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = tokenizer.eos_token_id if ends is None else ends
        self._ends = frozenset(ends if isinstance(ends, list) else () if ends is None else (ends,))

    @torch.inference_mode()
    def start(self, request: StepRequest) -> None:
        """Read the prompt. Raises InvalidInput that names the field."""
        options = read_options(request.data, self.max_new_tokens)
        prompt = self.tokenizer.encode(options.prompt)
        if not prompt:
            raise InvalidInput('The field "prompt" has no tokens.', field="inputs.prompt")
        total = len(prompt) + options.max_new_tokens
        if 0 < self._longest < total:
            raise InvalidInput(
                f'The prompt\'s {len(prompt)} tokens and "max_new_tokens" {options.max_new_tokens} are more than the {self._longest} '
                "that the model can take; send fewer.",
                field="inputs.max_new_tokens",
            )
        logits, cache = self._read(torch.tensor([prompt], device=self.device), None)
        sampler = Sampler(options, self.device) if options.temperature else None
        request.state = Generation(options, TextStream(self.tokenizer.decode, options.stop), logits[0], cache, sampler)
        self._live += 1

    @torch.inference_mode()
    def step(self, active: Sequence[StepRequest]) -> Sequence[object]:
        """Choose the next token of each request; return its text, NOTHING while it makes none, Last at the end."""
        generations = [_generation(request) for request in active]
        self._advance([generation for generation in generations if generation.logits is None])
        tokens = self._choose(generations)
        entries = [self._say(generation, token) for generation, token in zip(generations, tokens, strict=True)]
        return [entry if request.streamed else _whole(request, entry) for request, entry in zip(active, entries, strict=True)]

    def finish(self, request: StepRequest) -> None:
        """Forget the request; its row goes when the batch changes next."""
        request.state = None
        self._live -= 1
        if not self._live:
            self._batch, self._rows = None, []

    def _advance(self, generations: list[Generation]) -> None:
        """Have the batch read its newest tokens."""
        if not generations:
            return
        self._regroup(generations)
        newest = torch.tensor([[generation.tokens[-1]] for generation in generations], device=self.device)
        logits, self._batch = self._read(newest, self._batch)
        for generation, row in zip(generations, logits, strict=True):
            generation.logits = row

    def _regroup(self, generations: list[Generation]) -> None:
        """Make these the rows of the batch. Others keep their rows for later, as those of a slow reader do, or have ended."""
        if generations == self._rows:
            return
        for generation, row in zip(self._rows, self._batch.split() if self._batch else (), strict=True):
            generation.own = row
        self._batch = KvBatch.join([generation.own for generation in generations if generation.own])
        self._rows = generations
        for generation in generations:
            generation.own = None

    def _read(self, tokens: torch.Tensor, past: KvBatch | None) -> tuple[torch.Tensor, KvBatch]:
        """Run the model on tokens [rows, n] after those of `past`; return the logits of the next ones and the longer cache."""
        mask = torch.ones_like(tokens) if past is None else torch.cat([past.mask, torch.ones_like(tokens)], dim=1)
        positions = mask.cumsum(dim=1)[:, -tokens.shape[1] :] - 1
        cache = past.cache if past else None
        output: ModelOutput = self.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return output.logits[:, -1], KvBatch(output.past_key_values, mask)

    def _choose(self, generations: Sequence[Generation]) -> list[int]:
        logits = [generation.logits for generation in generations if generation.logits is not None]
        likeliest = torch.stack(logits).argmax(dim=1).tolist()
        chosen = []
        for generation, own, best in zip(generations, logits, likeliest, strict=True):
            chosen.append(generation.sampler.choose(own) if generation.sampler else best)
            generation.logits = None
        return chosen

    def _say(self, generation: Generation, token: int) -> object:
        if token in self._ends:
            return Last(generation.text.rest())
        generation.tokens.append(token)
        piece = generation.text.add(token)
        if generation.text.stopped:
            return Last(piece)
        if len(generation.tokens) == generation.options.max_new_tokens:
            return Last(piece + generation.text.rest())
        return piece or NOTHING


def _whole(request: StepRequest, entry: object) -> object:
    """Keep the pieces for a caller that takes one answer, and return all of them at the end."""
    said = _generation(request).said
    if entry is not NOTHING:
        said.append(str(entry.value if isinstance(entry, Last) else entry))
    return Last("".join(said)) if isinstance(entry, Last) else NOTHING


def _generation(request: StepRequest) -> Generation:
    if not isinstance(request.state, Generation):
        raise TypeError("the request was not started")
    return request.state
