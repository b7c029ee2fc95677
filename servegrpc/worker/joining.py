"""Joins requests along the first dimension for handlers whose model declares its tensors as batchable, and splits the results.

The runner asks which requests go together, and calls a `Joined` in place of the handler with each group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.tensors import Declaration, TensorSpec
from servegrpc.values import BYTES
from servegrpc.worker.context import Context
from servegrpc.worker.loader import Entry, borrows_inputs, yields

Row = Mapping[str, object]


def joined(entry: Entry, declared: Declaration, batch_size: int) -> Entry:
    """Return the entry that joins requests; the same entry when the model does not say that they may be, or when it yields."""
    return Joined(entry, declared, batch_size) if declared.batchable and not yields(entry) else entry


class Joined:
    """A handler's entry point, called with a list of one row: each input holds the rows of several requests, `batch_size` at most."""

    def __init__(self, entry: Entry, declared: Declaration, batch_size: int) -> None:
        self.borrow_inputs = borrows_inputs(entry)
        self._entry = entry
        self._declared = declared
        self._batch_size = batch_size

    def groups(self, rows: Mapping[int, object], refused: dict[int, object]) -> list[list[int]]:
        """Return which requests, by index, go together: those of one shape, as many as fit; those not as declared go to `refused`."""
        groups: list[list[int]] = []
        open_groups: dict[object, tuple[list[int], int]] = {}
        for index, row in rows.items():
            try:
                size = self._size(row)  # type: ignore[arg-type]  # each dialect's rows are mappings
            except InvalidInput as error:
                refused[index] = error
                continue
            key = self._shape_key(row)  # type: ignore[arg-type]  # as above
            group, held = open_groups.get(key, ([], 0))
            if not group or held + size > self._batch_size:
                group, held = [], 0
                groups.append(group)
            group.append(index)
            open_groups[key] = group, held + size
        return groups

    def __call__(self, rows: object, context: Context) -> list[object]:
        """Run the requests of one group: return one result for each, with as many rows as its inputs have."""
        group: Sequence[Row] = rows  # type: ignore[assignment]  # the runner gives a list of rows, which `groups` has checked
        sizes = [self._size(row) for row in group]  # before the handler can change its inputs
        returned = self._entry([self._join(group)], context)
        if not isinstance(returned, list) or len(returned) != 1:
            raise InvalidHandlerResult("the handler must return a list with one result: the joined requests are one row")
        return self._split(returned[0], sizes)

    def _size(self, row: Row) -> int:
        """Return how many rows a request has. Raises InvalidInput naming the input that is not as declared."""
        counts = set()
        for name, spec in self._declared.inputs.items():
            value = row.get(name)
            if value is None and spec.optional:
                continue
            if not _is_declared(value, spec):
                what = f"must be a tensor of {spec.element.name} and of the shape {list(spec.shape)}"
                raise InvalidInput(f"input '{name}' {what}", field=f"inputs.{name}")
            counts.add(len(value))  # type: ignore[arg-type]  # a tensor, as was checked
        if len(counts) != 1:
            raise InvalidInput("the inputs differ in their first dimension, which counts rows", field="inputs")
        size = counts.pop()
        if size > self._batch_size:
            raise InvalidInput(f"the request has {size} rows; the model takes at most {self._batch_size}", field="inputs")
        return size

    def _shape_key(self, row: Row) -> object:
        there = [(name, spec) for name, spec in self._declared.inputs.items() if row.get(name) is not None]
        return tuple((name, () if spec.ragged else tuple(row[name].shape[1:])) for name, spec in there)  # type: ignore[attr-defined]  # tensors

    def _join(self, rows: Sequence[Row]) -> dict[str, object]:
        joined_row: dict[str, object] = {}
        for name, spec in self._declared.inputs.items():
            values = [row[name] for row in rows if row.get(name) is not None]
            if not values:
                continue
            if spec.ragged:
                joined_row[name] = values
            elif len(values) == 1:
                joined_row[name] = values[0]
            elif spec.element is BYTES:
                joined_row[name] = np.concatenate(values)  # type: ignore[arg-type]  # arrays, as was checked
            else:
                joined_row[name] = torch.cat(values)  # type: ignore[arg-type]  # tensors, as was checked
        return joined_row

    def _split(self, result: object, sizes: Sequence[int]) -> list[object]:
        names = list(self._declared.outputs)
        if isinstance(result, dict):
            parts = {name: _cut(value, sizes, str(name)) for name, value in result.items()}
        elif len(names) > 1 and isinstance(result, list | tuple) and len(result) == len(names):
            parts = {name: _cut(value, sizes, name) for name, value in zip(names, result, strict=True)}
        else:
            return _cut(result, sizes, "".join(names[:1]))
        return [{name: part[index] for name, part in parts.items()} for index in range(len(sizes))]


def _is_declared(value: object, spec: TensorSpec) -> bool:
    if not isinstance(value, torch.Tensor | np.ndarray) or not spec.admits(value.shape):
        return False
    if spec.element is BYTES:
        return isinstance(value, np.ndarray)
    return isinstance(value, torch.Tensor) and value.dtype == getattr(torch, spec.element.torch_name)


def _cut(value: object, sizes: Sequence[int], name: str) -> list[object]:
    """Return a part of so many rows for each request."""
    rows = len(value) if isinstance(value, list | tuple) or (isinstance(value, torch.Tensor | np.ndarray) and value.ndim) else None
    if rows != sum(sizes):
        told = "no rows" if rows is None else f"{rows} rows"
        raise InvalidHandlerResult(f"the handler's output '{name}' has {told} for inputs of {sum(sizes)}")
    parts, start = [], 0
    for size in sizes:
        parts.append(value[start : start + size])  # type: ignore[index]  # a sequence, as was checked
        start += size
    return parts
