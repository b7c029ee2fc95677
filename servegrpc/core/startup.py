"""Registers the models of the start side by side: what was saved, then what is listed.

The server calls it, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from servegrpc.core.manager import ModelManager
from servegrpc.core.model import State
from servegrpc.core.registration import Registration
from servegrpc.core.registry import ModelVersion
from servegrpc.errors import ModelLoadFailed, ModelNotFound, ServeError, VersionExists, VersionNotFound

log = structlog.get_logger()

MOST_AT_ONCE = 8


def load_models(
    manager: ModelManager, registrations: Sequence[Registration], *, skip_registered: bool, skip_failed: bool
) -> list[ModelVersion]:
    """Register what was saved, then these, and wait for all; returns those that are served.

    What was saved is not registered twice. The default of another model is the first of its versions in the list, unless one asks to be it.
    Raises the first ServeError, after all have ended, but for VersionExists with `skip_registered`, and for any with `skip_failed`.
    """
    restored = manager.restore()
    saved = {(version.archive.source, name) for version in restored for name in ("", version.name)}
    new = [registration for registration in registrations if (registration.archive, registration.model_name) not in saved]
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE, thread_name_prefix="load") as threads:
        futures = [threads.submit(manager.register, registration) for registration in new]
    served = [version for version in restored if version.pool.state is not State.FAILED]
    decided = {version.name for version in restored}
    listed = list[tuple[str, str]]()
    for registration, future in zip(new, futures, strict=True):
        try:
            version = future.result()
        except ServeError as error:
            registered = isinstance(error, VersionExists)
            if not (skip_failed or (skip_registered and registered)):
                raise
            level, event = (log.info, "model is registered already") if registered else (log.error, "model cannot be loaded")
            level(event, cause=error.message)
            if isinstance(error, ModelLoadFailed):
                listed.append((error.metadata["model_name"], error.metadata["model_version"]))
        else:
            served.append(version)
            listed.append((version.name, version.version))
            if registration.make_default:
                decided.add(version.name)
    _set_defaults(manager, [(name, version) for name, version in listed if name not in decided])
    return served


def _set_defaults(manager: ModelManager, listed: Sequence[tuple[str, str]]) -> None:
    """Make the first version of each name the default, whichever was unpacked first."""
    for name, version in dict(reversed(listed)).items():
        with suppress(ModelNotFound, VersionNotFound):  # unregistered by a call meanwhile
            if manager.registry.model(name).default_version != version:
                manager.set_default(name, version)
