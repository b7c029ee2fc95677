"""The default handler `text_classifier`: a text to the probability of each class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from servegrpc.errors import InvalidInput
from servegrpc.handlers.labels import map_class_to_label
from servegrpc.handlers.rows import Row, row_text
from servegrpc.handlers.text_handler import TextHandler
from servegrpc.handlers.text_utils import ngrams_iterator, token_numbers

Prepared = tuple[torch.Tensor, list[str]]  # the numbers of a text's n-grams, and its tokens


class TextClassifier(TextHandler):
    """Answers each text with {label: probability} of all classes.

    The model is called with the numbers of all n-grams of the batch, one after the other, and the offset of each text, as
    torch.nn.EmbeddingBag takes them.
    """

    ngrams = 2

    def preprocess(self, data: Sequence[Row]) -> Prepared | list[Prepared]:  # type: ignore[override]  # texts of several lengths are no tensor
        """Clean, split and number each text: (numbers, tokens) for one text, as in TorchServe, a list of these for more."""
        prepared = [self._prepare(row, index) for index, row in enumerate(data)]
        return prepared[0] if len(prepared) == 1 else prepared

    def inference(self, data: Prepared | list[Prepared], *args: object, **kwargs: object) -> torch.Tensor:  # type: ignore[override]
        """Return the model's output [texts, classes]."""
        numbers = [one for one, _ in (data if isinstance(data, list) else [data])]
        starts = [0, *accumulate(len(one) for one in numbers)][:-1]
        return super().inference(torch.cat(numbers), torch.as_tensor(starts, device=self.device), *args, **kwargs)

    def postprocess(self, data: torch.Tensor) -> list[object]:
        """Return {label: probability} for each row of the model's output."""
        return list(map_class_to_label(torch.softmax(data, dim=1).tolist(), self.mapping))

    def get_insights(self, text_preprocess: Prepared, _: object, target: int = 0) -> list[object]:
        """Return how much less probable class `target` would be without each word: {"words", "importances"}."""
        _, tokens = text_preprocess
        shortened = [self._numbered(tokens[:index] + tokens[index + 1 :]) for index in range(len(tokens))]
        probabilities = torch.softmax(self.inference([text_preprocess, *shortened]), dim=1)
        if not 0 <= target < probabilities.shape[1]:
            raise InvalidInput(
                f"The model has no class {target} but {probabilities.shape[1]} of them, from 0.", field="inputs.target", row=0
            )
        whole, *without = probabilities[:, target].tolist()
        return [{"words": tokens, "importances": [whole - one for one in without]}]

    def _prepare(self, row: Row, index: int) -> Prepared:
        text = self._remove_html_tags(row_text(row, index)).lower()
        text = self._remove_accented_characters(self._expand_contractions(text))
        return self._numbered(self._tokenize(self._remove_punctuation(text)))

    def _numbered(self, tokens: list[str]) -> Prepared:
        numbers = token_numbers(self.source_vocab, list(ngrams_iterator(tokens, self.ngrams)))
        return torch.as_tensor(numbers, dtype=torch.int64, device=self.device), tokens
