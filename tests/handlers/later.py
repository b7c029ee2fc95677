"""An asynchronous handler: it streams up to its input "count"; requests run at once."""

import asyncio

from servegrpc.handlers.streaming import Last


class Later:
    """`async def`, one request each."""

    live = 0

    async def handle(self, data, context):
        (ask,) = data
        Later.live += 1
        try:
            if "fail" in ask:
                raise ValueError("as asked")
            if "meet" in ask:
                while Later.live < ask["meet"]:
                    await asyncio.sleep(0)
            for step in range(1, ask.get("count", 1)):
                yield [[step, context.get_request_id(0)]]
                await asyncio.sleep(0)
            if "forever" in ask:
                await asyncio.Event().wait()
            yield [Last([ask.get("count", 1), context.get_request_id(0)])]
        finally:
            Later.live -= 1
