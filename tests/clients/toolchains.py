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
    """Skip the test where a program or file is not there; fail it where SERVEGRPC_REQUIRE_CLIENTS says that all should be."""
    missing = [str(need) for need in needs if not (shutil.which(need) or Path(need).exists())]
    if missing:
        outcome = pytest.fail if os.environ.get("SERVEGRPC_REQUIRE_CLIENTS") else pytest.skip
        outcome(f"no {', '.join(missing)}; `make clients-install` gets it on Debian 12")


def run(*command, **kwargs):
    """Run a command that must succeed and complain of nothing; returns what it printed."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)
    assert (result.stderr, result.returncode) == ("", 0), result.stdout
    return result.stdout


def build(target):
    """Build a language's program as clients/README.md says."""
    run("make", "--no-print-directory", "-C", CLIENTS, target, env={**os.environ, "MAKEFLAGS": ""})
