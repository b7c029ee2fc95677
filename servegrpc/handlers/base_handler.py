"""The base of every handler: loads the archive's model, and runs preprocess → inference → postprocess on a batch.

Attribute and method names are TorchServe's (`ts/torch_handler/base_handler.py`): handlers override and call them.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.handlers import compiling, weights
from servegrpc.handlers.devices import XLA_AVAILABLE, choose_device
from servegrpc.handlers.labels import load_label_mapping
from servegrpc.handlers.rows import Row, as_tensor, renumbered, row_input, stack
from servegrpc.handlers.timing import timed

if TYPE_CHECKING:
    import onnxruntime

    from servegrpc.worker.context import Context

__all__ = [
    "IPEX_AVAILABLE",
    "ONNX_AVAILABLE",
    "PROFILER_AVAILABLE",
    "PT2_AVAILABLE",
    "PT230_AVAILABLE",
    "XLA_AVAILABLE",
    "BaseHandler",
    "choose_device",
    "setup_ort_session",
]

PROFILER_AVAILABLE = PT2_AVAILABLE = PT230_AVAILABLE = True  # with the oldest torch that runs here
ONNX_AVAILABLE = importlib.util.find_spec("onnxruntime") is not None
IPEX_AVAILABLE = importlib.util.find_spec("intel_extension_for_pytorch") is not None


class BaseHandler:
    """Serves a model on tensors. Subclasses override `preprocess` and `postprocess`, seldom more."""

    def __init__(self) -> None:
        self.model: torch.nn.Module = cast("torch.nn.Module", None)  # set by initialize, as device is
        self.device: torch.device = cast("torch.device", None)
        self.mapping: dict[str, str] | None = None
        self.context: Context | None = None
        self.manifest: Mapping[str, object] | None = None
        self.model_yaml_config: Mapping[str, object] = {}
        self.model_pt_path: str | None = None
        self.map_location: str | None = None
        self.initialized = False
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, object] = {}

    def initialize(self, context: Context) -> None:
        """Load the model that the manifest names, onto the worker's device, and the labels if there are any.

        Raises RuntimeError or ValueError saying what is missing from or wrong with the archive.
        """
        properties = context.system_properties
        self.model_yaml_config = context.model_yaml_config or {}
        self.manifest = context.manifest
        self.device = choose_device(properties["gpu_id"])
        self.map_location = self.device.type
        directory = properties["model_dir"]
        files = cast("Mapping[str, str]", (context.manifest or {}).get("model", {}))
        self.model_pt_path = str(Path(directory, files["serializedFile"])) if files.get("serializedFile") else None
        self.model = self._load_model(directory, files.get("modelFile"))
        pt2 = self.model_yaml_config.get("pt2")
        if pt2 is not None and isinstance(self.model, torch.nn.Module):  # not for ONNX and compiled libraries
            self.model = compiling.compile_model(self.model, pt2)
        self.mapping = load_label_mapping(Path(directory, "index_to_name.json"))
        self.initialized = True

    def handle(self, data: list[Row], context: Context) -> list[object]:
        """Return one result for each row of the batch: a prediction, or what the request's header "describe" or "explain" asks for."""
        start = time.monotonic()
        self.context = context
        described, explained = self._asking("describe", data), self._asking("explain", data)
        output = self._mixed(data, described, explained) if described or explained else self._predict(data)
        context.metrics.add_time("HandlerTime", round((time.monotonic() - start) * 1000, 2), None, "ms")
        return output

    @timed
    def preprocess(self, data: Sequence[Row]) -> torch.Tensor:
        """Return the batch as one tensor on the device: row by row the input "data" or "body", a tensor or a list of numbers."""
        if not data or not isinstance(data[0], Mapping):
            return torch.as_tensor(data, device=self.device)
        inputs = (row_input(row, index) for index, row in enumerate(data))
        return stack([as_tensor(name, value, index) for index, (name, value) in enumerate(inputs)]).to(self.device)

    @timed
    def inference(self, data: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        """Run the model on the batch, without gradients."""
        with torch.inference_mode():
            if not callable(self.model):  # an ONNX Runtime session
                return weights.run_onnx(self.model, data)
            return cast("torch.Tensor", self.model(data.to(self.device), *args, **kwargs))

    @timed
    def postprocess(self, data: torch.Tensor) -> list[object]:
        """Return the model's output as nested lists of numbers, one per row."""
        return cast("list[object]", data.tolist())

    def describe_handle(self) -> object:
        """Return what a "describe" request tells about the model: a dict; nothing by default."""
        return None

    def explain_handle(self, data_preprocess: object, raw_data: Sequence[Row]) -> list[object]:
        """Return the explanation of the one row, from the handler's `get_insights(preprocessed, raw input, target class)`.

        The class is the input "target" of the row, 0 without one.
        """
        insights = getattr(self, "get_insights", None)
        if insights is None:
            raise InvalidInput(f'{type(self).__name__} explains nothing: it has no method get_insights; leave out the header "explain".')
        _, value = row_input(raw_data[0], 0)
        return cast("list[object]", insights(data_preprocess, value, _target(raw_data[0])))

    def get_device(self) -> torch.device:
        """Return the device the model is on."""
        return self.device

    def _mixed(self, data: list[Row], described: Sequence[int], explained: Sequence[int]) -> list[object]:
        """Answer requests that ask for different things; explanations one by one, since each has a target of its own."""
        results: dict[int, object] = {index: self.describe_handle() for index in described}
        for index in sorted({*explained} - results.keys()):
            with renumbered([index]):
                results[index] = self._explain(data[index])
        rest = [index for index in range(len(data)) if index not in results]
        if rest:
            with renumbered(rest):
                results.update(zip(rest, self._predict([data[index] for index in rest]), strict=True))
        return [results[index] for index in range(len(data))]

    def _predict(self, data: list[Row]) -> list[object]:
        if os.environ.get("ENABLE_TORCH_PROFILER"):  # TorchServe's switch
            return self._infer_with_profiler(data)[0]
        return self._run(data)

    def _explain(self, row: Row) -> object:
        explanations = self.explain_handle(self.preprocess([row]), [row])
        if not isinstance(explanations, list) or len(explanations) != 1:
            raise InvalidHandlerResult("get_insights must return a list with one explanation")
        return explanations[0]

    def _run(self, data: list[Row], span: Callable[[str], AbstractContextManager[object]] = nullcontext) -> list[object]:
        """Run the steps, each within a `span` of its name."""
        with span("preprocess"):
            inputs = self.preprocess(data)
        with span("inference"):
            outputs = self.inference(inputs)
        with span("postprocess"):
            return self.postprocess(outputs)

    def _infer_with_profiler(self, data: list[Row]) -> tuple[list[object], profile]:
        """Run the batch under torch.profiler; `profiler_args` replace the defaults, which write a trace for each batch."""
        if not self.profiler_args:
            name = self.context.model_name if self.context else "model"
            folder = Path(tempfile.gettempdir(), "pytorch_profiler", name)
            activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])
            self.profiler_args = {"activities": activities, "record_shapes": True, "on_trace_ready": tensorboard_trace_handler(str(folder))}
        with profile(**self.profiler_args) as profiler:  # type: ignore[arg-type]  # the user's own arguments
            output = self._run(data, record_function)
        return output, profiler

    def _is_explain(self) -> bool:
        return self._asks("explain", 0)

    def _is_describe(self) -> bool:
        return self._asks("describe", 0)

    def _asking(self, what: str, data: Sequence[Row]) -> list[int]:
        """Return the indexes of the rows whose request has the header `what: True`."""
        first = self._is_explain() if what == "explain" else self._is_describe()
        if len(data) != len((self.context and self.context.request_ids) or ()):  # an envelope has made other rows of the requests
            return list(range(len(data))) if first else []
        return [index for index in range(len(data)) if (self._asks(what, index) if index else first)]

    def _asks(self, what: str, index: int) -> bool:
        return self.context is not None and self.context.get_request_header(index, what) == "True"

    def _load_model(self, directory: str, model_file: str | None) -> torch.nn.Module:
        """Load by file kind; the methods it calls are those that handlers written for TorchServe override."""
        suffix = Path(self.model_pt_path).suffix if self.model_pt_path else ""
        if self.model_pt_path and not Path(self.model_pt_path).exists():
            raise RuntimeError(f'The weights "{Path(self.model_pt_path).name}" are missing from the archive.')
        if model_file:
            return self._load_pickled_model(directory, model_file, self.model_pt_path).to(self.device).eval()
        if self.model_pt_path is None:
            raise RuntimeError("The archive has neither weights nor a model file; package it with --serialized-file or --model-file.")
        path = Path(self.model_pt_path)
        if suffix == ".pt":
            return self._load_torchscript_model(self.model_pt_path).eval()
        if suffix == ".pt2":
            return weights.load_exported(path, self.device)
        if suffix == ".onnx":
            return cast("torch.nn.Module", setup_ort_session(self.model_pt_path, self.map_location))  # handlers call its `run`
        if suffix == ".so" and self._use_torch_export_aot_compile():
            return self._load_torch_export_aot_compile(self.model_pt_path)
        raise RuntimeError(
            f'No model could be loaded from "{path.name}": .pt (TorchScript), .pt2 and .onnx load by themselves, .so with '
            '"pt2: {export: {aot_compile: true}}" in model-config.yaml, any state dict or .safetensors with a model file.'
        )

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> torch.nn.Module:
        trusted = self.model_yaml_config.get("trusted_pickle") is True
        return weights.load_eager(Path(model_dir, model_file), Path(model_pt_path) if model_pt_path else None, trusted_pickle=trusted)

    def _load_torchscript_model(self, model_pt_path: str) -> torch.nn.Module:
        return weights.load_torchscript(Path(model_pt_path), self.device)

    def _load_torch_export_aot_compile(self, model_so_path: str) -> torch.nn.Module:
        return weights.load_compiled_library(Path(model_so_path), self.device)

    def _use_torch_export_aot_compile(self) -> bool:
        return compiling.is_compiled_ahead(self.model_yaml_config.get("pt2"))


def setup_ort_session(model_pt_path: str, map_location: str | None) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session for a file, on the GPU when `map_location` is "cuda"."""
    return weights.load_onnx(Path(model_pt_path), torch.device(map_location or "cpu"))


def _target(row: object) -> int:
    value = row.get("target") if isinstance(row, Mapping) else None
    try:
        return int(value or 0)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f'The input "target" is no class number: {str(value)[:40]}.', field="inputs.target", row=0) from error
