"""The example programs in `clients/python`, run against the real server with the digits example."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "name"), [("raw_stubs", "raw"), ("sync_client", "sync"), ("async_client", "async")])
def test_program_reads_the_digit(start_server, digits_archive, program, name):
    """A program gets the address and a picture → it reads the digit, shows an unknown model's reason, and ends with OK."""
    server = start_server(digits_archive)
    command = [sys.executable, ROOT / "clients" / "python" / f"{program}.py", server.inference, ROOT / "examples/digits/samples/three.png"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stderr, result.returncode) == ("", 0)
    lines = result.stdout.splitlines()
    assert lines[0] == "server: SERVING"
    assert lines[1].startswith("digit 3, ")
    assert lines[2:] == ["no-such-model: NOT_FOUND MODEL_NOT_FOUND", f"python-{name} OK"]
