"""Sends one word, and then waits until its caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class Forever:
    """Asynchronous: any number of callers at once."""

    async def handle(self, _data: list[dict], _context: object) -> AsyncIterator[list[object]]:
        """Yield once."""
        yield [b"w" * 100]
        await asyncio.Event().wait()
