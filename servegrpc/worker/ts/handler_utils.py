"""`ts.handler_utils.utils`: classes by name, and messages before the last one of a stream."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Protocol


class Streaming(Protocol):
    """The worker's context, as far as streams go."""

    def send_intermediate(self, results: Sequence[object], request_ids: Mapping[int, str] | None = None) -> None:
        """Send one message to each caller that `request_ids` names."""


def import_class(class_name: str, module_prefix: str | None = None) -> type:
    """Return a class by its dotted name, below the package `module_prefix` if one is given; ImportError names what is missing."""
    module_name, _, name = class_name.rpartition(".") if class_name else ("", "", "")
    path = ".".join(part for part in (module_prefix, module_name) if part)
    if not name or not path:
        raise ImportError(f'"{class_name}" does not name a class in a module; write "package.module.Class".')
    found = getattr(importlib.import_module(path), name, None)
    if not isinstance(found, type):
        raise ImportError(f'Module "{path}" has no class "{name}".')
    return found


def send_intermediate_predict_response(
    ret: Sequence[object],
    req_id_map: Mapping[int, str],
    message: str,  # noqa: ARG001 - TorchServe's signature
    code: int,  # noqa: ARG001
    context: Streaming,
) -> None:
    """Send one message to each caller that `req_id_map` names: `ret[index]` to that of the id at `index`.

    What the handler returns is the last message. A micro-batch names the requests of its part of the batch, counted from 0. Raises
    what `Context.send_intermediate` does.
    """
    context.send_intermediate(ret, req_id_map)
