"""Finds and initializes the handler of a model, by TorchServe's rules (`ts/model_loader.py`).

`module[:function]`: a module-level function of that name (default `handle`) wins; else the module's only class, whose `initialize`
is called and whose `handle` is the entry point. A name without a file in the archive is one of our default handlers, or a module,
`package.module` too, that is in the archive or installed. An envelope, where the model asks for one, wraps the entry point.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, cast

import yaml

from servegrpc.worker import ts_alias
from servegrpc.worker.context import Context
from servegrpc.worker.handler_metrics import HandlerMetrics, process
from servegrpc.worker.ts.util import list_classes_from_module
from servegrpc.worker.ts_names import DEFAULT_HANDLERS, ENVELOPES, REFUSED

log = logging.getLogger(__name__)

Entry = Callable[[object, Context], object]

LONGEST_CAUSE = 2000  # characters


class LoadError(Exception):
    """The handler cannot be loaded; the message is for people."""


def load_handler(folder: Path, handler: str, context: Context, envelope: str = "") -> Entry:
    """Return the initialized entry point; from now on this process answers `import ts…` with our modules.

    `envelope` is the one for models that name none in model-config.yaml (`serviceEnvelope`). Raises LoadError, or whatever the handler's
    own code raises.
    """
    ts_alias.install()
    process.metrics = context.metrics
    _declare_metrics(folder, context)
    entry = _load_entry(folder, handler, context)
    wanted = context.model_yaml_config.get("serviceEnvelope", envelope)
    return _wrap(entry, str(wanted)) if wanted else entry


def borrows_inputs(entry: Entry) -> bool:
    """Return whether a handler says that it lets go of its inputs when it returns: `borrow_inputs = True` on its class or function."""
    return getattr(getattr(entry, "__self__", entry), "borrow_inputs", False) is True


def is_async(entry: Entry) -> bool:
    """Return whether an entry point is `async def`, a coroutine or an asynchronous generator."""
    called = _called(entry)
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)


def yields(entry: Entry) -> bool:
    """Return whether an entry point is a generator, asynchronous or not."""
    called = _called(entry)
    return inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)


def _called(entry: Entry) -> Entry:
    return entry if inspect.isroutine(entry) else type(entry).__call__


def _declare_metrics(folder: Path, context: Context) -> None:
    """Declare what the archive's metrics.yaml, or else `metricsConfig` of model-config.yaml, has under model_metrics.

    With `declaredMetricsOnly`, other metrics are dropped.
    """
    config = context.model_yaml_config
    declared = _declare_packed(folder / "metrics.yaml", context.metrics)
    if not declared and config.get("metricsConfig") is not None:
        context.metrics.declare(config["metricsConfig"])
        declared = True
    context.metrics.only_declared = declared and config.get("declaredMetricsOnly") is True


def _declare_packed(file: Path, metrics: HandlerMetrics) -> bool:
    """Declare what a metrics.yaml has, if it is one that can be used: TorchServe reads none in an archive, so it may be anything."""
    try:
        packed = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
        if not isinstance(packed, Mapping) or "model_metrics" not in packed:
            return False
        metrics.declare(packed)
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:
        log.warning("metrics.yaml is not used: %s", error)
        return False
    return True


def _load_entry(folder: Path, handler: str, context: Context) -> Entry:
    name, _, attribute = handler.partition(":")
    module = _import(folder, PurePosixPath(name.removesuffix(".py")))
    found = getattr(module, attribute or "handle", None)
    if found is not None and not inspect.isclass(found):
        _finish(found(None, context))  # a function initializes itself when it is called without data; one that yields does not
        return cast("Entry", found)
    service: Any = _service_class(module, attribute, found)()  # a user's object
    if not callable(getattr(service, "handle", None)):
        raise LoadError(f"class {type(service).__name__} in {module.__name__}.py has no method handle(data, context).")
    if callable(getattr(service, "initialize", None)):
        _finish(service.initialize(context))
    return cast("Entry", service.handle)  # after initialize, which may replace it


def _finish(started: object) -> None:
    """Run what an `async def` has begun to its end."""
    if inspect.iscoroutine(started):
        asyncio.run(started)


def _service_class(module: ModuleType, attribute: str, found: type | None) -> type:
    """Return the class that the handler names, else the only one of the module."""
    if found is not None and attribute:
        return found
    if module.__name__ in _OWN_CLASSES:
        return cast("type", getattr(module, _OWN_CLASSES[module.__name__]))
    classes = list_classes_from_module(module)
    if len(classes) != 1:
        there = ", ".join(item.__name__ for item in classes) or "none"
        function = attribute or "handle"
        name = f"{module.__name__}.py"
        hint = f" To choose one, name the handler {name}:{classes[0].__name__}." if classes else ""
        raise LoadError(f'{name} needs a function "{function}" or exactly one class; classes there: {there}.{hint}')
    return classes[0]


_OWN_CLASSES = {f"servegrpc.handlers.{name}": class_name for name, class_name in DEFAULT_HANDLERS.items()}


def _import(folder: Path, path: PurePosixPath) -> ModuleType:
    name = path.name
    places = [folder / f"{name}.py"]
    if len(path.parts) > 1 and not path.is_absolute() and ".." not in path.parts:
        places.insert(0, folder / f"{path}.py")  # the archiver packs handlers at the top, but a folder may be served as it is
    for file in places:
        if file.is_file():
            return _import_file(name, file)
    if name in DEFAULT_HANDLERS:
        return importlib.import_module(f"servegrpc.handlers.{name}")
    if reason := REFUSED.get(f"ts.torch_handler.{name}"):
        raise LoadError(f'the default handler "{name}" is not here: {reason}.')
    if _is_module(name):  # a package in the archive, or installed
        return importlib.import_module(name)
    raise LoadError(f'there is no {name}.py in the archive, and no default handler "{name}".')


def _is_module(name: str) -> bool:
    """Return whether there is a module of that name, which may have dots; the packages around it are imported."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):  # it, or a package around it, is not there; else one of these cannot be imported
            return False
        raise


