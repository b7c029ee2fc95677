"""Streams words of 100 bytes, as many as each request asks for."""

from __future__ import annotations

from collections.abc import Iterator

from servegrpc.handlers.streaming import Last

WORD = b"w" * 100


class Words:
    """Yields: all callers of a batch at the same pace."""

    def handle(self, data: list[dict], _context: object) -> Iterator[list[object]]:
        """Yield a word for each request at every step."""
        counts = [row["count"] for row in data]
        for step in range(1, max(counts) + 1):
            yield [Last(WORD) if step == count else WORD for count in counts]
