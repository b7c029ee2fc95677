"""Makes the benchmark's environments under `.bench-venv/`: `python -m benchmarks.setup`.

One for the harness and one for each peer, since their requirements conflict; servegrpc runs from the project's own `.venv`. A peer that
cannot be installed leaves its reason in `.bench-venv/PEER.missing`, and the results say so. What is made already is left alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".bench-venv"
TORCH = "torch==2.13.0"
PEERS = {
    "torchserve": ["torchserve==0.12.0", "pyyaml"],
    "mosec": ["mosec==0.9.8"],
    "triton": ["nvidia-pytriton==0.7.0"],
    "mlserver": ["mlserver==1.7.1", "uvloop<0.22"],
}
HARNESS = ["grpcio==1.85.1", "matplotlib", "numpy", "psutil", "rich"]


def main() -> int:
    """Install what is missing, and say what."""
    install_h2load()
    install("harness", HARNESS)
    for peer, packages in PEERS.items():
        reason = FOLDER / f"{peer}.missing"
        reason.unlink(missing_ok=True)
        if peer == "torchserve" and shutil.which("java") is None:
            reason.write_text("it needs Java 17, which is not installed")
            continue
        try:
            install(peer, packages, torch=True)
        except subprocess.CalledProcessError as fault:
            reason.write_text(f"pip could not install {' '.join(packages)}: exit code {fault.returncode}")
            print(f"{peer} is left out: {reason.read_text()}")
    return 0


def install_h2load() -> None:
    """Install the load generator where that needs no password; else say how."""
    if shutil.which("h2load"):
        return
    if os.geteuid() or shutil.which("apt-get") is None:
        sys.exit("h2load is missing; install it with: apt-get install nghttp2-client")
    print("Installing the Debian package nghttp2-client, for h2load.")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "nghttp2-client"], check=True)


def install(name: str, packages: list[str], *, torch: bool = False) -> None:
    """Make one environment; torch goes first, so that no peer chooses its version."""
    environment = FOLDER / name
    done = environment / "installed"
    wanted = "\n".join([*([TORCH] if torch else []), *packages])
    if done.exists() and done.read_text() == wanted:
        return
    print(f"Installing into .bench-venv/{name}: {', '.join(wanted.splitlines())}")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    for group in ([TORCH, "numpy"] if torch else [], packages):
        if group:
            subprocess.run([environment / "bin" / "pip", "install", "--quiet", *group], check=True)
    done.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main())
