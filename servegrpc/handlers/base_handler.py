"""The base of every handler: loads the archive's model, and runs preprocess → inference → postprocess on a batch.

Attribute and method names are TorchServe's (`ts/torch_handler/base_handler.py`): handlers override and call them.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

from servegrpc.handlers import compiling, weights
from servegrpc.handlers.labels import load_label_mapping
from servegrpc.handlers.rows import Row, as_tensor, row_input, stack
from servegrpc.handlers.timing import timed

if TYPE_CHECKING:
    from servegrpc.worker.context import Context

log = logging.getLogger(__name__)


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
        if "pt2" in self.model_yaml_config:
            self.model = compiling.compile_model(self.model, self.model_yaml_config["pt2"])
        self.mapping = load_label_mapping(Path(directory, "index_to_name.json"))
        self.initialized = True

    def handle(self, data: list[Row], context: Context) -> list[object]:
        """Return one result for each row of the batch."""
        start = time.monotonic()
        self.context = context
        if self._is_describe():
            output: list[object] = [self.describe_handle()]
        elif os.environ.get("ENABLE_TORCH_PROFILER"):  # TorchServe's switch
            output, _ = self._infer_with_profiler(data)
        else:
            output = self._run(data)
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

    def explain_handle(self, data_preprocess: torch.Tensor, raw_data: Sequence[Row]) -> list[object]:
        """Return explanations of the batch from the handler's `get_insights(tensor, raw input, target class)`."""
        row = raw_data[0]
        target = row.get("target") or 0
        number = int(target) if isinstance(target, int | str | bytes | bytearray) else 0
        insights = self.get_insights(data_preprocess, row_input(row, 0)[1], number)  # type: ignore[attr-defined]  # an explaining handler has it
        return cast("list[object]", insights)

    def get_device(self) -> torch.device:
        """Return the device the model is on."""
        return self.device

    def _run(self, data: list[Row], span: Callable[[str], AbstractContextManager[object]] = nullcontext) -> list[object]:
        """Run the steps, each within a `span` of its name."""
        with span("preprocess"):
            inputs = self.preprocess(data)
        if self._is_explain():
            with span("explain"):
                return self.explain_handle(inputs, data)
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
        return self._has_header("explain")

    def _is_describe(self) -> bool:
        return self._has_header("describe")

    def _has_header(self, name: str) -> bool:
        return self.context is not None and self.context.get_request_header(0, name) == "True"

    def _load_model(self, directory: str, model_file: str | None) -> torch.nn.Module:
        """Load by file kind; the methods it calls are those that handlers written for TorchServe override."""
        suffix = Path(self.model_pt_path).suffix if self.model_pt_path else ""
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
            return cast("torch.nn.Module", weights.load_onnx(path, self.device))  # handlers call its `run`
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


def choose_device(gpu_id: int | None) -> torch.device:
    """Return the worker's GPU, Apple's when there is no CUDA, else the CPU.

    On an Ampere GPU or later, float32 matrix products use TF32, as in TorchServe.
    """
    if gpu_id is not None and torch.cuda.is_available():
        if torch.cuda.get_device_capability(gpu_id) >= (8, 0):
            torch.set_float32_matmul_precision("high")
        return torch.device("cuda", gpu_id)
    if gpu_id is not None and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
