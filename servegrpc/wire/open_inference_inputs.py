"""Inputs of a ModelInfer request as tensors: raw, typed, or in shared memory. What is wrong names the tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError

from servegrpc.compat.open_inference import infer_pb2, tensors_pb2
from servegrpc.errors import InvalidInput
from servegrpc.tensors import Declaration
from servegrpc.values import BY_NAME, BYTES, ElementType, check_shape, check_size, decode_tensor
from servegrpc.wire.large import LARGE_BYTES
from servegrpc.wire.scan import UnusualMessageError, fields
from servegrpc.wire.shared_memory import Region

Request = infer_pb2.ModelInferRequest
Input = infer_pb2.ModelInferRequest.InferInputTensor

RAW_INPUT_CONTENTS = 7  # the field's number
MAX_TEXTS_BYTES = 2**31  # of a tensor of BYTES in shared memory, whose shape does not tell its size: as much as a message holds
REGION_PREFIX = "servegrpc_region/"
"""Parameters with which the server, and nobody else, tells the worker where a region of shared memory is: "offset size key"."""

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which field of InferTensorContents has the elements of a datatype; FP16 and BF16 have none."""


def parse(payload: memoryview) -> tuple[Request, Sequence[memoryview | bytes]]:
    """Return the message without its raw contents, and those, as views of `payload`. Raises InvalidInput for no such message."""
    try:
        rest, raw, position = [], [], 0
        for number, begin, end, content in fields(payload):
            if number == RAW_INPUT_CONTENTS:
                if payload[begin] & 7 != 2:
                    raise UnusualMessageError
                raw.append(content)
                rest.append(payload[position:begin])
                position = end
        return Request.FromString(b"".join((*rest, payload[position:]))), raw
    except (UnusualMessageError, IndexError, DecodeError):
        pass
    try:
        request = Request.FromString(bytes(payload))
    except DecodeError:
        raise InvalidInput("the request is not a valid ModelInferRequest message") from None
    return request, request.raw_input_contents


def decode_inputs(
    request: Request, raw: Sequence[memoryview | bytes], declared: Declaration, most_rows: float = math.inf, *, borrow: bool = False
) -> dict[str, object]:
    """Return the inputs by name: torch tensors, or numpy arrays of bytes objects for BYTES.

    Tensors own their memory; with `borrow`, large ones are views of the raw contents. Raises InvalidInput naming the tensor.
    """
    row: dict[str, object] = {}
    pieces = _pieces(request, raw)
    for tensor in request.inputs:
        if not tensor.name:
            raise InvalidInput(f"an input of model '{request.model_name}' has no name", field="inputs.name")
        if tensor.name in row:
            raise wrong(tensor, "is given twice")
        element = _element(tensor)
        if declared.inputs:
            _check_declared(tensor, element, declared, most_rows)
        try:
            data = next(pieces)
            if data is None:
                row[tensor.name] = _typed(request, tensor, element)
            else:
                copy = not (borrow and isinstance(data, memoryview) and not data.readonly and len(data) >= LARGE_BYTES)
                row[tensor.name] = decode_tensor(element.number, tensor.shape, data, tensors="torch", copy=copy)
        except ValueError as error:
            raise wrong(tensor, f": {error}") from None
    missing = [name for name, spec in declared.inputs.items() if name not in row and not spec.optional]
    if missing:
        text = f"expected input '{missing[0]}' of model '{request.model_name}' is missing; inputs sent: {', '.join(row) or 'none'}"
        raise InvalidInput(text, field=f"inputs.{missing[0]}")
    if not row:
        raise InvalidInput(f"the request for model '{request.model_name}' has no inputs", field="inputs")
    return row


def regions(request: Request) -> dict[str, Region]:
    """Return the regions of shared memory that the server knows and the request may name."""
    found = {}
    for key, value in request.parameters.items():
        if key.startswith(REGION_PREFIX):
            name = key.removeprefix(REGION_PREFIX)
            offset, size, object_name = value.string_param.split(" ", 2)
            found[name] = Region(name, object_name, int(offset), int(size))
    return found


def place(parameters: Mapping[str, tensors_pb2.InferParameter], there: Mapping[str, Region]) -> tuple[Region, int, int] | None:
    """Return the region, offset and size that a tensor's parameters name; None when they name none. Raises InvalidInput."""
    if "shared_memory_region" not in parameters:
        return None
    name = parameters["shared_memory_region"].string_param
    if name not in there:
        raise InvalidInput(f"Unable to find shared memory region: '{name}'", field="shared_memory_region")
    if "shared_memory_byte_size" not in parameters:
        raise InvalidInput(f"shared_memory_byte_size is missing beside shared_memory_region '{name}'", field="shared_memory_byte_size")
    offset = parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
    return there[name], offset, parameters["shared_memory_byte_size"].int64_param


