"""Registers, scales and removes models: the only writer of the registry.

Every dialect's management calls, the command line and shutdown come through here.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import structlog

from servegrpc.core.archive import ModelArchive, open_archive
from servegrpc.core.autoscale import Autoscaler
from servegrpc.core.changes import Changes
from servegrpc.core.download import Downloads
from servegrpc.core.engine import Engine, HandlerSpec
from servegrpc.core.model import State
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.pool import WorkerPool
from servegrpc.core.registration import Defaults, Registration, check_numbers, check_workers, settings_of, worker_bounds
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.core.requirements import PackageCache
from servegrpc.core.state import StateStore
from servegrpc.core.timer import Timer
from servegrpc.core.waiting_bytes import WaitingBytes
from servegrpc.errors import (
    DefaultVersion,
    Draining,
    InvalidArchive,
    InvalidInput,
    ModelLoadFailed,
    ModelNotFound,
    RequirementsFailed,
    ServeError,
    VersionExists,
    VersionNotFound,
)

log = structlog.get_logger()

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")  # TorchServe's archiver: [A-Za-z0-9][A-Za-z0-9_\-.]*
ALLOW_REQUIREMENTS = "start the server with --install-requirements on, or install them where it runs"


class ModelManager:
    """Changes what is served. Calls may come from any thread; changes of the registry happen one at a time."""

    def __init__(
        self,
        *,
        engine: Engine,
        timer: Timer,
        slots: DeviceSlots,
        model_store: Path | None,
        unpack_root: Path,
        default_workers: int | None = None,
        defaults: Defaults | None = None,
        state: StateStore | None = None,
        packages: PackageCache | None = None,
        downloads: Downloads | None = None,
        max_queue_bytes: float = math.inf,
    ) -> None:
        self.registry = ModelRegistry()
        self.changes = Changes(self.registry)
        self.timer = timer
        self._engine = engine
        self._slots = slots
        self._model_store = model_store
        self._unpack_root = unpack_root
        self._default_workers = max(1, slots.gpus) if default_workers is None else default_workers
        self._defaults = defaults or Defaults()
        self._state = state
        self._packages = packages
        self._downloads = downloads or Downloads()
        self._waiting_bytes = WaitingBytes(max_queue_bytes)
        self._lock = threading.Lock()
        self._scaling = threading.Lock()  # held while a pool is scaled; taken before `_lock`
        self._leaving: set[ModelVersion] = set()  # out of the registry, and not unloaded yet
        self._closing = False

    def register(self, registration: Registration) -> ModelVersion:
        """Open an archive and start its workers; waits until it is ACTIVE or FAILED when `registration.wait`.

        Raises ArchiveNotFound, InvalidArchive, InvalidInput, RequirementsFailed, VersionExists, or ModelLoadFailed with the cause;
        after the last the version stays in the registry as FAILED, without its unpacked files, and registering it again replaces it;
        unless it was unregistered.
        """
        check_numbers(registration)
        version, bounds = self._begin(registration)
        if registration.wait:
            self._wait_loaded(version)
        self._save(version, registration, bounds)
        if registration.make_default:
            self.set_default(version.name, version.version)
        return version

    def wait_loaded(self, name: str, version: str) -> None:
        """Wait while a version that is registered loads. Raises ModelNotFound, VersionNotFound, or ModelLoadFailed with the cause."""
        found = self.registry.get(name, version)
        found.pool.wait(lambda: found.pool.state is not State.LOADING, None)  # ends as in `_wait_loaded`
        found.check_loaded()

    def restore(self) -> list[ModelVersion]:
        """Register again what the state says, in its order, and wait for it; what cannot be is told in the log, and stays in the state."""
        restored: list[ModelVersion] = []
        for saved in self._state.versions() if self._state else ():
            try:
                version, bounds = self._begin(saved.registration)
                if (version.name, version.version) != (saved.name, saved.version) and self._state:
                    log.warning("archive has changed", model=saved.name, version=saved.version, now=f"{version.name} {version.version}")
                    self._state.remove(saved.name, saved.version)
                    self._save(version, saved.registration, bounds)
                if saved.is_default:
                    self.set_default(version.name, version.version)
            except ServeError as error:
                log.error("model cannot be registered again", model=saved.name, version=saved.version, cause=error.message)
                continue
            restored.append(version)
        for version in restored:
            version.pool.wait(version.pool.settled, None)
        return restored

    def unregister(self, name: str, version: str = "", *, wait: bool = True) -> None:
        """Drain and remove a version, or all of a model's when `version` is empty.

        Raises ModelNotFound, VersionNotFound, or DefaultVersion when others would be left without it.
        """
        with self._lock:
            try:
                model = self.registry.model(name)
                self.registry.get(name, version)
            except (ModelNotFound, VersionNotFound):
                if self._state and self._state.remove(name, version):
                    return  # it could not be registered again at the start
                raise
            if version and version == model.default_version and len(model.versions) > 1:
                raise DefaultVersion(
                    f'Version {version} is the default of model "{name}" and others are there; set another default first.',
                    model_name=name,
                    model_version=version,
                )
            if self._state:
                self._state.remove(name, version)
            leaving = [self.registry.get(name, version)] if version else list(model.versions.values())
            for one in leaving:
                self._take_out(one)
        self._end(leaving, wait=wait)

    def remove_failed(self, name: str, version: str) -> None:
        """Remove a version that failed to load, also as the default while others are there; one that took its place stays."""
        with self._lock:
            failed = self.registry.find(name, version)
            if failed is None or failed.pool.state is not State.FAILED:
                return
            if self._state:
                self._state.remove(name, version)
            self._take_out(failed)
            if self._state:
                self._state.set_default(name, self.registry.default_version(name))
        self._end([failed], wait=True)
        self.changes.publish_all(name)

    def scale(self, name: str, version: str, workers: int, *, max_workers: int | None = None, wait: bool = True) -> ModelVersion:
        """Set the number of workers; waits until they are ready when `wait`. With `max_workers` their number follows the load from there.

        Raises ModelNotFound, VersionNotFound, ModelLoadFailed.
        """
        check_workers(workers, max_workers)
        found = self.registry.get(name, version)
        if found.pool.state is State.FAILED:
            raise found.load_failed(found.pool.cause)
        most = workers if max_workers is None else max_workers
        with self._scaling:
            if self._state:
                self._state.scale(found.name, found.version, workers, most)
            found.autoscaler.bound(workers, most)
        if wait:
            self._wait_loaded(found)
            if found.pool.target < workers and found.pool.cause:
                raise ModelLoadFailed(
                    f"{found.pool.label} has {found.pool.target} workers; more cannot be kept running: {found.pool.cause}",
                    model_name=found.name,
                    model_version=found.version,
                    cause=found.pool.cause,
                )
        return found

    def set_default(self, name: str, version: str) -> ModelVersion:
        """Make a version the default. Raises ModelNotFound, VersionNotFound."""
        with self._lock:
            found = self.registry.get(name, version)
            if self._state:
                self._state.set_default(found.name, found.version)
            self.registry.set_default(found)
        self.changes.publish_all(name)
        return found

    def drain(self, grace_seconds: float) -> bool:
        """Take nothing new, and wait until what was accepted is finished; returns whether it was, within the grace."""
        deadline = monotonic() + grace_seconds
        with self._lock:
            self._closing = True
            versions = [*self.registry.versions(), *self._leaving]
        self._downloads.stop.set()
        if self._packages:
            self._packages.close()
        for version in versions:
            version.pool.drain()
        settled = [version.pool.wait(version.pool.settled, max(0.0, deadline - monotonic())) for version in versions]
        return all(settled) and not any(version.pool.unfinished for version in versions)

    def close(self, grace_seconds: float = 0.0) -> bool:
        """Drain, end what is left after the grace, and the engine; returns whether all was finished."""
        finished = self.drain(grace_seconds)
        with self._lock:
            versions = [*self.registry.versions(), *self._leaving]
        for version in versions:
            version.pool.kill()
        self._engine.close()
        self.timer.close()
        for version in versions:
            version.archive.remove()
        if self._state:
            self._state.close()
        return finished

    def _save(self, version: ModelVersion, registration: Registration, bounds: tuple[int, int]) -> None:
        """Save what has been registered, unless it is gone again. When it cannot be saved, it is not registered.

        It may have been scaled, or made the default, while it loaded: `bounds` are those that it was registered with.
        """
        try:
            with self._scaling, self._lock:
                if self._state and not self._closing and version in self.registry.versions():
                    low, high = version.autoscaler.min_workers, version.autoscaler.max_workers
                    now = registration if (low, high) == bounds else replace(registration, workers=low, max_workers=high)
                    self._state.put(version.name, version.version, now, default_version=self.registry.default_version(version.name))
        except ServeError:
            with self._lock:
                if version in self.registry.versions():
                    self._take_out(version)
            self._end([version], wait=False)
            raise

    def _begin(self, registration: Registration) -> tuple[ModelVersion, tuple[int, int]]:
        """Open an archive and start its workers; returns the version and the bounds of their number."""
        self._check_open()  # before the work; _add checks it again
        downloads = self._downloads.anywhere() if registration.any_url else self._downloads
        archive = open_archive(registration.archive, store=self._model_store, unpack_root=self._unpack_root, downloads=downloads)
        try:
            version, bounds = self._add(registration, archive)
        except ServeError:
            archive.remove()
            raise
        for warning in archive.config.warnings:
            log.warning("model config", model=version.name, version=version.version, problem=warning)
        return version, bounds

    def _add(self, registration: Registration, archive: ModelArchive) -> tuple[ModelVersion, tuple[int, int]]:
        name = registration.model_name or archive.model_name or registration.fallback_name
        if not MODEL_NAME.fullmatch(name):
            problem = f'"{name}" is no model name' if name else "the archive has no manifest that names the model"
            raise InvalidInput(f"{problem}; give model_name with letters, digits, '_', '-' and '.'.", field="model_name")
        handler = registration.handler or archive.handler or self._defaults.handler
        if not handler:
            raise InvalidArchive("The archive names no handler; give one as file.py or file.py:function.", archive=registration.archive)
        config = archive.config
        spec = HandlerSpec(
            name,
            archive.model_version,
            str(archive.folder),
            handler,
            archive.manifest,
            {**self._defaults.model_config, **config.raw},
            config.expose_errors or self._defaults.model_config.get("exposeErrors") is True,
            config.device_type,
            config.device_ids,
            self._install(name, archive),
        )
        settings = settings_of(registration, config, self._defaults.of(name, archive.model_version))
        fallback = self._default_workers if registration.fallback_workers is None else registration.fallback_workers
        bounds = worker_bounds(registration, config, self._defaults.of(name, archive.model_version), fallback)
        check_workers(*bounds)
        with self._scaling:
            with self._lock:
                self._check_open()
                failed = self._check_free(name, archive.model_version)

                def changed() -> None:
                    if pool.abandoned:
                        archive.remove()  # to register it again opens it anew
                    self.changes.publish(version)

                pool = WorkerPool(spec, settings, self._engine, self._slots, self.timer, changed, self._waiting_bytes)
                version = ModelVersion(name, archive.model_version, archive, settings, pool, Autoscaler(pool, self.timer))
                self.registry.add(version)
            version.autoscaler.bound(*bounds)
        if failed:
            failed.pool.drain()
            failed.archive.remove()
        return version, bounds

    def _install(self, name: str, archive: ModelArchive) -> tuple[str, ...]:
        """Return the folders with the packages that the archive asks for; it may take minutes."""
        if not archive.requirements:
            return ()
        if not self._packages:
            log.warning("requirements are not installed", model=name, version=archive.model_version, remedy=ALLOW_REQUIREMENTS)
            return ()
        with self._lock:
            self._check_free(name, archive.model_version)  # before the work; _add checks it again
        try:
            return (str(self._packages.install(archive.requirements, label=f'Model "{name}" version {archive.model_version}')),)
        except RequirementsFailed as error:
            error.about(model_name=name, model_version=archive.model_version, archive=archive.source)
            raise

    def _check_open(self) -> None:
        """Raise Draining when the server is stopping."""
        if self._closing:
            raise Draining("The server is stopping and registers no more models.")

    def _check_free(self, name: str, number: str) -> ModelVersion | None:
        """Raise VersionExists when the version is registered and has not failed; return the failed one that will be replaced."""
        there = self.registry.find(name, number)
        if there and there.pool.state is not State.FAILED:
            raise VersionExists(
                f'Model "{name}" version {number} is registered already; unregister it first or give the archive another version.',
                model_name=name,
                model_version=number,
            )
        return there

    def _wait_loaded(self, version: ModelVersion) -> None:
        pool, gone = version.pool, (State.DRAINING, State.UNLOADED)
        pool.wait(lambda: pool.state in gone or pool.settled(), None)  # ends: every start has a time-out, and losses lead to FAILED
        version.check_loaded()

    def _take_out(self, version: ModelVersion) -> None:
        """Remove a version from the registry; the caller ends it. Needs the lock."""
        self.registry.remove(version)
        self._leaving.add(version)

    def _end(self, versions: Sequence[ModelVersion], *, wait: bool) -> None:
        for version in versions:
            version.pool.drain()
        for version in versions:
            if wait:
                self._remove_files(version)
            else:
                threading.Thread(target=self._remove_files, args=(version,), name="unregister", daemon=True).start()

    def _remove_files(self, version: ModelVersion) -> None:
        version.pool.wait(version.pool.settled, None)  # ends: every batch has a time-out
        version.archive.remove()
        with self._lock:
            self._leaving.discard(version)
