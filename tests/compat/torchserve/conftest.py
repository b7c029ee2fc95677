"""Fixtures of the tests with a client of TorchServe."""

import grpc
import pytest
from torchserve_stubs import TorchServeClient


@pytest.fixture(scope="module")
def torchserve(server):
    client = TorchServeClient(server)
    yield client
    client.close()


@pytest.fixture(scope="module")
def refused():
    """Make a call that must fail; returns its code's name, and the lines of its details."""

    def call(function, *args, **kwargs):
        with pytest.raises(grpc.RpcError) as caught:
            function(*args, **kwargs)
        return caught.value.code().name, *caught.value.details().split("\n")

    return call