def wrong(tensor: Input, what: str) -> InvalidInput:
    """Return the error that says what is wrong with an input."""
    return InvalidInput(f"input '{tensor.name}'{what if what.startswith(':') else ' ' + what}", field=f"inputs.{tensor.name}")


def _pieces(request: Request, raw: Sequence[memoryview | bytes]) -> Iterator[memoryview | bytes | None]:
    """Yield the bytes of each input, None for one with typed contents."""
    there = regions(request)
    inline = [tensor for tensor in request.inputs if "shared_memory_region" not in tensor.parameters]
    if raw and len(raw) != len(inline):
        names = [tensor.name for tensor in inline[len(raw) :] or request.inputs[-1:]]
        text = f"raw_input_contents has {len(raw)} entries for {len(inline)} inputs of model '{request.model_name}'"
        text += f"; see input '{names[0]}'" if names else ""
        raise InvalidInput(text, field="raw_input_contents")
    remaining = iter(raw)
    for tensor in request.inputs:
        shared = place(tensor.parameters, there)
        if tensor.HasField("contents") and (raw or shared):
            other = "shared memory" if shared else "raw_input_contents"
            text = f"contents field must not be specified when using {other} for '{tensor.name}' for model '{request.model_name}'"
            raise InvalidInput(text, field=f"inputs.{tensor.name}.contents")
        if shared:
            region, offset, size = shared
            _check_shared_size(tensor, size)
            yield memoryview(region.read(offset, size))
        else:
            yield next(remaining) if raw else None


def _check_shared_size(tensor: Input, size: int) -> None:
    """Raise ValueError for a size that the tensor cannot have, before so much memory is taken: a region may be huge and empty."""
    element = _element(tensor)
    check_size(element, tensor.shape, size)
    if element is BYTES and size > MAX_TEXTS_BYTES:
        raise ValueError(f"texts in shared memory have at most {MAX_TEXTS_BYTES} bytes, not {size}")


def _element(tensor: Input) -> ElementType:
    element = BY_NAME.get(tensor.datatype)
    if element is None:
        raise wrong(tensor, f"has the datatype '{tensor.datatype}'; give one of {', '.join(BY_NAME)}")
    return element


def _check_declared(tensor: Input, element: ElementType, declared: Declaration, most_rows: float) -> None:
    spec = declared.inputs.get(tensor.name)
    if spec is None:
        raise wrong(tensor, f"is none of the model's: {', '.join(declared.inputs)}")
    if spec.element is not element:
        raise wrong(tensor, f"has the datatype '{element.name}'; the model takes '{spec.element.name}'")
    if not spec.admits(tensor.shape):
        raise wrong(tensor, f"has the shape {list(tensor.shape)}; the model takes {list(spec.shape)}")
    if spec.batchable and tensor.shape[0] > most_rows:
        raise wrong(tensor, f"has {tensor.shape[0]} rows; the model takes at most {most_rows}")


def _typed(request: Request, tensor: Input, element: ElementType) -> object:
    """Return a tensor of typed contents."""
    check_shape(element, tensor.shape)
    count = math.prod(tensor.shape)
    own = CONTENTS.get(element.name, "")
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if not filled and count:
        text = f"unable to find data for input tensor '{tensor.name}' for model '{request.model_name}' in request"
        raise InvalidInput(text, field=f"inputs.{tensor.name}")
    if not own:
        if filled:
            raise ValueError(f"{element.name} has no contents field; send its bytes in raw_input_contents")
        return decode_tensor(element.number, tensor.shape, b"", tensors="torch")
    if filled not in ([], [own]):
        other = next(name for name in filled if name != own)
        text = f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{request.model_name}': "
        raise InvalidInput(f"{text}{element.name} is in {own}, not in {other}", field=f"inputs.{tensor.name}.contents")
    elements = getattr(tensor.contents, own)
    if len(elements) != count:
        raise ValueError(f"{own} has {len(elements)} elements, shape {list(tensor.shape)} needs {count}")
    if element is BYTES:
        array = np.empty(count, dtype=object)
        array[:] = elements
        return array.reshape(tuple(tensor.shape))
    wide = np.array(elements, dtype=f"{element.dtype.kind}8" if element.dtype.kind in "iu" else element.dtype)
    narrow = wide.astype(element.dtype)
    if element.dtype.kind in "iu" and not np.array_equal(narrow, wide):
        raise ValueError(f"{own} has an element that is no {element.name}")
    return decode_tensor(element.number, tensor.shape, narrow.tobytes(), tensors="torch")
