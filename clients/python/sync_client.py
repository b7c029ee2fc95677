"""Reads handwritten digits with servegrpc.client.Client: python sync_client.py ADDRESS MANAGEMENT [PICTURE]."""

import sys
from pathlib import Path

import numpy as np

from servegrpc.client import CallError, Client, Prediction

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"
# A 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour.
BAR = np.tile(np.float32([0, 0, 0, 1, 1, 0, 0, 0]), (1, 8, 1))


def show(step: str, reply: Prediction) -> None:
    print(f"{step}: digit {reply.output['digit']}, {reply.output['name']}, by {reply.model_name} {reply.model_version}")


def walk(client: Client, picture: bytes) -> None:
    print("server:", client.health().name)

    listed = client.models()
    print("models:", ", ".join(model.name for model in listed))

    show("picture", client.predict("digits", {"data": picture}, timeout=10))

    show("tensor", client.predict("digits", {"data": BAR}, timeout=10))

    for part in client.stream("digits", {"data": picture}, timeout=10):
        show("stream", part)

    with client.session("digits", timeout=10) as session:
        show("session", session.predict({"data": picture}))
        show("session", session.predict({"data": BAR}))

    try:
        for _ in client.watch(timeout=0.2):
            pass  # goes on until its deadline
    except CallError as error:
        print("deadline:", error.code.name)
    else:
        sys.exit("watching ended by itself")

    try:
        client.predict("no-such-model", {"data": picture})
    except CallError as error:
        print("no-such-model:", error.code.name, error.reason)
    else:
        sys.exit("no-such-model answered")

    archive = next(model for model in listed if model.name == "digits").versions[0].archive
    registered = client.register(archive, name="digits-python-sync")
    print("registered:", registered.name, registered.versions[-1].version)
    client.unregister("digits-python-sync")
    print("unregistered: digits-python-sync")


def main(address: str, management: str, picture: str | Path = SAMPLE) -> None:
    with Client(address, management_address=management) as client:
        walk(client, Path(picture).read_bytes())
    print("python-sync OK")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python sync_client.py ADDRESS MANAGEMENT [PICTURE]")
    main(*sys.argv[1:])
