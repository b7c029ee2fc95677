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
JOINED = """
from servegrpc.handlers.rows import stack

class Joined:
    borrow_inputs = True

    def handle(self, data, context):
        rows = [row["data"] for row in data]
        batch = stack(rows)
        copied = batch.data_ptr() != rows[0].data_ptr()
        return [{"rows": len(batch), "copied": copied, "mean": row.mean().item()} for row in batch]
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


def test_batch_of_equal_tensors(client, register):
    """Four large tensors of one shape make a batch → the handler joins them without a copy, and each caller's values are its own."""
    model = register("joined", code=JOINED, config="batchSize: 4\nmaxBatchDelay: 10000\n")
    arrays = [np.full((2, LARGE_BYTES), number, np.float32) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        outputs = list(threads.map(lambda array: client.predict(model, array).output, arrays))
    assert outputs == [{"rows": 4, "copied": False, "mean": number} for number in range(4)]


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
