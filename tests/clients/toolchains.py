"""What the tests of `clients/` share: what is installed, and running its commands."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS, BUILT = ROOT / "clients", ROOT / "build" / "clients"
PICTURE = ROOT / "examples/digits/samples/three.png"


def require(*needs):
    """Skip the test where a program, file or library is not there; fail it where SERVEGRPC_REQUIRE_CLIENTS says that all should be."""
    missing = [str(need) for need in needs if not is_there(need)]
    if missing:
        outcome = pytest.skip if os.environ.get("SERVEGRPC_REQUIRE_CLIENTS", "") in ("", "0") else pytest.fail
        outcome(f"no {', '.join(missing)}; `make clients-install` gets it on Debian 12, or `make clients-test`")


def is_there(need):
    """A program, a file, or, as a tuple, a command that succeeds when a library is installed."""
    if isinstance(need, tuple):
        return shutil.which(need[0]) and subprocess.run(need, capture_output=True, check=False).returncode == 0
    return shutil.which(need) or Path(need).exists()


def run(*command, **kwargs):
    """Run a command that must succeed and complain of nothing; returns what it printed."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)
    assert (result.stderr, result.returncode) == ("", 0), result.stdout
    return result.stdout


def build(target):
    """Build a language's program as clients/README.md says."""
    run("make", "--no-print-directory", "-C", CLIENTS, target, env={**os.environ, "MAKEFLAGS": ""})
