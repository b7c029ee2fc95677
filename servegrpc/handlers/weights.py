"""Weight files to models, one function per format.

Weights are mapped into memory where the format allows it, so that the CPU workers of a model share one copy.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    import onnxruntime


def load_eager(model_file: Path, weights: Path | None, *, trusted_pickle: bool) -> torch.nn.Module:
    """Return the model class defined in `model_file`, made without arguments, with `weights` (a state dict) in it; on the CPU."""
    model = model_class(model_file)()
    if weights is not None:
        loaded = load_state_dict(weights, trusted_pickle=trusted_pickle)
        if isinstance(loaded, torch.nn.Module):
            return loaded  # a whole model, pickled
        set_weights(model, loaded)
    return model


def model_class(model_file: Path) -> type[torch.nn.Module]:
    """Import `model_file` and return the one class it defines."""
    if not model_file.is_file():
        raise RuntimeError(f'The model file "{model_file.name}" is missing from the archive.')
    module = _import_file(model_file)
    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    if len(classes) != 1:
        names = ", ".join(sorted(found.__name__ for found in classes)) or "none"
        raise ValueError(f'The model file "{model_file.name}" must define exactly one class, the model; it defines: {names}.')
    return cast("type[torch.nn.Module]", classes[0])


def load_state_dict(path: Path, *, trusted_pickle: bool) -> Mapping[str, torch.Tensor] | torch.nn.Module:
    """Return the tensors of a `.safetensors` file or of a `torch.save`d state dict, on the CPU.

    Unless `trusted_pickle`, nothing but tensors and plain containers is unpickled: a file that needs more is refused. With it, the file may
    hold a whole model, which is returned.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    mapped = zipfile.is_zipfile(path)  # files in torch's format before 1.6 cannot be mapped
    try:
        tensors = torch.load(path, map_location="cpu", mmap=mapped, weights_only=not trusted_pickle)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if trusted_pickle:
            raise
        raise RuntimeError(
            f'"{path.name}" is not a plain state dict. Save it with torch.save(model.state_dict(), …), or, if it needs pickle and you '
            'trust its maker, set "trusted_pickle: true" in model-config.yaml.'
        ) from error
    return cast("Mapping[str, torch.Tensor] | torch.nn.Module", tensors)


def set_weights(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put `state` into `model`, by reference where every dtype is the model's own; else copied and converted."""
    own = model.state_dict()
    shared = own.keys() & state.keys()
    same_dtypes = all(getattr(own[name], "dtype", None) == getattr(state[name], "dtype", None) for name in shared)
    model.load_state_dict(state, assign=same_dtypes)


def load_torchscript(path: Path, device: torch.device) -> torch.nn.Module:
    """Return a TorchScript model on `device`."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # TorchServe's archives hold TorchScript; that torch retires it is not the caller's fault
        try:
            return cast("torch.nn.Module", torch.jit.load(str(path), map_location=device))  # type: ignore[no-untyped-call]  # torch's
        except RuntimeError as error:
            raise RuntimeError(f'"{path.name}" is not TorchScript. For a state dict, add its model file to the archive.') from error


def load_exported(path: Path, device: torch.device) -> torch.nn.Module:
    """Return what a `.pt2` file holds on `device`: a program saved by `torch.export.save`, or one compiled ahead of time by AOTInductor."""
    if not zipfile.is_zipfile(path):
        raise RuntimeError(f'"{path.name}" is no exported program; save one with torch.export.save, or compile one with AOTInductor.')
    with zipfile.ZipFile(path) as archive:
        compiled = any("/aotinductor/" in name for name in archive.namelist())
    if compiled:
        index = -1 if device.index is None else device.index
        return cast("torch.nn.Module", torch._inductor.aoti_load_package(str(path), device_index=index))  # callable, which is all we need
    program = torch.export.load(path)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


def load_onnx(path: Path, device: torch.device) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session, on the GPU when `device` is one."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(f'"{path.name}" needs ONNX Runtime: pip install onnxruntime.') from error
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # the worker's share of the cores
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def run_onnx(session: onnxruntime.InferenceSession, batch: torch.Tensor) -> torch.Tensor:
    """Return the session's first output for `batch` as its first input; both on the CPU."""
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: batch.numpy(force=True)})[0])


def load_compiled_library(path: Path, device: torch.device) -> torch.nn.Module:
    """Return a library compiled ahead of time with `torch._export.aot_compile`: what `pt2.export.aot_compile` archives hold."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the library runs on the current device
    return cast("torch.nn.Module", torch._export.aot_load(str(path), device.type))


def _import_file(path: Path) -> ModuleType:
    """Import a file under its own name, so that handlers importing it get the same module."""
    loaded = sys.modules.get(path.stem)
    if loaded is not None and loaded.__file__ is not None and Path(loaded.__file__).samefile(path):
        return loaded
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f'The model file "{path.name}" is not a Python file.')
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
