"""Returns each request as it came."""

from __future__ import annotations


class NoopHandler:
    """A TorchServe handler that does nothing, so that only the server's own work is measured."""

    def initialize(self, _context: object) -> None:
        """Load nothing."""

    def handle(self, data: list[dict], _context: object) -> list[bytes]:
        """Return the input of each row."""
        return [bytes(row["data"]) for row in data]
