"""Python objects to the protocol's `Value` and back, with the one table of element types.

The client, the command line and the workers all convert here. torch is used only where it is loaded already (a tensor to
send) or asked for (`tensors="torch"`); importing this module never loads it.
"""

from __future__ import annotations

import importlib
import json
import math
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, cast

import numpy as np
from google.protobuf import struct_pb2

from servegrpc.v1 import value_pb2

Tensors = Literal["numpy", "torch"]
JSON_INT_LIMIT = 2**53  # JSON numbers are double precision: beyond it an int goes as a decimal string
MAX_DEPTH = 30  # protobuf parsers stop at 100 nested messages, and a JSON level takes three
MAX_DIMENSIONS = 32
BYTES_LIKE = (bytes, bytearray, memoryview)  # no union, which would be made anew for each test


@dataclass(frozen=True)
class ElementType:
    """One element type of a tensor: its number in `DataType`, its Open Inference name, and its numpy and torch dtypes.

    `dtype` is what the bytes are read as: uint16 for BF16, which numpy lacks, and object for BYTES, whose size varies.
    """

    number: value_pb2.DataType
    name: str
    dtype: np.dtype[np.generic]
    torch_name: str

    @property
    def size(self) -> int:
        """Bytes of one element; for BYTES the least, its length alone."""
        return 4 if self.name == "BYTES" else self.dtype.itemsize


def _element_type(name: str, code: str, torch_name: str) -> ElementType:
    number = cast("value_pb2.DataType", value_pb2.DataType.Value(f"DATA_TYPE_{name}"))
    return ElementType(number, name, np.dtype(code), torch_name)


BYTES = _element_type("BYTES", "O", "")
BF16 = _element_type("BF16", "<u2", "bfloat16")
ELEMENT_TYPES = (
    _element_type("BOOL", "?", "bool"),
    _element_type("UINT8", "<u1", "uint8"),
    _element_type("UINT16", "<u2", "uint16"),
    _element_type("UINT32", "<u4", "uint32"),
    _element_type("UINT64", "<u8", "uint64"),
    _element_type("INT8", "<i1", "int8"),
    _element_type("INT16", "<i2", "int16"),
    _element_type("INT32", "<i4", "int32"),
    _element_type("INT64", "<i8", "int64"),
    _element_type("FP16", "<f2", "float16"),
    _element_type("FP32", "<f4", "float32"),
    _element_type("FP64", "<f8", "float64"),
    BYTES,
    BF16,
)
BY_NUMBER: dict[int, ElementType] = {element.number: element for element in ELEMENT_TYPES}
BY_NAME = {element.name: element for element in ELEMENT_TYPES}
_BY_DTYPE = {(element.dtype.kind, element.dtype.itemsize): element for element in ELEMENT_TYPES if element not in (BYTES, BF16)}


def encode_value(obj: object) -> value_pb2.Value:
    """Return `obj` as a new Value; see `encode_into`."""
    value = value_pb2.Value()
    encode_into(value, obj)
    return value


def encode_into(value: value_pb2.Value, obj: object) -> None:
    """Set an empty `value` to `obj`, in the kind that fits it.

    Bytes become binary, str text, an array, a numpy scalar or a torch tensor (of any device) a tensor, a dict that holds bytes or
    arrays named values, and all else JSON; in JSON, arrays become lists. Copies the data.
    Raises TypeError for an object that cannot be sent, ValueError for one nested too deep or text that is not Unicode.
    """
    _encode(value, obj, 0)


def decode_value(value: value_pb2.Value, *, tensors: Tensors = "numpy", binary: type[bytes] | type[bytearray] = bytes) -> object:
    """Return what `value` holds: binary as `binary`, text as str, JSON and named values as Python objects, tensors as asked for.

    Tensors are those of `decode_tensor`. Raises ValueError that says what is wrong with the value.
    """
    kind = value.WhichOneof("kind")
    if kind == "json":
        return _decode_json(value.json)
    if kind == "tensor":
        return decode_tensor(value.tensor.data_type, value.tensor.shape, value.tensor.data, tensors=tensors)
    if kind == "binary":
        return value.binary if binary is bytes else binary(value.binary)
    if kind == "text":
        return value.text
    if kind == "named":
        return _decode_named(value.named, tensors, binary)
    raise ValueError("no kind is set; give binary, text, json, tensor or named")


