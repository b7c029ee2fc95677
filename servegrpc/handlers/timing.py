"""Optional metrics of a handler's steps: `ts_handler_preprocess` and so on, when model-config.yaml says `handler: {profile: true}`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., object])


def timed(method: Method) -> Method:
    """Record the time of each call of a handler's method as the metric `ts_handler_<method>`, in milliseconds, where asked for."""

    @functools.wraps(method)
    def wrapper(handler: object, *args: object, **kwargs: object) -> object:
        if not _is_profiled(handler):
            return method(handler, *args, **kwargs)
        start = time.monotonic()
        result = method(handler, *args, **kwargs)
        milliseconds = (time.monotonic() - start) * 1000
        handler.context.metrics.add_time(f"ts_handler_{method.__name__}", milliseconds)  # type: ignore[attr-defined]  # see _is_profiled
        return result

    return cast("Method", wrapper)


def _is_profiled(handler: object) -> bool:
    """Tell whether the handler has a context and its configuration asks for timing."""
    config = getattr(handler, "model_yaml_config", None)
    section = config.get("handler") if config else None
    return isinstance(section, Mapping) and bool(section.get("profile")) and getattr(handler, "context", None) is not None
