"""The base of handlers that take text and know the numbers of its words."""

from __future__ import annotations

import json
import pickle
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from servegrpc.handlers.base_handler import BaseHandler
from servegrpc.handlers.contractions import CONTRACTION_MAP
from servegrpc.handlers.text_utils import CLEANUP_REGEX, get_tokenizer

if TYPE_CHECKING:
    from servegrpc.worker.context import Context

CONTRACTIONS_PATTERN = re.compile("|".join(map(re.escape, CONTRACTION_MAP)), re.IGNORECASE)

_EXPANSIONS = {short.lower(): long for short, long in CONTRACTION_MAP.items()}
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_VOCABULARIES = ("source_vocab.pt", "source_vocab.json")


class TextHandler(BaseHandler):
    """Loads the model and its vocabulary, `source_vocab`, and cleans text; subclasses make tensors of it."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: object = None
        self.tokenizer = get_tokenizer("basic_english")
        self.input_text: object = None

    def initialize(self, context: Context) -> None:
        """Load the model, and the vocabulary of the archive: `source_vocab.pt`, `source_vocab.json`, or what the manifest names."""
        super().initialize(context)
        self.initialized = False
        files = cast("Mapping[str, str]", (context.manifest or {}).get("model", {}))
        named = files.get("sourceVocab")
        path = Path(context.system_properties["model_dir"], named) if named else Path(self.get_source_vocab_path(context))
        self.source_vocab = load_vocabulary(path, trusted_pickle=self.model_yaml_config.get("trusted_pickle") is True)
        self.initialized = True

    @cached_property
    def lig(self) -> object:
        """Captum's LayerIntegratedGradients of the model's layer `embedding`, for a `get_insights` of one's own."""
        try:
            from captum.attr import LayerIntegratedGradients
        except ImportError as error:
            raise RuntimeError("These explanations need captum: pip install captum.") from error
        return LayerIntegratedGradients(self.model, self.model.embedding)

    def get_source_vocab_path(self, ctx: Context) -> str:
        """Return where the vocabulary is; RuntimeError when the archive has none."""
        folder = ctx.system_properties["model_dir"]
        for name in _VOCABULARIES:
            if Path(folder, name).is_file():
                return str(Path(folder, name))
        raise RuntimeError(f"The archive has no vocabulary; package {' or '.join(_VOCABULARIES)} with --extra-files.")

    def get_word_token(self, input_tokens: Sequence[str]) -> list[str]:
        """Return the tokens as explanations show them: without the mark of a word's start."""
        return [token.removeprefix("\u0120") for token in input_tokens]

    def summarize_attributions(self, attributions: torch.Tensor) -> torch.Tensor:
        """Return one number per token, of length 1 together, from a tensor [1, tokens, embedding] or [tokens, embedding]."""
        summed = attributions.sum(dim=-1).squeeze(0)
        norm = torch.norm(summed)
        return summed / norm if norm else summed

    def _expand_contractions(self, text: str) -> str:
        def expand(match: re.Match[str]) -> str:
            long = _EXPANSIONS[match.group().lower()]
            return (long[0].upper() if match.group()[0].isupper() else long[0].lower()) + long[1:]

        return CONTRACTIONS_PATTERN.sub(expand, text).replace("'", "")

    def _remove_html_tags(self, text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    def _remove_accented_characters(self, text: str) -> str:
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(_NO_PUNCTUATION)

    def _remove_puncutation(self, text: str) -> str:
        return self._remove_punctuation(text)  # TorchServe's older spelling

    def _tokenize(self, text: str) -> list[str]:
        return self.tokenizer(text)


def load_vocabulary(path: Path, *, trusted_pickle: bool) -> object:
    """Return a vocabulary: `{token: number}`, of JSON or saved with `torch.save`, or with `trusted_pickle` any object that was pickled."""
    if not path.is_file():
        raise RuntimeError(f'The vocabulary "{path.name}" is missing from the archive.')
    if path.suffix == ".json":
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
    else:
        try:
            vocabulary = torch.load(path, map_location="cpu", weights_only=not trusted_pickle)
        except (pickle.UnpicklingError, RuntimeError) as error:
            if trusted_pickle:
                raise
            raise RuntimeError(
                f'"{path.name}" holds more than a dict. Save {{token: number}} with torch.save, or as source_vocab.json, or, if it needs '
                'pickle and you trust its maker, set "trusted_pickle: true" in model-config.yaml.'
            ) from error
    if isinstance(vocabulary, Mapping) or callable(vocabulary) or hasattr(vocabulary, "__getitem__"):
        return vocabulary
    raise ValueError(f'"{path.name}" is no vocabulary but {type(vocabulary).__name__}; it must map tokens to numbers.')
