"""What the figures were measured on: the machine and the versions, without names or paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import psutil

from benchmarks.models import python

PACKAGES = {
    "servegrpc": ("servegrpc", "grpcio", "protobuf", "torch"),
    "torchserve": ("torchserve", "torch"),
    "mosec": ("mosec", "torch"),
    "triton": ("nvidia-pytriton", "torch"),
    "mlserver": ("mlserver", "grpcio", "torch"),
    "harness": ("grpcio",),
}
PROGRAM = """
import importlib.metadata as metadata, sys
for name in sys.argv[1:]:
    try: print(name, metadata.version(name))
    except metadata.PackageNotFoundError: pass
"""


def describe() -> dict[str, str]:
    """Return the machine's properties by name."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "CPU": f"{model[1] if model else platform.machine()}, {os.cpu_count()} logical cores, {psutil.cpu_count(logical=False)} physical",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "Java": _first_line(["java", "-version"]),
        "load generator": _first_line(["h2load", "--version"]),
        "load average before": f"{os.getloadavg()[0]:.2f}",
    }


def versions() -> dict[str, str]:
    """Return each environment's versions."""
    found = {}
    for environment, packages in PACKAGES.items():
        if Path(python(environment)).exists():
            done = subprocess.run([python(environment), "-c", PROGRAM, *packages], capture_output=True, text=True, check=False, timeout=60)
            found[environment] = ", ".join(done.stdout.splitlines())
    return found


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return "missing"
    return (done.stdout + done.stderr).splitlines()[0]
