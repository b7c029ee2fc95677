"""Packages the digits example, serves it, and sends it one real picture. `make run` and `make demo` call it."""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from servegrpc.client import Client

HERE = Path(__file__).parent
PICTURE = HERE / "samples" / "seven.png"
COMMAND = [sys.executable, "-m", "servegrpc"]
PARTS = {"model-file": "model.py", "serialized-file": "digits.pt", "handler": "handler.py", "config-file": "model-config.yaml"}


def main() -> None:
    """Run the demonstration; with --keep-serving, until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-serving", action="store_true")
    keep_serving = parser.parse_args().keep_serving
    with tempfile.TemporaryDirectory() as folder, own_process_group():
        print("==> Packaging examples/digits", flush=True)
        flags = [word for flag, name in PARTS.items() for word in (f"--{flag}", str(HERE / name))]
        extra = ["--extra-files", str(HERE / "index_to_name.json"), "--export-path", folder]
        archived = subprocess.run(
            [*COMMAND, "archive", "--model-name", "digits", "--version", "1.0", *flags, *extra], check=False, stdout=subprocess.DEVNULL
        )
        if archived.returncode:
            sys.exit(archived.returncode)
        print("==> Starting the server: importing torch and loading the model takes a few seconds", flush=True)
        started = time.monotonic()
        serve = [*COMMAND, "serve", "--model-store", folder, "digits.mar", *addresses(keep_serving)]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the server as well; we leave when it has drained
            signal.signal(signal.SIGTERM, lambda *_: server.terminate())
            ready = re.match(r"ready inference=(\S+) management=(\S+)", server.stdout.readline())
            try:
                serve_once(ready, started, keep_serving)
            except BaseException:
                server.terminate()
                raise
            if ready and not keep_serving:
                server.terminate()
        sys.exit(server.returncode)


def serve_once(ready: re.Match[str] | None, started: float, keep_serving: bool) -> None:
    """Predict once on a server that is ready."""
    if ready:
        print(f"    ready in {time.monotonic() - started:.1f} s", flush=True)
        predict(*ready.groups())
        if keep_serving:
            print("\nServing until Ctrl-C.", flush=True)


def predict(inference: str, management: str) -> None:
    """Send the picture by the client, and print commands that do the same."""
    picture = os.path.relpath(PICTURE)
    with Client(inference, management_address=management) as client:
        started = time.monotonic()
        prediction = client.predict("digits", {"data": PICTURE.read_bytes()})
        milliseconds = (time.monotonic() - started) * 1000
    print(f"\n{picture} shows: {prediction.output}")
    print(f"    the call took {milliseconds:.1f} ms, of it {prediction.timing.handler_seconds * 1000:.1f} ms in the handler")
    flag = "" if inference == "127.0.0.1:7070" else f" --address {inference}"
    print(f"""
In a second terminal:

  .venv/bin/servegrpc predict digits -i @{picture}{flag}

  grpcurl -plaintext -d '{{"model_name": "digits", "inputs": {{"data": {{"binary": "'$(base64 -w0 {picture})'"}}}}}}' \\
    {inference} servegrpc.v1.InferenceService/Predict

  .venv/bin/python
  >>> from pathlib import Path
  >>> from servegrpc.client import Client
  >>> client = Client("{inference}")
  >>> picture = Path("{picture}").read_bytes()
  >>> client.predict("digits", {{"data": picture}}).output""")


def addresses(keep_serving: bool) -> list[str]:
    """Return the flags for the usual ports when they are free and wanted, else for free ones."""
    usual = (7070, 7071, 8082)
    if keep_serving and all(is_free(port) for port in usual):
        return []
    return [word for port in ("inference", "management", "metrics") for word in (f"--{port}-address", "127.0.0.1:0")]


def is_free(port: int) -> bool:
    """Return whether nobody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class own_process_group:  # noqa: N801 - used as a function
    """In a terminal, be its foreground process group: Ctrl-C then ends the server and us, but does not make `make` fail."""

    def __enter__(self) -> None:
        self.terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
        if self.terminal is not None and os.getpgrp() != os.getpid():
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            self.before = os.getpgrp()
            os.setpgid(0, 0)
            os.tcsetpgrp(self.terminal, os.getpgrp())
        else:
            self.terminal = None

    def __exit__(self, *_: object) -> None:
        if self.terminal is not None:
            os.tcsetpgrp(self.terminal, self.before)


if __name__ == "__main__":
    main()
