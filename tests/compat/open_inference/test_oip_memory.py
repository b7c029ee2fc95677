"""Tensors in shared memory, by Triton's client."""

import os
from itertools import count

import numpy as np
import pytest
from oip import MEMORY_PREFIX, InferenceServerException, grpcclient, serialize_byte_tensor, shared_memory

SIXTEEN = np.arange(16, dtype=np.int32).reshape(1, 16)
numbers = count(1)


@pytest.fixture
def region(triton):
    """Make and register regions of 128 bytes; each is named after its key. All are gone after the test."""
    handles = []

    def make(key=None):
        key = key or f"{MEMORY_PREFIX}-{next(numbers)}"
        handles.append(shared_memory.create_shared_memory_region(key, key, 128))
        return handles[-1]

    yield make
    triton.unregister_system_shared_memory()
    for handle in handles:
        shared_memory.destroy_shared_memory_region(handle)


def registered(triton, handle, *, offset=0, size=128):
    triton.register_system_shared_memory(handle._triton_shm_name, handle._shm_key, size, offset)
    return handle._triton_shm_name


def in_region(name, *, offset=0, size=64):
    inputs = [grpcclient.InferInput(f"INPUT{index}", [1, 16], "INT32") for index in (0, 1)]
    for index, value in enumerate(inputs):
        value.set_shared_memory(name, size, offset + index * 64)
    return inputs


def test_in_and_out(triton, region):
    """Inputs in one region, an output in another, an output sent → both right; a tensor in memory has no bytes in the reply."""
    source, target = region(), region()
    shared_memory.set_shared_memory_region(source, [SIXTEEN, SIXTEEN])
    wanted = [grpcclient.InferRequestedOutput("OUTPUT0"), grpcclient.InferRequestedOutput("OUTPUT1")]
    wanted[0].set_shared_memory(registered(triton, target), 64)
    result = triton.infer("simple", in_region(registered(triton, source)), outputs=wanted)
    np.testing.assert_array_equal(shared_memory.get_contents_as_numpy(target, np.int32, [1, 16]), 2 * SIXTEEN)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), 0 * SIXTEEN)
    assert result.get_response().raw_output_contents[0] == b""


def test_texts(triton, region):
    """Texts in shared memory → texts."""
    handle = region()
    text = serialize_byte_tensor(np.array([b"abc"], dtype=object))
    shared_memory.set_shared_memory_region(handle, [text])
    value = grpcclient.InferInput("STRINGS", [1], "BYTES")
    value.set_shared_memory(registered(triton, handle), 7)
    assert triton.infer("upper", [value]).as_numpy("UPPER").tolist() == [b"ABC"]


def test_status(triton, region):
    """Registered regions → listed, until they are unregistered."""
    name = registered(triton, region(), offset=64, size=32)
    status = triton.get_system_shared_memory_status(name).regions[name]
    assert (status.key, status.offset, status.byte_size) == (name, 64, 32)
    triton.unregister_system_shared_memory(name)
    assert not triton.get_system_shared_memory_status().regions


def test_twice(triton, region):
    """A region registered twice → ALREADY_EXISTS."""
    handle = region()
    registered(triton, handle)
    with pytest.raises(InferenceServerException, match="already in manager") as raised:
        registered(triton, handle)
    assert raised.value.status() == "StatusCode.ALREADY_EXISTS"


def test_unknown_region(triton):
    """A region that is not registered → INVALID_ARGUMENT in a request, NOT_FOUND as a status, nothing when unregistered."""
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'nope'") as raised:
        triton.infer("simple", in_region("nope"))
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="Unable to find system shared memory region: 'nope'"):
        triton.get_system_shared_memory_status("nope")
    triton.unregister_system_shared_memory("nope")


