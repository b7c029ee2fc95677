"""Requests and replies in the protocol's JSON: what handlers behind TorchServe's `kservev2` envelope take and return."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.errors import InvalidHandlerResult
from servegrpc.values import BF16, BY_NAME, encode_tensor, plain


def to_json(request: infer_pb2.ModelInferRequest, row: Mapping[str, object]) -> dict[str, object]:
    """Return a request with its decoded inputs; elements of BYTES are base64, as TorchServe gave them to handlers."""
    inputs = [_input(name, value) for name, value in row.items()]
    return {"id": request.id, "model_name": request.model_name, "inputs": inputs}


def _input(name: str, value: object) -> dict[str, object]:
    element, shape, _ = encode_tensor(value)
    flat: list[object] = plain(value.reshape(-1))  # type: ignore[attr-defined,assignment]  # a torch tensor or a numpy array
    data = [base64.b64encode(item).decode() if isinstance(item, bytes) else item for item in flat]
    return {"name": name, "shape": list(shape), "datatype": element.name, "data": data}


def from_json(result: object) -> object:
    """Return the outputs of a reply in JSON by name; any other result as it is. Raises InvalidHandlerResult."""
    outputs = result.get("outputs") if isinstance(result, dict) else None
    if not isinstance(outputs, list) or not outputs or not all(map(_is_output, outputs)):
        return result
    return {str(output["name"]): _output(output) for output in outputs}


def _is_output(output: object) -> bool:
    return isinstance(output, dict) and output.keys() >= {"name", "datatype", "shape", "data"}


def _output(output: Mapping[str, object]) -> object:
    element = BY_NAME.get(str(output["datatype"]))
    shape, data = output["shape"], output["data"]
    if element is None or element is BF16 or not isinstance(shape, list | tuple) or not isinstance(data, list | tuple):
        raise InvalidHandlerResult(f"the handler's output '{output['name']}' has no datatype, shape and data that make a tensor")
    try:
        return np.asarray(data, dtype=element.dtype).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidHandlerResult(f"the handler's output '{output['name']}' cannot be sent: {error}") from error
