"""The `pt2` key of model-config.yaml, in the three forms TorchServe took, to a call of `torch.compile`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

import torch

log = logging.getLogger(__name__)


def compile_model(model: torch.nn.Module, pt2: object) -> torch.nn.Module:
    """Return `model` compiled as `pt2` says, or as it is, with a warning, when torch has no such backend or refuses the arguments.

    `pt2` is `{compile: {enable: true, backend: …, …}}`, a backend's name, or a mapping of `torch.compile` arguments. Compilation itself
    happens at the first request.
    """
    arguments = _arguments(pt2)
    if arguments is None:
        return model
    backend = arguments.get("backend", "inductor")
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        log.warning('not compiled: torch has no backend "%s" (pt2 in model-config.yaml)', backend)
        return model
    try:
        return cast("torch.nn.Module", torch.compile(model, **arguments))  # type: ignore[call-overload]  # the user's own arguments
    except (TypeError, ValueError, RuntimeError) as error:
        log.warning("not compiled: %s (pt2 in model-config.yaml)", error)
        return model


def is_compiled_ahead(pt2: object) -> bool:
    """Tell whether `pt2` is `{export: {aot_compile: true}}`."""
    export = pt2.get("export") if isinstance(pt2, Mapping) else None
    return isinstance(export, Mapping) and export.get("aot_compile") is True


def _arguments(pt2: object) -> dict[str, object] | None:
    if isinstance(pt2, str):
        return {"backend": pt2}
    if not isinstance(pt2, Mapping):
        raise ValueError("pt2 in model-config.yaml must be a mapping or the name of a torch.compile backend.")
    if "export" in pt2:
        return None
    if "compile" not in pt2:
        return dict(pt2)
    options = dict(pt2["compile"])
    return options if options.pop("enable", False) is True else None
