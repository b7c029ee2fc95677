"""The default handler `text_classifier`: a text to the probability of each class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch

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
        """Return how much each word speaks for class `target`: captum's integrated gradients of the model's layer `embedding`.

        With n-grams the words come first in both lists, then each n-gram.
        """
        try:
            from captum.attr import LayerIntegratedGradients, TokenReferenceBase
        except ImportError as error:
            raise RuntimeError("Explanations need captum: pip install captum.") from error
        numbers, tokens = text_preprocess
        self.lig = self.lig or LayerIntegratedGradients(self.model, self.model.embedding)
        reference = TokenReferenceBase().generate_reference(len(numbers), device=self.device).squeeze(0)
        offsets = torch.zeros(1, dtype=torch.int64, device=self.device)
        attributions = cast("LayerIntegratedGradients", self.lig).attribute(
            numbers, reference, additional_forward_args=(offsets,), return_convergence_delta=False, target=target
        )
        importances = self.summarize_attributions(attributions).tolist()
        return [{"importances": importances, "words": self.get_word_token(list(ngrams_iterator(tokens, self.ngrams)))}]

    def _prepare(self, row: Row, index: int) -> Prepared:
        text = self._remove_html_tags(row_text(row, index)).lower()
        text = self._remove_accented_characters(self._expand_contractions(text))
        tokens = self._tokenize(self._remove_punctuation(text))
        numbers = token_numbers(self.source_vocab, list(ngrams_iterator(tokens, self.ngrams)))
        return torch.as_tensor(numbers, dtype=torch.int64, device=self.device), tokens
