"""Names for classes: reads `index_to_name.json` and puts labels on probabilities, as TorchServe's `ts.utils.util` does."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def load_label_mapping(mapping_file_path: str | Path) -> dict[str, str] | None:
    """Return the label of each class index (as a string), None with a warning when there is no such file.

    The file is `{"0": "cat"}`, `{"0": ["n02123045", "cat"]}` (the last counts) or `{"object_type_names": ["cat", …]}`; else ValueError.
    """
    path = Path(mapping_file_path)
    if not path.is_file():
        log.warning("%s is missing: classes keep their numbers", path.name)
        return None
    mapping = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(mapping, dict):
        raise ValueError(f'{path.name} is not a JSON object; write {{"0": "label of class 0", …}}.')
    names = mapping.get("object_type_names")
    if isinstance(names, list):
        mapping = {str(index): name for index, name in enumerate(names)}
    return {key: _label(path.name, key, value) for key, value in mapping.items()}


def map_class_to_label(
    probs: Sequence[Sequence[float]], mapping: Mapping[str, str] | None = None, lbl_classes: Sequence[Sequence[int]] | None = None
) -> list[dict[str, float]]:
    """Return {label: probability} per row, in the order given.

    `lbl_classes` are the class indexes of `probs`, by default 0, 1, 2, …; a class without a label has its index as the label.
    """
    if lbl_classes is None:
        lbl_classes = [range(len(row)) for row in probs]
    names = mapping or {}
    return [
        {names.get(str(index), str(index)): probability for index, probability in zip(indexes, row, strict=True)}
        for indexes, row in zip(lbl_classes, probs, strict=True)
    ]


def _label(file_name: str, key: str, value: object) -> str:
    label = value[-1] if isinstance(value, list) and value else value
    if not isinstance(label, str):
        raise ValueError(f'{file_name}: the label of "{key}" must be a string or a list that ends in one.')
    return label