def _import_file(name: str, file: Path) -> ModuleType:
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))  # so that it can import its neighbours
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"{name}.py cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the archive's own file wins over any module of that name
    spec.loader.exec_module(module)
    return module


def _wrap(entry: Entry, envelope: str) -> Entry:
    if envelope not in ENVELOPES:
        raise LoadError(f'there is no envelope "{envelope}"; serviceEnvelope takes {", ".join(ENVELOPES)}.')
    if is_async(entry):
        raise LoadError(f'the envelope "{envelope}" cannot wrap an "async def" handler; take off serviceEnvelope, or the "async".')
    module = importlib.import_module(f"servegrpc.handlers.envelopes.{envelope}")
    return cast("Entry", getattr(module, ENVELOPES[envelope])(entry).handle)


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
    return f"{where}{_named(error, folder)}{_advice(error)}{_cause(error, folder)}".replace(f"{folder}/", "")


def _named(error: BaseException, folder: Path) -> str:
    """Return an error's class and message, in which Python has put the path of the module that lacks a name."""
    path = getattr(error, "path", None) if isinstance(error, ImportError) else None
    said = f"{type(error).__name__}: {error}"
    return said.replace(f" ({path})", "") if path and not Path(path).is_relative_to(folder) else said


def _advice(error: BaseException) -> str:
    """Say what to do about a package that is not installed; errors of `worker.ts_alias` say so themselves."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "ts", "servegrpc"):
        return ""
    return f"; install {package} where the server runs, or name it in the archive's requirements.txt"


def _cause(error: BaseException, folder: Path) -> str:
    """Return what an error was raised from, where a handler says so with `raise … from …`."""
    cause = error.__cause__
    return "" if cause is None else f" (from {_named(cause, folder)})"
