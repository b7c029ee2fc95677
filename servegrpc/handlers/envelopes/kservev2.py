"""The envelope `kservev2`: KServe's second protocol (Open Inference) as JSON in one input, `{"inputs": […]}` to `{"outputs": […]}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.handlers.envelopes.base import JoiningEnvelope, items_of
from servegrpc.handlers.rows import Row

DATATYPES = {
    **{name.lower(): name for name in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


class KServev2Envelope(JoiningEnvelope):
    """Rows are the inputs {"name", "shape", "datatype", "data"}, with "data" in its shape, or the one value of datatype BYTES.

    Each result is the output of its input's name, flat.
    """

    def _items(self, row: Row, index: int) -> Sequence[object]:
        if index == 0:
            self._requests: list[tuple[object, list[object]]] = []
        request, inputs = items_of(row, "inputs", index)
        items = [_input(one, index) for one in inputs]
        self._requests.append((request.get("id"), [item["name"] for item in items]))
        return items

    def _reply(self, results: list[object], index: int) -> object:
        given_id, names = self._requests[index]
        if len(results) > len(names):
            raise InvalidHandlerResult(f"the handler returned {len(results)} results for the {len(names)} inputs of a request")
        model = cast("Mapping[str, object]", (self.context.manifest or {}).get("model", {}))
        return {
            "id": given_id if isinstance(given_id, str) and given_id.strip() else self.context.get_request_id(index),
            "model_name": model.get("modelName", self.context.model_name),
            "model_version": model.get("modelVersion"),
            "outputs": [_output(name, result) for name, result in zip(names, results, strict=False)],
        }


def _input(item: object, index: int) -> dict[str, object]:
    """Return an input with its data in shape; InvalidInput when a part is missing or does not fit."""
    try:
        one = dict(cast("Mapping[str, object]", item))
        _, datatype, data = one["name"], one["datatype"], one["data"]
        if not isinstance(data, list):
            raise TypeError('"data" is no list')
        one["data"] = data[0] if datatype == "BYTES" else np.array(data).reshape(cast("list[int]", one["shape"])).tolist()
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InvalidInput(
            f"An input is not as the protocol has it: {type(error).__name__}: {error}.", field="inputs.inputs", row=index
        ) from error
    return one


def _output(name: object, result: object) -> dict[str, object]:
    values = np.array(result.cpu() if isinstance(result, torch.Tensor) else result).flatten()
    datatype = DATATYPES.get(str(values.dtype), "BYTES")  # text, and objects such as dicts
    return {"name": name, "datatype": datatype, "data": values.tolist(), "shape": list(values.shape)}  # in TorchServe's order
