"""Finds and initializes the handler of a model, by TorchServe's rules (`ts/model_loader.py`).

`module[:function]`: a module-level function of that name (default `handle`) wins; else the module's only class, whose `initialize`
is called and whose `handle` is the entry point. A name without a file in the archive is one of our default handlers.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from servegrpc.worker.context import Context

Entry = Callable[[object, Context], object]


LONGEST_CAUSE = 2000  # characters


class LoadError(Exception):
    """The handler cannot be loaded; the message is for people."""


def load_handler(folder: Path, handler: str, context: Context) -> Entry:
    """Return the initialized entry point. Raises LoadError, or whatever the handler's own code raises."""
    name, _, function = handler.partition(":")
    module = _import(folder, name.removesuffix(".py").rpartition("/")[2])
    entry = getattr(module, function or "handle", None)
    if entry is not None and not inspect.isclass(entry):
        entry(None, context)  # a function initializes itself when it is called without data
        return entry  # type: ignore[no-any-return]  # what a user's module holds
    classes = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__]
    if len(classes) != 1:
        there = ", ".join(item.__name__ for item in classes) or "none"
        raise LoadError(f'{module.__name__}.py needs a function "{function or "handle"}" or exactly one class; classes there: {there}.')
    service: Any = classes[0]()  # a user's object
    if not callable(getattr(service, "handle", None)):
        raise LoadError(f"class {classes[0].__name__} in {module.__name__}.py has no method handle(data, context).")
    if callable(getattr(service, "initialize", None)):
        service.initialize(context)
    return service.handle  # type: ignore[no-any-return]  # a user's method


def borrows_inputs(entry: Entry) -> bool:
    """Return whether a handler says that it lets go of its inputs when it returns: `borrow_inputs = True` on its class or function."""
    return getattr(getattr(entry, "__self__", entry), "borrow_inputs", False) is True


def _import(folder: Path, name: str) -> ModuleType:
    file = folder / f"{name}.py"
    if file.is_file():
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise LoadError(f"{name}.py cannot be imported.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # the archive's own file wins over any module of that name
        spec.loader.exec_module(module)
        return module
    default = f"servegrpc.handlers.{name}"
    if importlib.util.find_spec(default) is None:
        raise LoadError(f'there is no {name}.py in the archive, and no default handler "{name}".')
    return importlib.import_module(default)


def describe(error: BaseException, folder: Path) -> str:
    """Say in one line what went wrong and where in the archive's own code, without paths of this machine."""
    return " ".join(_describe(error, folder).split())[:LONGEST_CAUSE].encode("utf-8", "replace").decode()


def _describe(error: BaseException, folder: Path) -> str:
    if isinstance(error, LoadError):
        return str(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)]
    where = f"{Path(own[-1].filename).relative_to(folder)}, line {own[-1].lineno}: " if own else ""
    return f"{where}{type(error).__name__}: {error}".replace(f"{folder}/", "")
