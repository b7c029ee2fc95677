"""One server with the digits example, for all programs of a module."""

import pytest
from servers import Servers


@pytest.fixture(scope="module")
def digits_server(digits_archive):
    servers = Servers()
    yield servers(digits_archive)
    servers.stop()