@pytest.mark.parametrize(("offset", "size"), [(1, 128), (0, 129), (2**63, 8)])
def test_beyond_the_object(triton, region, offset, size):
    """A region larger than its object → refused."""
    with pytest.raises(InferenceServerException, match="ends beyond its object, which has 128 bytes") as raised:
        registered(triton, region(), offset=offset, size=size)
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_huge_and_empty(triton, region):
    """A tensor as large as an object that is huge and empty → refused, and the worker lives."""
    handle = region()
    os.truncate(f"/dev/shm/{handle._shm_key}", 1 << 60)
    with pytest.raises(InferenceServerException, match=f"input 'INPUT0': data has {1 << 60} bytes") as raised:
        triton.infer("simple", in_region(registered(triton, handle, size=1 << 60), size=1 << 60))
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert triton.is_model_ready("simple")


@pytest.mark.parametrize("offset", [64, 65, 1 << 40])
def test_beyond_the_region(triton, region, offset):
    """A tensor that ends beyond its region → refused."""
    with pytest.raises(InferenceServerException, match="has 128 bytes") as raised:
        triton.infer("simple", in_region(registered(triton, region()), offset=offset))
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_output_larger_than_its_place(triton, region):
    """An output that is larger than the place it is to be put in → refused, and nothing is written."""
    source, target = region(), region()
    shared_memory.set_shared_memory_region(source, [SIXTEEN, SIXTEEN])
    wanted = grpcclient.InferRequestedOutput("OUTPUT0")
    wanted.set_shared_memory(registered(triton, target), 63)
    with pytest.raises(InferenceServerException, match="has 63 bytes for a tensor of 64") as raised:
        triton.infer("simple", in_region(registered(triton, source)), outputs=[wanted])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert not shared_memory.get_contents_as_numpy(target, np.int32, [1, 16]).any()


def test_object_shrinks(triton, region):
    """An object made smaller after it was registered → its requests are refused, and the worker lives."""
    handle = region()
    name = registered(triton, handle)
    os.truncate(f"/dev/shm/{handle._shm_key}", 10)
    with pytest.raises(InferenceServerException, match="ends beyond its object, which has 10 bytes"):
        triton.infer("simple", in_region(name))
    assert triton.is_model_ready("simple")


def test_other_prefix(triton, region):
    """An object whose name begins otherwise → refused, whatever is in it."""
    with pytest.raises(InferenceServerException, match=f"keys must begin with '/{MEMORY_PREFIX}'"):
        registered(triton, region(f"other-{MEMORY_PREFIX}"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_of_another_user(triton, region):
    """An object of another user → refused when it is registered, and in requests when it was given away later."""
    handle = region()
    name = registered(triton, handle)
    os.chown(f"/dev/shm/{handle._shm_key}", 12345, -1)
    for use in (lambda: triton.infer("simple", in_region(name)), lambda: triton.register_system_shared_memory("other", handle._shm_key, 8)):
        with pytest.raises(InferenceServerException, match="must be a file of the user that the server runs as") as raised:
            use()
        assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_link(triton):
    """A link to a file elsewhere → refused."""
    path = f"/dev/shm/{MEMORY_PREFIX}-link"
    os.symlink("/etc/hostname", path)
    try:
        with pytest.raises(InferenceServerException, match="cannot be opened"):
            triton.register_system_shared_memory("link", os.path.basename(path), 1)
    finally:
        os.unlink(path)


def test_not_allowed(server):
    """A server that is not told to → status is empty, unregistering is OK, registering is UNIMPLEMENTED and names the setting."""
    with grpcclient.InferenceServerClient(server.inference) as client:
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
        with pytest.raises(InferenceServerException, match="--allow-client-shm") as raised:
            client.register_system_shared_memory("a", "/a", 1)
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"


def test_cuda(triton):
    """GPU memory → status is empty, unregistering is OK, registering is UNIMPLEMENTED with a reason."""
    triton.unregister_cuda_shared_memory()
    assert not triton.get_cuda_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match="GPU memory") as raised:
        triton.register_cuda_shared_memory("a", b"aGk=", 0, 1)
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"
