"""Reads a handwritten digit with servegrpc.client.AsyncClient: python async_client.py ADDRESS [PICTURE]."""

import asyncio
import sys
from pathlib import Path

from servegrpc.client import AsyncClient, CallError

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"


async def main(address: str, picture: str | Path = SAMPLE) -> None:
    async with AsyncClient(address) as client:
        print("server:", (await client.health()).name)

        content = await asyncio.to_thread(Path(picture).read_bytes)
        reply = await client.predict("digits", {"data": content}, timeout=10)
        print(f"digit {reply.output['digit']}, probability {reply.output['probability']}, read by digits {reply.model_version}")

        try:
            await client.predict("no-such-model", b"")
        except CallError as error:
            print("no-such-model:", error.code.name, error.reason)
        else:
            sys.exit("no-such-model answered")
    print("python-async OK")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
