"""Makes .venv and installs servegrpc into it, showing what is happening. Run by make, with nothing but Python's standard library."""

import argparse
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

STEPS = ("Collecting ", "Downloading ", "Building ", "Installing collected packages", "Preparing metadata")


def step(title: str, command: list[str]) -> None:
    """Run a pip command, showing what it does now and for how long; print all it said when it fails."""
    started = time.monotonic()
    said: list[str] = []
    print(f"==> {title}", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    reader = threading.Thread(target=lambda: said.extend(process.stdout))
    reader.start()
    while reader.is_alive():
        reader.join(0.5)
        present = next((line for line in reversed(said) if line.strip().startswith(STEPS)), "").strip()
        if sys.stdout.isatty():
            print(f"\r\033[K    {time.monotonic() - started:3.0f} s  {present[:90]}", end="", flush=True)
    end = "\r\033[K" if sys.stdout.isatty() else ""
    if process.wait():
        print(end + "".join(said))
        sys.exit(f"error: {title} failed; the lines above say why")
    print(f"{end}    done in {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Install into the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if sys.version_info < (3, 11):
        sys.exit(f"error: servegrpc needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.11")
    print(f"==> Making {folder} with Python {sys.version.split()[0]}")
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "pip"), "install", "--disable-pip-version-check", "--progress-bar", "off", "-c", "constraints.txt"]
    pinned = {line.split("==")[0]: line.strip() for line in Path("constraints.txt").read_text().splitlines() if "==" in line}
    step("Installing torch, the largest part", [*pip, pinned["torch"]])
    step("Installing servegrpc and what it needs", [*pip, "-e", ".[dev]"])
    # Only its compiler is used; it would hold protobuf back to the version it was made with.
    step("Installing the protobuf compiler", [*pip, "--no-deps", pinned["grpcio-tools"]])


if __name__ == "__main__":
    main()
