"""The default handler `densenet_handler`: a tensor in, the model's output tensor out."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence

import torch

from servegrpc.errors import InvalidInput
from servegrpc.handlers.base_handler import BaseHandler
from servegrpc.handlers.rows import Row, as_tensor, row_input, stack

_BROKEN = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error)
"""What torch raises on bytes that it did not write."""


class DenseNetHandler(BaseHandler):
    """Answers each tensor, sent as it is or as the bytes of `torch.save`, with the model's output for it."""

    def preprocess(self, data: Sequence[Row]) -> torch.Tensor:
        """Return the rows' tensors, which must have one shape, as one batch on the device."""
        return stack([_tensor(row, index) for index, row in enumerate(data)]).to(self.device)

    def postprocess(self, data: torch.Tensor) -> list[object]:
        """Return one tensor [1, …] for each row."""
        return list(torch.split(data, 1))


def _tensor(row: Row, index: int) -> torch.Tensor:
    name, value = row_input(row, index)
    if not isinstance(value, bytes | bytearray | memoryview):
        return as_tensor(name, value, index)
    try:
        loaded = torch.load(io.BytesIO(value), map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise InvalidInput(f'The bytes in "{name}" are no tensor by torch.save.', field=f"inputs.{name}", row=index) from error
    return as_tensor(name, loaded, index)
