"""One server with the digits example, for all programs of a module."""

import pytest
from servers import Servers


@pytest.fixture(scope="module")
def digits_server(digits_archive):
    servers = Servers()
    yield servers("--model-store", digits_archive.parent, digits_archive.name)
    servers.stop()
