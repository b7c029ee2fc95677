"""The example programs in `clients/python`, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from echo_server import echo_server

PROGRAMS = Path(__file__).parents[2] / "clients" / "python"


@pytest.mark.slow
@pytest.mark.parametrize(("program", "name"), [("raw_stubs", "raw"), ("sync_client", "sync"), ("async_client", "async")])
def test_the_program_walks_all_steps(program, name):
    """Each program against a server → the same lines, and OK at the end."""
    with echo_server() as server:
        result = subprocess.run([sys.executable, PROGRAMS / f"{program}.py", server.address], capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "server: SERVING",
        "digit 7, probability 0.98, read by digits 1.0",
        "no-such-model: NOT_FOUND MODEL_NOT_FOUND",
        f"python-{name} OK",
    ]
