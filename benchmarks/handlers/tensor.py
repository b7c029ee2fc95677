"""Returns the length and the first element of each float32 tensor."""

from __future__ import annotations

import torch


class TensorHandler:
    """A TorchServe handler that takes a tensor, or its bytes where a server has no tensors."""

    def initialize(self, _context: object) -> None:
        """Load nothing."""

    def handle(self, data: list[dict], _context: object) -> list[bytes]:
        """Reply `elements:first` for each row, as text."""
        values = [row["data"] for row in data]
        tensors = [value if isinstance(value, torch.Tensor) else torch.frombuffer(value, dtype=torch.float32) for value in values]
        return [f"{tensor.numel()}:{tensor.flatten()[0]:g}".encode() for tensor in tensors]
