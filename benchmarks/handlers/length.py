"""Returns the length of each request: large requests, small replies."""

from __future__ import annotations

import torch


class LengthHandler:
    """A TorchServe handler that makes a tensor of what it got, without a copy, and replies with its size in bytes as text."""

    def initialize(self, _context: object) -> None:
        """Load nothing."""

    def handle(self, data: list[dict], _context: object) -> list[bytes]:
        """Return the length of each row."""
        return [str(torch.frombuffer(row["data"], dtype=torch.uint8).numel()).encode() for row in data]
