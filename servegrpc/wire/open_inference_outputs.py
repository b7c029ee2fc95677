"""A handler's result as the outputs of a ModelInfer reply."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.tensors import Declaration, TensorSpec
from servegrpc.values import BF16, BYTES, ElementType, decode_tensor, encode_tensor, is_array, plain
from servegrpc.wire.open_inference_inputs import Request, place, regions
from servegrpc.wire.scan import UnusualMessageError, fields

Wanted = infer_pb2.ModelInferRequest.InferRequestedOutputTensor

ONLY_OUTPUT = "output"
"""The name of a result that is no mapping, of a model that declares no outputs."""

PARAMETERS, OUTPUTS = 4, 6  # field numbers


class Output(NamedTuple):
    """One output's type, shape, and bytes as they go into raw_output_contents."""

    element: ElementType
    shape: tuple[int, ...]
    data: bytes


def asked(payload: memoryview) -> Request:
    """Return only what a request says of its outputs, and its parameters; the request was parsed before."""
    try:
        kept = [payload[begin:end] for number, begin, end, _ in fields(payload) if number in (PARAMETERS, OUTPUTS)]
    except (UnusualMessageError, IndexError):
        kept = [payload]
    return Request.FromString(b"".join(kept)) if kept else Request()


def encode_outputs(result: object, request: Request, declared: Declaration, reply: infer_pb2.ModelInferResponse) -> list[bytes]:
    """Add the wanted outputs of a result to a reply; returns its raw contents, which are not added.

    Raises InvalidHandlerResult, or InvalidInput for an output that is not there.
    """
    outputs = _outputs(result, declared)
    wanted: Sequence[Wanted] = request.outputs or [Wanted(name=name) for name in outputs]
    there = regions(request)
    raw: list[bytes] = []
    for want in wanted:
        if want.name not in outputs:
            raise InvalidInput(f"unexpected inference output '{want.name}'; outputs: {', '.join(outputs)}", field=f"outputs.{want.name}")
        output = outputs[want.name]
        if "classification" in want.parameters:
            output = _classes(want, output)
        target = reply.outputs.add(name=want.name, datatype=output.element.name, shape=output.shape)
        shared = place(want.parameters, there)
        if shared:
            region, offset, size = shared
            region.write(offset, size, output.data)
            target.parameters["shared_memory_region"].string_param = region.name
            target.parameters["shared_memory_offset"].int64_param = offset
            target.parameters["shared_memory_byte_size"].int64_param = len(output.data)
        raw.append(b"" if shared else output.data)
    return raw


def check_wanted(request: Request, declared: Declaration) -> None:
    """Raise InvalidInput for an output that a model which declares its outputs has not."""
    for want in request.outputs:
        if declared.outputs and want.name not in declared.outputs:
            names = ", ".join(declared.outputs)
            text = f"unexpected inference output '{want.name}' for model '{request.model_name}'; outputs: {names}"
            raise InvalidInput(text, field=f"outputs.{want.name}")


def _outputs(result: object, declared: Declaration) -> dict[str, Output]:
    if not declared.outputs:
        named = result if isinstance(result, dict) and result else {ONLY_OUTPUT: result}
        return {str(name): _naming(str(name), value, None) for name, value in named.items()}
    if isinstance(result, Mapping):
        found = result
    else:
        values = [result] if len(declared.outputs) == 1 else result
        if not isinstance(values, list | tuple) or len(values) != len(declared.outputs):
            names = ", ".join(declared.outputs)
            raise InvalidHandlerResult(f"the handler's result must be a dict of the declared outputs: {names}")
        found = dict(zip(declared.outputs, values, strict=True))
    missing = [name for name in declared.outputs if name not in found]
    if missing:
        raise InvalidHandlerResult(f"the handler's result lacks the declared output '{missing[0]}'")
    return {name: _naming(name, found[name], spec) for name, spec in declared.outputs.items()}


def _naming(name: str, value: object, spec: TensorSpec | None) -> Output:
    try:
        return _output(value) if spec is None else _declared_output(value, spec)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidHandlerResult(f"the handler's output '{name}' cannot be sent: {error}") from error


def _declared_output(value: object, spec: TensorSpec) -> Output:
    if spec.element is BYTES or is_array(value):
        output = _output(value)
    elif spec.element is BF16:
        raise TypeError("give a torch.bfloat16 tensor")
    else:
        output = Output(*encode_tensor(_cast(value, spec.element)))
    if len(output.shape) <= 1 and output.shape in ((), (1,)) and not spec.admits(output.shape):
        output = output._replace(shape=(1,) * len(spec.shape))
    if output.element is not spec.element:
        raise TypeError(f"it is {output.element.name}, and {spec.element.name} is declared")
    if not spec.admits(output.shape):
        raise ValueError(f"its shape is {list(output.shape)}, and {list(spec.shape)} is declared")
    return output


def _cast(value: object, element: ElementType) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Return numbers as an array of the declared type. Raises ValueError for those that a whole number or bool cannot hold."""
    array = np.asarray(value, dtype=element.dtype)
    if element.dtype.kind in "biu" and not np.array_equal(array, np.asarray(value)):
        raise ValueError(f"{element.name} is declared, and it has other values")
    return array


def _output(value: object) -> Output:
    """Return arrays and tensors as they are, numbers and texts as one element, regular lists of them as arrays, all else as JSON."""
    if is_array(value):
        return Output(*encode_tensor(value))
    if isinstance(value, bytes | bytearray | memoryview | str):
        return _one_text(value if isinstance(value, str) else bytes(value))
    if isinstance(value, bool | int | float | np.generic):
        return Output(*encode_tensor(np.asarray([value])))
    if isinstance(value, list | tuple) and value:
        array = _regular(value)
        if array is not None:
            return Output(*encode_tensor(array))
    return _one_text(json.dumps(value, default=plain))


def _regular(values: Sequence[object]) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
    """Return nested lists of numbers or of texts as an array; None when they are neither, or of different lengths."""
    try:
        array = np.asarray(values)
    except ValueError:
        return None
    if array.dtype.kind in "biuf":
        return array
    texts = np.array(values, dtype=object)  # one of texts would cut off NULs at their end
    return texts if all(isinstance(text, str | bytes) for text in texts.flat) else None


def _one_text(text: str | bytes) -> Output:
    array = np.empty(1, dtype=object)
    array[0] = text
    return Output(*encode_tensor(array))


def _classes(want: Wanted, output: Output) -> Output:
    """Return the largest elements of each row as texts "value:index", largest first."""
    count = want.parameters["classification"].int64_param
    if count < 1 or output.element is BYTES or not output.shape:
        raise InvalidInput(
            f"classification of output '{want.name}' needs a number of at least 1 and numbers to sort", field="classification"
        )
    values = np.asarray(decode_tensor(output.element.number, output.shape, output.data)).reshape(
        math.prod(output.shape[:-1]), output.shape[-1]
    )
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = [f"{values[row, index]:f}:{index}" for row, indexes in enumerate(order) for index in indexes]
    array = np.array(texts, dtype=object).reshape(*output.shape[:-1], order.shape[1])
    return Output(*encode_tensor(array))
