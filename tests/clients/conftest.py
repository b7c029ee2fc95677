"""One server with the digits example, for all programs of a module."""

from pathlib import Path

import pytest
from servers import DIGITS, Servers

SPELLING = Path(__file__).parents[1] / "handlers" / "spelling.py"


@pytest.fixture(scope="module")
def digits_server(write_digits):
    """Its handler yields, so that streams have several messages; other calls get the last one, which is what the example answers."""
    archive = write_digits(SPELLING, DIGITS / "handler.py")
    servers = Servers()
    yield servers("--model-store", archive.parent, archive.name)
    servers.stop()
