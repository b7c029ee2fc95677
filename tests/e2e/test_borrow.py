"""Handlers that borrow their inputs from shared memory, through a real server."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytestmark = pytest.mark.both_lanes

LARGE_BYTES = 100_000
FUNCTION = """
def handle(data, context):
    return None if data is None else [type(row["data"]).__name__ for row in data]
handle.borrow_inputs = True
"""


@pytest.fixture(scope="module")
def borrowing(register):
    return register("borrowing", batch_size=4, workers=2)


@pytest.mark.parametrize(("size", "kind"), [(10, "bytearray"), (LARGE_BYTES, "memoryview")])
def test_binary(size, kind, client, borrowing):
    """Binary of few bytes and of many → the handler gets a bytearray, or a view; what it returns arrives the same."""
    content = bytes(range(256)) * (size // 256 + 1)
    assert client.predict(borrowing, content).output == {"kinds": [kind], "data": content}


def test_tensor(client, borrowing):
    """A large tensor → the handler gets a tensor; what it returns arrives the same."""
    array = np.arange(LARGE_BYTES, dtype=np.float32).reshape(2, -1)
    output = client.predict(borrowing, array).output
    assert output["kinds"] == ["Tensor"]
    assert np.array_equal(output["data"], array)


def test_function(client, register):
    """A function says that it borrows → it gets views."""
    assert client.predict(register("function", code=FUNCTION), b"x" * LARGE_BYTES).output == "memoryview"


def test_does_not_borrow(client, register):
    """A handler does not say that it borrows → it gets a bytearray, however large."""
    model = register("function", code=FUNCTION.replace("True", "False"))
    assert client.predict(model, b"x" * LARGE_BYTES).output == "bytearray"


@pytest.mark.slow
def test_many_at_once(client, borrowing):
    """200 large inputs at once, each of its own bytes → each comes back to its own caller, unchanged."""

    def same(number):
        content = bytes([number]) * (LARGE_BYTES + number)
        return client.predict(borrowing, content).output["data"] == content

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(same, range(200)))