def encode_tensor(obj: object) -> tuple[ElementType, tuple[int, ...], bytes]:
    """Return the element type, shape and little-endian row-major bytes of an array, a numpy scalar or a torch tensor.

    Arrays of str or bytes objects become BYTES. Raises TypeError for any other object or element type.
    """
    torch = _loaded_torch()
    if torch is not None and isinstance(obj, torch.Tensor):
        cpu_tensor = obj.detach().cpu()
        if cpu_tensor.dtype == torch.bfloat16:
            return BF16, tuple(cpu_tensor.shape), cpu_tensor.view(torch.int16).numpy().tobytes()
        obj = cpu_tensor.numpy(force=True)
    if not isinstance(obj, np.ndarray | np.generic):
        raise _unsendable(obj)
    array = np.asarray(obj)
    if array.dtype.kind in "OSU":
        return BYTES, array.shape, b"".join(map(_packed, array.ravel().tolist()))
    element = _BY_DTYPE.get((array.dtype.kind, array.dtype.itemsize))
    if element is None:
        raise TypeError(f"cannot send an array of {array.dtype}; convert it to one of {', '.join(BY_NAME)}")
    return element, array.shape, array.astype(element.dtype, copy=False).tobytes()


def decode_tensor(
    data_type: int, shape: Sequence[int], data: bytes | memoryview, *, tensors: Tensors = "numpy", copy: bool = True
) -> object:
    """Return the array of that type (a number of `DataType`), shape and data.

    A numpy array is a read-only view of `data`, BF16 as float32; a torch tensor is a writable copy, or a view of writable `data` without
    `copy`. BYTES are always a numpy array of bytes objects. Raises ValueError for an unknown type, a shape that cannot be, or a size
    that does not match.
    """
    element = BY_NUMBER.get(data_type)
    if element is None:
        raise ValueError(f"data type {data_type} is not known; give one of {', '.join(BY_NAME)}")
    dimensions = tuple(shape)
    check_size(element, dimensions, len(data))
    if element is BYTES:
        return _unpack(data, dimensions)
    if element.name == "BOOL" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise ValueError("BOOL data holds a byte other than 0 and 1")
    if tensors == "torch":
        return _torch_tensor(element, dimensions, bytearray(data) if copy else data)
    array = np.frombuffer(data, element.dtype)
    return ((array.astype("<u4") << 16).view("<f4") if element is BF16 else array).reshape(dimensions)


def plain(obj: object) -> object:
    """Return a numpy scalar, an array or a torch tensor as plain numbers or lists."""
    if isinstance(obj, np.bool_):
        return bool(obj)
    if isinstance(obj, np.integer):
        return int(obj)
    if isinstance(obj, np.floating):
        return float(obj)
    if isinstance(obj, np.ndarray) and obj.dtype.kind not in "cmM":
        return obj.tolist()
    torch = _loaded_torch()
    if torch is not None and isinstance(obj, torch.Tensor):
        return obj.tolist()
    raise _unsendable(obj, " inside JSON" if isinstance(obj, BYTES_LIKE) else "")


def is_array(obj: object) -> bool:
    """Return whether an object is a numpy array or a torch tensor."""
    torch = _loaded_torch()
    return isinstance(obj, np.ndarray) or (torch is not None and isinstance(obj, torch.Tensor))


def check_shape(element: ElementType, shape: Sequence[int]) -> None:
    """Raise ValueError for a shape that no tensor of the type can have."""
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"shape has {len(shape)} dimensions; {MAX_DIMENSIONS} is the most")
    if any(dimension < 0 for dimension in shape):
        raise ValueError(f"shape {list(shape)} has a negative dimension")
    # An empty array may still overflow where strides are computed, so zeros do not count.
    if math.prod(dimension for dimension in shape if dimension) * element.size >= 2**63:
        raise ValueError(f"shape {list(shape)} is too large")


def check_size(element: ElementType, shape: Sequence[int], size: int) -> None:
    """Raise ValueError unless a tensor of the type and shape can have so many bytes."""
    check_shape(element, shape)
    needed = math.prod(shape) * element.size
    if size != needed and (element is not BYTES or size < needed):
        least = "at least " if element is BYTES else ""
        raise ValueError(f"data has {size} bytes, shape {list(shape)} of {element.name} needs {least}{needed}")


