"""`ts.utils.util` and `ts.utils.timeit_decorator`: what handlers take from them besides labels, which are in `handlers.labels`."""

from __future__ import annotations

import functools
import inspect
import logging
import time
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

import yaml

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)


class PredictionException(Exception):
    """A handler refuses its batch with a message and an HTTP code for the callers."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


class PT2Backend(str, Enum):  # noqa: UP042 - as handlers know it: str() gives the member, not the value
    """The backends of torch.compile that TorchServe knew; `handlers.compiling` takes whatever torch has."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def check_valid_pt2_backend(backend: str) -> bool:
    """Tell whether TorchServe knew the backend; warns when it did not."""
    known = backend in {member.value for member in PT2Backend}
    if not known:
        log.warning('"%s" is none of the torch.compile backends that TorchServe knew', backend)
    return known


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that a module defines itself, by name; with `parent_class`, only it and its subclasses."""
    own = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__]
    return [item for item in own if parent_class is None or issubclass(item, parent_class)]


def get_yaml_config(yaml_file_path: str | Path) -> object:
    """Return what a YAML file holds."""
    return yaml.safe_load(Path(yaml_file_path).read_text(encoding="utf-8"))


def deprecated(
    version: str, replacement: str = "", klass: type[Warning] = PendingDeprecationWarning
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function to warn its callers that it goes in `version`, in favour of `replacement`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            warnings.warn(f"{function.__name__} is deprecated since {version}; use {replacement}", klass, stacklevel=2)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def timeit(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to log how long each call took."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        start, start_cpu = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        log.info("%s took %.4f s, %.4f s of CPU time", function.__name__, time.perf_counter() - start, time.process_time() - start_cpu)
        return result

    return wrapper
