"""Tensors in memory that a client shares with the server."""

import os

import numpy as np
import pytest
from oip_requests import FP32, TWO_FLOATS, Request, decode, encode, refused

from servegrpc.engine.channel import Item
from servegrpc.errors import InvalidInput
from servegrpc.wire.codecs import CODECS
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.shared_memory import Region
from servegrpc.worker.answers import Answers


@pytest.fixture
def region():
    """A shared memory object of 64 bytes: its name."""
    name = f"servegrpc-unit-{os.getpid()}"
    with open(f"/dev/shm/{name}", "xb") as file:
        file.write(bytes(range(64)))
    yield name
    os.unlink(f"/dev/shm/{name}")


def shared(size=8, offset=0, name="r"):
    return {
        "shared_memory_region": {"string_param": name},
        "shared_memory_byte_size": {"int64_param": size},
        "shared_memory_offset": {"int64_param": offset},
    }


def in_memory(region, *, size=48, **fields):
    return Request(parameters={"servegrpc_region/r": {"string_param": f"8 {size} /{region}"}}, **fields)


def test_input_in_shared_memory(region):
    """An input in a region, beside a raw one → read from there; raw contents are counted without it."""
    inputs = [{"name": "x", "datatype": "UINT8", "shape": [2], "parameters": shared(2, 4)}, {**FP32, "name": "y"}]
    row = decode(in_memory(region, inputs=inputs, raw_input_contents=[TWO_FLOATS]))
    assert row["x"].tolist() == [12, 13]
    assert row["y"].tolist() == [1.5, -2]


def test_output_in_shared_memory(region):
    """An output into a region → written there, and empty raw contents."""
    reply = encode(
        {"a": np.array([7], "u1"), "b": 1}, in_memory(region, outputs=[{"name": "a", "parameters": shared(4, 2)}, {"name": "b"}])
    )
    assert reply.raw_output_contents[0] == b""
    assert reply.outputs[0].parameters["shared_memory_byte_size"].int64_param == 1
    with open(f"/dev/shm/{region}", "rb") as file:
        assert file.read()[9:12] == b"\x09\x07\x0b"


@pytest.mark.parametrize(("offset", "size"), [(47, 2), (-1, 2), (2**62, 2)])
def test_beyond_the_region(region, offset, size):
    """A tensor that is not within its region → INVALID_ARGUMENT."""
    refused(
        in_memory(region, inputs=[{"name": "x", "datatype": "UINT8", "shape": [2], "parameters": shared(size, offset)}]),
        "'r'",
        "has 48 bytes",
    )


def test_region_beyond_its_object(region):
    """A region that is larger than its object has become → INVALID_ARGUMENT."""
    request = in_memory(region, size=57, inputs=[{"name": "x", "datatype": "UINT8", "shape": [2], "parameters": shared(2)}])
    refused(request, "ends beyond its object, which has 64 bytes")


def test_output_too_large(region):
    """An output larger than its place → INVALID_ARGUMENT, and nothing written."""
    with pytest.raises(InvalidInput):
        encode({"a": np.zeros(5, "u1")}, in_memory(region, outputs=[{"name": "a", "parameters": shared(4)}]))


def test_contents_beside_shared_memory(region):
    """An input in a region that has contents too → INVALID_ARGUMENT."""
    request = in_memory(region, inputs=[{**FP32, "contents": {"fp32_contents": [1, 2]}, "parameters": shared()}])
    refused(request, "contents field must not be specified when using shared memory for 'x'")


@pytest.mark.parametrize("key", ["/", "/..", "/a/b", "/nosuch-servegrpc"])
def test_no_object(key):
    """A key that names no object → INVALID_ARGUMENT."""
    parameters = {"servegrpc_region/r": {"string_param": f"0 8 {key}"}}
    refused(Request(parameters=parameters, inputs=[{**FP32, "parameters": shared()}]), "'r'")


@pytest.mark.parametrize(
    ("fields", "size", "told"),
    [
        ({"datatype": "UINT8", "shape": [2]}, -2, "data has -2 bytes, shape [2] of UINT8 needs 2"),
        ({"datatype": "UINT8", "shape": [2]}, 3, "data has 3 bytes, shape [2] of UINT8 needs 2"),
        ({"datatype": "UINT8", "shape": [2]}, 1 << 60, f"data has {1 << 60} bytes, shape [2] of UINT8 needs 2"),
        ({"datatype": "BYTES", "shape": [1]}, 3, "needs at least 4"),
        ({"datatype": "BYTES", "shape": [1]}, 1 << 60, "at most 2147483648 bytes"),
    ],
)
def test_size_unlike_shape(region, fields, size, told):
    """A size that no tensor of the shape has, in an object that is as large → INVALID_ARGUMENT, and no memory is taken for it."""
    os.truncate(f"/dev/shm/{region}", (1 << 60) + 8)
    refused(in_memory(region, size=1 << 60, inputs=[{"name": "x", **fields, "parameters": shared(size)}]), "input 'x'", told)


@pytest.mark.slow
def test_more_than_one_call_moves(region):
    """More bytes than Linux moves by one call → all are read."""
    size = (1 << 31) + 1
    with open(f"/dev/shm/{region}", "r+b") as file:
        file.truncate(size)
        file.seek(size - 1)
        file.write(b"z")
    assert Region("r", region, 0, size).read(0, size)[-1:] == b"z"


@pytest.mark.slow
@pytest.mark.skipif(os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize < 1 << 32, reason="needs 2 GiB of /dev/shm")
def test_more_than_one_call_writes(region):
    """More bytes than Linux writes by one call → all are written."""
    size = (1 << 31) + 1
    data = bytearray(size)
    data[-1] = 7
    os.truncate(f"/dev/shm/{region}", size)
    Region("r", region, 0, size).write(0, size, data)
    with open(f"/dev/shm/{region}", "rb") as file:
        file.seek(size - 1)
        assert file.read() == b"\x07"


def test_more_than_there_is(region):
    """A tensor that no memory is enough for → INVALID_ARGUMENT for that request."""
    os.truncate(f"/dev/shm/{region}", (1 << 60) + 8)
    tensor = {"name": "x", "datatype": "UINT8", "shape": [1 << 60], "parameters": shared(1 << 60)}
    payload = in_memory(region, size=1 << 60, inputs=[tensor]).SerializeToString()
    item = Item(Dialect.OPEN_INFERENCE, "r", (), 0, memoryview(payload))
    with pytest.raises(InvalidInput, match="more memory than the worker can get"):
        Answers(CODECS, "m", "1", 1, expose_errors=False).decode(item)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_of_another_user(region):
    """An object of another user → refused when it is registered, and in a request if it was given away later."""
    os.chown(f"/dev/shm/{region}", 12345, -1)
    with pytest.raises(InvalidInput, match="must be a file of the user that the server runs as"):
        Region("r", region, 0, 8).check()
    refused(in_memory(region, inputs=[{**FP32, "parameters": shared()}]), "must be a file of the user that the server runs as")


def test_no_file(region):
    """A FIFO in place of the object → refused, and nobody waits for it."""
    os.unlink(f"/dev/shm/{region}")
    os.mkfifo(f"/dev/shm/{region}")
    with pytest.raises(InvalidInput, match="must be a file of the user"):
        Region("r", region, 0, 0).check()
