"""Runs a TorchServe handler file outside TorchServe; every server here but TorchServe and servegrpc calls handlers through it."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

Batch = Callable[[Sequence[bytes]], list[bytes]]


def load(path: str | Path) -> Batch:
    """Return a function that runs the file's handler on one batch of inputs."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (handler_class,) = (item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__)
    handler = handler_class()
    handler.initialize(None)
    return lambda rows: handler.handle([{"data": row} for row in rows], None)
