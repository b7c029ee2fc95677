"""Reads handwritten digits with servegrpc.client.AsyncClient: python async_client.py ADDRESS MANAGEMENT [PICTURE]."""

import asyncio
import sys
from pathlib import Path

import numpy as np

from servegrpc.client import AsyncClient, CallError, Prediction

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"
# A 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour.
BAR = np.tile(np.float32([0, 0, 0, 1, 1, 0, 0, 0]), (1, 8, 1))


def show(step: str, reply: Prediction) -> None:
    print(f"{step}: digit {reply.output['digit']}, {reply.output['name']}, by {reply.model_name} {reply.model_version}")


async def walk(client: AsyncClient, picture: bytes) -> None:
    print("server:", (await client.health()).name)

    listed = await client.models()
    print("models:", ", ".join(model.name for model in listed))

    show("picture", await client.predict("digits", {"data": picture}, timeout=10))

    show("tensor", await client.predict("digits", {"data": BAR}, timeout=10))

    async for part in client.stream("digits", {"data": picture}, timeout=10):
        show("stream", part)

    async with client.session("digits", timeout=10) as session:
        show("session", await session.predict({"data": picture}))
        show("session", await session.predict({"data": BAR}))

    try:
        async for _ in client.watch(timeout=0.2):
            pass  # goes on until its deadline
    except CallError as error:
        print("deadline:", error.code.name)
    else:
        sys.exit("watching ended by itself")

    try:
        await client.predict("no-such-model", {"data": picture})
    except CallError as error:
        print("no-such-model:", error.code.name, error.reason)
    else:
        sys.exit("no-such-model answered")

    archive = next(model for model in listed if model.name == "digits").versions[0].archive
    registered = await client.register(archive, name="digits-python-async")
    print("registered:", registered.name, registered.versions[-1].version)
    await client.unregister("digits-python-async")
    print("unregistered: digits-python-async")


async def main(address: str, management: str, picture: str | Path = SAMPLE) -> None:
    content = await asyncio.to_thread(Path(picture).read_bytes)
    async with AsyncClient(address, management_address=management) as client:
        await walk(client, content)
    print("python-async OK")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python async_client.py ADDRESS MANAGEMENT [PICTURE]")
    asyncio.run(main(*sys.argv[1:]))
