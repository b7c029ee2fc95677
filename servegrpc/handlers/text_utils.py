"""Text to tokens, under the names of `ts.handler_utils.text_utils`, which come from torchtext."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

CLEANUP_REGEX = re.compile(r"<.*?>|&([a-z0-9]+|#\d{1,6}|#x[0-9a-f]{1,6});")
"""HTML tags and entities."""

Tokenizer = Callable[[str], list[str]]

_LINE_BREAK = re.compile(r"<br />")
_SEPARATE = re.compile(r"([.,()!?'])")  # tokens of their own
_DROPPED = str.maketrans({'"': None, ";": " ", ":": " "})


def get_tokenizer(tokenizer: str | Tokenizer | None, language: str = "en") -> Tokenizer:
    """Return a tokenizer: None splits at spaces, "basic_english" also sets punctuation apart in lower case, a callable is itself."""
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer
    if tokenizer != "basic_english" or language != "en":
        raise ValueError(f'There is no tokenizer "{tokenizer}" for language "{language}"; take "basic_english", or give a function.')
    return _basic_english


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """Yield the tokens, then each two neighbours joined by a space, and so on up to `ngrams` of them."""
    for length in range(1, ngrams + 1):
        for start in range(len(token_list) - length + 1):
            yield " ".join(token_list[start : start + length])


def token_numbers(vocabulary: object, tokens: Sequence[str]) -> list[int]:
    """Return the number of each token: of a mapping, where unknown ones are "<unk>", or left out without it; or of torchtext's Vocab."""
    if isinstance(vocabulary, Mapping):
        numbers = (vocabulary.get(token, vocabulary.get("<unk>")) for token in tokens)
        return [number for number in numbers if number is not None]
    if hasattr(vocabulary, "__getitem__"):
        return [vocabulary[token] for token in tokens]
    return list(vocabulary(tokens))  # type: ignore[operator]  # a function of the archive's own


def _basic_english(text: str) -> list[str]:
    text = _LINE_BREAK.sub(" ", text.lower()).translate(_DROPPED)
    return _SEPARATE.sub(r" \1 ", text).split()
