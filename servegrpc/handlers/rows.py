"""From the rows of a batch, one mapping of named inputs per request, to one tensor. What is wrong with a row refuses that row only."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch

from servegrpc.errors import InvalidInput

Row = Mapping[str, object]

INPUT_NAMES = ("data", "body")
"""The inputs a default handler reads, in this order, as TorchServe's do."""


def row_input(row: object, index: int) -> tuple[str, object]:
    """Return the name and value of a row's input; InvalidInput when it has neither "data" nor "body".

    A row that is no mapping, as envelopes make them, is its own input. A tensor of type BYTES with one element, as Triton's clients send a
    file or a text, is that element.
    """
    if not isinstance(row, Mapping):
        return "data", row
    for name in INPUT_NAMES:
        value = row.get(name)
        if value is not None:
            return name, value.item() if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1 else value
    sent = ", ".join(f'"{name}"' for name in sorted(map(str, row))) or "none"
    raise InvalidInput(f'The input "data" (or "body") is missing; inputs sent: {sent}.', field="inputs", row=index)


def row_text(row: object, index: int) -> str:
    """Return a row's input as text: str, or UTF-8 bytes; InvalidInput when it is neither."""
    name, value = row_input(row, index)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f'The input "{name}" is not UTF-8 text: {error}.', field=f"inputs.{name}", row=index) from error
    if not isinstance(value, str):
        raise InvalidInput(f'The input "{name}" is of type {type(value).__name__}; send text.', field=f"inputs.{name}", row=index)
    return value


@contextmanager
def renumbered(indexes: Sequence[int]) -> Iterator[None]:
    """Make an InvalidInput raised inside, about row k of a part of the batch, name row `indexes[k]` of the whole."""
    try:
        yield
    except InvalidInput as error:
        row = getattr(error, "row", None)  # a subclass may have left it out
        if isinstance(row, int) and 0 <= row < len(indexes):
            error.row = indexes[row]
        raise


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
    """Return one tensor per row as one batch, a view of them where they lie evenly spaced, as borrowed inputs of one size do; else a copy.

    Rows come from different callers: when shapes differ, the first row unlike most others is refused.
    """
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1:
        usual = Counter(shapes).most_common(1)[0][0]
        index = next(index for index, shape in enumerate(shapes) if shape != usual)
        raise InvalidInput(f"The input's shape is {shapes[index]}, but {usual} in the rest of its batch.", field="inputs", row=index)
    view = _as_one(tensors)
    return torch.stack(list(tensors)) if view is None else view


def _as_one(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Return a view of tensors of one shape as a batch, if they are contiguous and evenly spaced in memory; it keeps them alive."""
    first = tensors[0]
    places = [tensor.data_ptr() for tensor in tensors]
    step = places[1] - places[0] if len(places) > 1 else 0
    alike = all(tensor.is_contiguous() and tensor.dtype == first.dtype and tensor.device.type == "cpu" for tensor in tensors)
    if not alike or step < max(1, first.nbytes) or step % first.itemsize or any(b - a != step for a, b in pairwise(places)):
        return None
    memory = (ctypes.c_byte * (step * (len(tensors) - 1) + first.nbytes)).from_address(places[0])
    memory.owners = tensors  # type: ignore[attr-defined]  # the tensors own it; only their own bytes are ever touched
    return torch.frombuffer(memory, dtype=first.dtype).as_strided((len(tensors), *first.shape), (step // first.itemsize, *first.stride()))
