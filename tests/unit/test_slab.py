"""The shared-memory area, with both ends in this process."""

import mmap
import os

import pytest

from servegrpc.engine.slab import ALIGNMENT, SMALLEST_BYTES, Slab, SlabError, offsets


@pytest.fixture
def ends():
    """The writer's and the reader's end of one area."""
    writer = Slab.create()
    reader = Slab(os.dup(writer.fd))
    yield writer, reader
    writer.close()
    reader.close()


def test_offsets():
    """Items of any lengths → each begins at the next multiple of 64."""
    assert offsets(0, [1, 64, 65, 0, 5]) == ([0, 64, 128, 256, 256], 320)
    assert offsets(128, []) == ([], 128)


@pytest.mark.parametrize("length", [0, 1, ALIGNMENT, SMALLEST_BYTES - 1, SMALLEST_BYTES, SMALLEST_BYTES + 1, 3_000_000])
def test_round_trip(ends, length):
    """An item of any size is written → the other end reads the same bytes."""
    writer, reader = ends
    item = os.urandom(length)
    end = writer.write(64, [b"before", item])
    assert reader.read(end)[128 : 128 + length] == item


def test_equal_items_lie_together(ends):
    """Items of a multiple of 64 bytes are written → they are one block."""
    writer, reader = ends
    end = writer.write(0, [b"a" * 128, b"b" * 128])
    assert reader.read(end)[:256] == b"a" * 128 + b"b" * 128


def test_memory_views(ends):
    """A view is written → as its bytes."""
    writer, reader = ends
    end = writer.write(0, [memoryview(b"hello")[1:]])
    assert reader.read(end)[:4] == b"ello"


def test_growth(ends):
    """Ever larger items are written → the area grows at least twofold each time, in whole pages."""
    writer, _ = ends
    sizes = []
    for length in (1, SMALLEST_BYTES + 1, 2 * SMALLEST_BYTES + 1, 20 * SMALLEST_BYTES + 1):
        writer.write(0, [bytes(length)])
        sizes.append(os.fstat(writer.fd).st_size)
    assert sizes == [SMALLEST_BYTES, 2 * SMALLEST_BYTES, 4 * SMALLEST_BYTES, 20 * SMALLEST_BYTES + mmap.PAGESIZE]


def test_no_memory_until_written():
    """An area is new → it has no size."""
    slab = Slab.create()
    assert os.fstat(slab.fd).st_size == 0
    assert len(slab.read(0)) == 0
    slab.close()


def test_old_views_stay_valid(ends):
    """The area grew or was closed after a view was taken → the view still reads the same bytes."""
    writer, _ = ends
    reader = Slab(os.dup(writer.fd))
    view = reader.read(writer.write(0, [b"old"]))[:3]
    reader.read(writer.write(64, [bytes(SMALLEST_BYTES)]))
    reader.close()
    assert view == b"old"


def test_read_beyond(ends):
    """The other end names more than there is → SlabError."""
    writer, reader = ends
    writer.write(0, [b"x"])
    with pytest.raises(SlabError, match=rf"ends at {SMALLEST_BYTES + 1} in a slab of {SMALLEST_BYTES} bytes"):
        reader.read(SMALLEST_BYTES + 1)


def test_cannot_shrink(ends):
    """Someone truncates the area → the kernel refuses, so that reading it can never crash."""
    writer, reader = ends
    writer.write(0, [b"x"])
    with pytest.raises(PermissionError):
        os.ftruncate(reader.fd, 0)


def test_smallest_size():
    """An area is made for little → it takes a page."""
    slab = Slab.create(smallest_bytes=1)
    slab.write(0, [b"x"])
    assert os.fstat(slab.fd).st_size == mmap.PAGESIZE
    slab.close()


def test_write_after_close():
    """An area is written to after it was closed → OSError, and no file that has its descriptor by now is touched."""
    slab = Slab.create()
    descriptor = slab.fd
    slab.close()
    other = os.memfd_create("other")
    try:
        assert other == descriptor
        with pytest.raises(OSError, match="Bad file descriptor"):
            slab.write(0, [b"x"])
        assert os.fstat(other).st_size == 0
    finally:
        os.close(other)
