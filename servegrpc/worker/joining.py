"""Joins requests along the first dimension for handlers whose model declares its tensors as batchable, and splits the results.

The runner calls a `Joined` in place of the handler. Whose request it was is kept: what is wrong with one refuses that one only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import isgeneratorfunction

import numpy as np
import torch

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.tensors import Declaration, TensorSpec
from servegrpc.values import BYTES
from servegrpc.worker.context import Context
from servegrpc.worker.loader import Entry, borrows_inputs

Row = Mapping[str, object]


def joined(entry: Entry, declared: Declaration, batch_size: int) -> Entry:
    """Return the entry that joins requests; the same entry when the model does not say that they may be, or when it yields."""
    return Joined(entry, declared, batch_size) if declared.batchable and not isgeneratorfunction(entry) else entry


class Joined:
    """A handler's entry point, called with a list of one row: each input holds the rows of several requests, `batch_size` at most."""

    def __init__(self, entry: Entry, declared: Declaration, batch_size: int) -> None:
        self.borrow_inputs = borrows_inputs(entry)
        self._entry = entry
        self._declared = declared
        self._batch_size = batch_size

    def __call__(self, rows: object, context: Context) -> list[object]:
        """Return one result per request, each with as many rows as its inputs have, or the error that it alone ends with."""
        checked: Sequence[Row] = rows  # type: ignore[assignment]  # the runner gives a list of rows; each is checked next
        results: list[object] = [None] * len(checked)
        sizes: dict[int, int] = {}
        for index, row in enumerate(checked):
            try:
                sizes[index] = self._size(row)
            except InvalidInput as error:
                results[index] = error
        groups = self._groups(checked, sizes)
        for group in groups:
            try:
                for index, result in self._run(checked, sizes, group, context):
                    results[index] = result
            except Exception as error:
                if len(groups) == 1:
                    raise
                for index in group:  # the others have their results
                    results[index] = error
        return results

    def _run(self, rows: Sequence[Row], sizes: Mapping[int, int], group: Sequence[int], context: Context) -> Iterator[tuple[int, object]]:
        try:
            returned = self._entry([self._join([rows[index] for index in group])], context)
        except InvalidInput as error:
            if len(group) == 1:
                yield group[0], error
                return
            for index in group:  # one by one, which tells whose it was
                yield from self._run(rows, sizes, [index], context)
            return
        if not isinstance(returned, list) or len(returned) != 1:
            raise InvalidHandlerResult("the handler must return a list with one result: the joined requests are one row")
        yield from zip(group, self._split(returned[0], [sizes[index] for index in group]), strict=True)

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

    def _groups(self, rows: Sequence[Row], sizes: Mapping[int, int]) -> list[list[int]]:
        """Return which requests go together: those of one shape, as many as fit."""
        groups: list[list[int]] = []
        open_groups: dict[object, tuple[list[int], int]] = {}
        for index, size in sizes.items():
            key = self._shape_key(rows[index])
            group, held = open_groups.get(key, ([], 0))
            if not group or held + size > self._batch_size:
                group, held = [], 0
                groups.append(group)
            group.append(index)
            open_groups[key] = group, held + size
        return groups

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
