"""Requests and replies in the protocol's JSON: what handlers behind TorchServe's `kservev2` envelope take and return."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from servegrpc.compat.open_inference import infer_pb2
from servegrpc.errors import InvalidHandlerResult
from servegrpc.values import BF16, BY_NAME, encode_tensor, plain


def to_json(request: infer_pb2.ModelInferRequest, row: Mapping[str, object]) -> dict[str, object]:
    """Return a request with its decoded inputs. BYTES are texts when they are UTF-8, else bytes objects."""
    inputs = [_input(name, value) for name, value in row.items()]
    return {"id": request.id, "model_name": request.model_name, "inputs": inputs}


def _input(name: str, value: object) -> dict[str, object]:
    element, shape, _ = encode_tensor(value)
    flat = value.reshape(-1)  # type: ignore[attr-defined]  # a torch tensor or a numpy array
    return {"name": name, "shape": list(shape), "datatype": element.name, "data": [_text(item) for item in _items(flat)]}


def _items(flat: object) -> list[object]:
    items: list[object] = plain(flat)  # type: ignore[assignment]  # it is no scalar
    return items


def _text(item: object) -> object:
    if not isinstance(item, bytes):
        return item
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item


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
