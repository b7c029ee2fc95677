"""Streams as `parts` does, each request in a task of its own."""

import asyncio

from deeds import Journal
from parts import part


class Awaits(Journal):
    """One message after the other."""

    async def handle(self, data, context):
        (ask,) = self.taken(data, context)
        for step in range(1, ask["count"] + 1):
            yield [part(ask, step)]
            await asyncio.sleep(ask["milliseconds"] / 1000)
