"""The input of a row, and one tensor per row as one batch: without a copy where they lie evenly spaced."""

import gc

import numpy as np
import pytest
import torch

from servegrpc.errors import InvalidInput
from servegrpc.handlers.rows import row_input, row_text, stack


def spaced(count, shape, step, dtype=torch.float32, offset=0):
    """Return tensors in one piece of memory, each `step` bytes after the one before, as in a slab."""
    memory = bytearray(offset + step * count)
    numbers = torch.Size(shape).numel()
    tensors = [torch.frombuffer(memory, dtype=dtype, count=numbers, offset=offset + step * row).reshape(shape) for row in range(count)]
    for row, tensor in enumerate(tensors):
        tensor.copy_(torch.arange(numbers).reshape(shape) + 100 * row)
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])
def test_evenly_spaced(shape, dtype):
    """Tensors evenly spaced → a batch with their values, and no copy."""
    tensors = spaced(4, shape, 128, dtype, offset=64)
    batch = stack(tensors)
    assert batch.data_ptr() == tensors[0].data_ptr()
    assert torch.equal(batch, torch.stack(tensors))


def test_batch_keeps_its_rows_alive():
    """The rows are dropped → the batch still has their values."""
    tensors = spaced(3, (5,), 64)
    expected = torch.stack(tensors)
    batch = stack(tensors)
    del tensors
    gc.collect()
    assert torch.equal(batch, expected)


@pytest.mark.parametrize(
    "tensors",
    [
        [torch.arange(3.0)],
        [torch.arange(3.0), torch.arange(3.0) + 1],
        [tensor.t() for tensor in spaced(3, (2, 3), 64)],
        spaced(4, (5,), 64)[::-1],
        [*spaced(3, (5,), 64), torch.zeros(5)],
        [torch.zeros(0), torch.zeros(0)],
        spaced(3, (2,), 11),
    ],
    ids=["one", "apart", "transposed", "backwards", "odd one", "empty", "uneven step"],
)
def test_otherwise_a_copy(tensors):
    """Tensors that no view can join → a copy, as torch.stack makes it."""
    assert torch.equal(stack(tensors), torch.stack(tensors))


def test_shapes_differ():
    """One row of another shape → that row is refused."""
    with pytest.raises(InvalidInput, match="shape") as caught:
        stack([torch.zeros(2), torch.zeros(2), torch.zeros(3)])
    assert caught.value.row == 2


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_of_bytes_is_the_input(shape):
    """A BYTES tensor with one element, as Triton's clients send a file → its bytes, as text where text is wanted."""
    value = np.full(shape, b"file", dtype=object)
    assert row_input({"data": value}, 0) == ("data", b"file")
    assert row_text({"data": value}, 0) == "file"


def test_other_arrays_are_left_as_they_are():
    """Two elements of bytes, or one number → the array itself."""
    for value in (np.array([b"a", b"b"], dtype=object), np.array([1.0])):
        assert row_input({"body": value}, 0)[1] is value
