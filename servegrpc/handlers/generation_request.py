"""What a caller of a GenerationHandler may ask for, and the text that goes back: nothing here knows a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from servegrpc.errors import InvalidInput
from servegrpc.handlers.rows import row_input, row_text

UNFINISHED = "\ufffd"  # what tokenizers make of a character whose last bytes are still to come

Decode = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to continue a prompt."""

    prompt: str
    max_new_tokens: int = 64
    temperature: float = 0.0  # 0: always the likeliest token
    top_k: int = 0  # choose among that many of the likeliest; 0: among all
    seed: int | None = None  # None: other text each time
    stop: tuple[str, ...] = ()  # the text ends before any of these


def read_options(row: object, max_new_tokens: int) -> GenerationOptions:
    """Read a request: named inputs with "prompt"; else the input "data" or "body", a prompt or a JSON object with "prompt".

    `max_new_tokens` is for requests that do not say. Raises InvalidInput that names the field.
    """
    fields = _fields(row)
    unknown = sorted(str(name) for name in fields if name not in GenerationOptions.__slots__)
    if unknown:
        names = ", ".join(GenerationOptions.__slots__)
        raise InvalidInput(f'There is no field "{unknown[0]}"; fields: {names}.', field=f"inputs.{unknown[0]}")
    stop = fields.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise _wrong("stop", "a text or a list of texts, none empty")
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise _wrong("prompt", "a text that is not empty")
    seed = fields.get("seed")
    return GenerationOptions(
        prompt,
        max_new_tokens=_whole(fields, "max_new_tokens", max_new_tokens, least=1),
        temperature=_temperature(fields.get("temperature", 0.0)),
        top_k=_whole(fields, "top_k", 0, least=0),
        seed=None if seed is None else _whole(fields, "seed", 0, least=0),
        stop=tuple(stops),
    )


def _fields(row: object) -> Mapping[str, object]:
    if isinstance(row, Mapping) and "prompt" in row:
        return {
            name: row_text({"data": value}, 0) if isinstance(value, bytes | bytearray | memoryview) else value
            for name, value in row.items()
        }
    name, value = row_input(row, 0)
    if isinstance(value, Mapping):
        return value
    text = row_text({name: value}, 0)
    if text.lstrip().startswith("{"):
        try:
            fields = json.loads(text)
        except ValueError:
            return {"prompt": text}
        if "prompt" in fields:
            return dict(fields)
    return {"prompt": text}


def _whole(fields: Mapping[str, object], name: str, default: int, *, least: int) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        raise _wrong(name, f"a whole number from {least} on")
    return value


def _temperature(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise _wrong("temperature", "a number from 0 to 100")
    return float(value)


def _wrong(name: str, wanted: str) -> InvalidInput:
    return InvalidInput(f'The field "{name}" must be {wanted}.', field=f"inputs.{name}")


class Sampler:
    """Chooses the next token of one request, the same ones for the same seed."""

    def __init__(self, options: GenerationOptions, device: torch.device) -> None:
        self._options = options
        self._generator = torch.Generator(device)
        if options.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(options.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """Return a token by its logits, [vocabulary]."""
        logits = logits.float() / self._options.temperature
        if 0 < self._options.top_k < len(logits):
            logits, tokens = logits.topk(self._options.top_k)
        else:
            tokens = torch.arange(len(logits), device=logits.device)
        place = torch.multinomial(torch.softmax(logits, dim=0), 1, generator=self._generator)
        return int(tokens[place])


class TextStream:
    """Makes text of tokens as they come: whole characters only, and nothing of a stop text."""

    def __init__(self, decode: Decode, stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []  # what the next text is decoded with
        self._told = 0  # of these, how many are in `_pending` or sent: they are there for the blank before the next word
        self._pending = ""  # may be the beginning of a stop text
        self.stopped = False

    def add(self, token: int) -> str:
        """Take one token; return the text that is certain now, often none."""
        self._tokens.append(token)
        before, text = self._decode(self._tokens[: self._told]), self._decode(self._tokens)
        if text.endswith(UNFINISHED):
            return ""
        self._tokens, self._told = self._tokens[self._told :], len(self._tokens) - self._told
        return self._certain(self._pending + text[len(before) :])

    def rest(self) -> str:
        """Return what was held back, once there are no more tokens."""
        if self.stopped:
            return ""
        before, text = self._decode(self._tokens[: self._told]), self._decode(self._tokens)
        certain = self._certain(self._pending + text[len(before) :])
        return certain + self._pending

    def _certain(self, text: str) -> str:
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._pending = True, ""
            return text[: min(ends)]
        held = max((size for stop in self._stop for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
        self._pending = text[len(text) - held :]
        return text[: len(text) - held]
