"""Reads a handwritten digit with servegrpc.client.Client: python sync_client.py ADDRESS [PICTURE]."""

import sys
from pathlib import Path

from servegrpc.client import CallError, Client

SAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "samples" / "seven.png"


def main(address: str, picture: str | Path = SAMPLE) -> None:
    with Client(address) as client:
        print("server:", client.health().name)

        reply = client.predict("digits", {"data": Path(picture).read_bytes()}, timeout=10)
        print(f"digit {reply.output['digit']}, probability {reply.output['probability']}, read by digits {reply.model_version}")

        try:
            client.predict("no-such-model", b"")
        except CallError as error:
            print("no-such-model:", error.code.name, error.reason)
        else:
            sys.exit("no-such-model answered")
    print("python-sync OK")


if __name__ == "__main__":
    main(*sys.argv[1:])