def _encode(value: value_pb2.Value, obj: object, depth: int) -> None:
    if isinstance(obj, str):
        value.text = obj
    elif isinstance(obj, BYTES_LIKE):
        value.binary = bytes(obj)
    elif isinstance(obj, dict):
        if any(isinstance(item, BYTES_LIKE) or is_array(item) for item in obj.values()):
            _encode_named(value.named, obj, depth)
        else:
            _encode_json(value.json, obj, depth)
    elif (isinstance(obj, np.generic) and depth == 0) or is_array(obj):  # in a dict, a numpy scalar is a plain number
        element, shape, data = encode_tensor(obj)
        value.tensor.data_type = element.number
        value.tensor.shape.extend(shape)
        value.tensor.data = data
    else:
        _encode_json(value.json, obj, depth)


def _encode_named(named: value_pb2.NamedValues, items: Mapping[object, object], depth: int) -> None:
    _check_depth(depth)
    for key, item in items.items():
        _encode(named.values[_json_key(key)], item, depth + 1)


def _encode_json(target: struct_pb2.Value, obj: object, depth: int) -> None:
    if isinstance(obj, float):
        target.number_value = obj
    elif isinstance(obj, str):
        target.string_value = obj
    elif obj is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(obj, bool):
        target.bool_value = obj
    elif isinstance(obj, int):
        if -JSON_INT_LIMIT <= obj <= JSON_INT_LIMIT:
            target.number_value = obj
        else:
            target.string_value = str(int(obj))
    elif isinstance(obj, dict):
        _check_depth(depth)
        target.struct_value.SetInParent()
        fields = target.struct_value.fields
        for key, item in obj.items():
            _encode_json(fields[key if type(key) is str else _json_key(key)], item, depth + 1)
    elif isinstance(obj, list | tuple):
        _check_depth(depth)
        target.list_value.SetInParent()
        values = target.list_value.values
        for item in obj:
            _encode_json(values.add(), item, depth + 1)
    else:
        _encode_json(target, plain(obj), depth)


def _json_key(key: object) -> str:
    """Return a dict's key as `json.dumps` writes it."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    raise TypeError(f"cannot send a dict with a key of type {type(key).__qualname__}; use str keys")


def _loaded_torch() -> ModuleType | None:
    """Return torch if this process has loaded it; without it nothing can be a torch tensor."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "Tensor") else None  # another thread may be half through importing it


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise ValueError(f"cannot send a value nested deeper than {MAX_DEPTH} levels; make it flatter")


def _unsendable(obj: object, where: str = "") -> TypeError:
    name = f"{type(obj).__module__}.{type(obj).__qualname__}".removeprefix("builtins.")
    allowed = "bytes, str, an array or tensor, a number, bool or None, or lists and dicts of those"
    return TypeError(f"cannot send a value of type {name}{where}; use {allowed}")


def _packed(item: object) -> bytes:
    """Return one element of a BYTES tensor: its length, then itself."""
    if isinstance(item, str):
        item = item.encode()
    if not isinstance(item, bytes | bytearray):
        raise TypeError(f"cannot send an array that holds a {type(item).__qualname__}; only bytes and str objects can be elements")
    return struct.pack("<I", len(item)) + item


def _unpack(data: bytes | memoryview, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.object_]]:
    """Return the elements of a BYTES tensor, whose smallest possible size is checked already."""
    array = np.empty(math.prod(shape), dtype=object)
    start = 0
    for index in range(len(array)):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if start + 4 > len(data) or end > len(data):
            raise ValueError(f"element {index} of the BYTES data ends beyond its {len(data)} bytes")
        array[index] = bytes(data[start + 4 : end])
        start = end
    if start != len(data):
        raise ValueError(f"data has {len(data)} bytes, the {len(array)} elements of shape {list(shape)} of BYTES take {start}")
    return array.reshape(shape)


def _torch_tensor(element: ElementType, shape: tuple[int, ...], data: bytes | bytearray | memoryview) -> object:
    torch = importlib.import_module("torch")  # not an import statement: the client must not depend on torch
    dtype = getattr(torch, element.torch_name)
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(shape)


def _decode_json(value: struct_pb2.Value) -> object:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= JSON_INT_LIMIT else number
    if kind == "string_value":
        return value.string_value
    if kind == "struct_value":
        return {key: _decode_json(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_decode_json(item) for item in value.list_value.values]
    if kind == "bool_value":
        return value.bool_value
    if kind == "null_value":
        return None
    raise ValueError("a JSON value without a kind; give null_value for null")


def _decode_named(named: value_pb2.NamedValues, tensors: Tensors, binary: type[bytes] | type[bytearray]) -> dict[str, object]:
    items: dict[str, object] = {}
    for name, value in named.values.items():
        try:
            items[name] = decode_value(value, tensors=tensors, binary=binary)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
    return items
