"""From the rows of a batch, one mapping of named inputs per request, to one tensor. What is wrong with a row refuses that row only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from servegrpc.errors import InvalidInput

Row = Mapping[str, object]

INPUT_NAMES = ("data", "body")
"""The inputs a default handler reads, in this order, as TorchServe's do."""


def row_input(row: Row, index: int) -> tuple[str, object]:
    """Return the name and value of a row's input; InvalidInput when it has neither "data" nor "body"."""
    for name in INPUT_NAMES:
        value = row.get(name)
        if value is not None:
            return name, value
    sent = ", ".join(f'"{name}"' for name in sorted(row)) or "none"
    raise InvalidInput(f'The input "data" (or "body") is missing; inputs sent: {sent}.', field="inputs", row=index)


def as_tensor(name: str, value: object, index: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return a tensor, or a list of numbers, as a tensor; one of the right dtype is not copied."""
    if not isinstance(value, torch.Tensor | list | tuple | int | float):
        raise InvalidInput(
            f'The input "{name}" is of type {type(value).__name__}; send a tensor or a list of numbers.', field=f"inputs.{name}", row=index
        )
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f'The input "{name}" does not make a tensor: {error}.', field=f"inputs.{name}", row=index) from error


def stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack one tensor per row into a batch.

    Rows come from different callers: when shapes differ, the first row unlike most others is refused.
    """
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1:
        usual = Counter(shapes).most_common(1)[0][0]
        index = next(index for index, shape in enumerate(shapes) if shape != usual)
        raise InvalidInput(f"The input's shape is {shapes[index]}, but {usual} in the rest of its batch.", field="inputs", row=index)
    return torch.stack(list(tensors))
