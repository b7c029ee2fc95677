"""Which model versions there are. Everyone looks up here; only the manager changes it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from servegrpc.core.archive import ModelArchive
from servegrpc.core.autoscale import Autoscaler
from servegrpc.core.model import ModelSettings, State
from servegrpc.core.pool import WorkerPool
from servegrpc.errors import ModelLoadFailed, ModelNotFound, VersionNotFound


@dataclass(frozen=True, slots=True, eq=False)
class ModelVersion:
    """A registered version: what it was made from, how it runs, its pool, which knows its state, and the bounds of its workers."""

    name: str
    version: str
    archive: ModelArchive
    settings: ModelSettings
    pool: WorkerPool
    autoscaler: Autoscaler
    register_time: float = field(default_factory=time.time)  # seconds since the epoch

    def check_loaded(self) -> None:
        """Raise ModelLoadFailed when it has failed, or was unregistered while someone waited for it."""
        if self.pool.state is State.FAILED:
            raise self.load_failed(self.pool.cause)
        if self.pool.state in (State.DRAINING, State.UNLOADED):
            raise self.load_failed("it was unloaded while it loaded.")

    def load_failed(self, cause: str) -> ModelLoadFailed:
        """Return the error that says so."""
        message = f"{self.pool.label} failed to load: {cause}"
        return ModelLoadFailed(message, model_name=self.name, model_version=self.version, cause=cause)


@dataclass(frozen=True, slots=True)
class Model:
    """All versions under one name, in the order of registration."""

    name: str
    default_version: str
    versions: Mapping[str, ModelVersion]


class ModelRegistry:
    """Looks up models. Reading takes no lock: every change replaces the whole table."""

    def __init__(self) -> None:
        self._models: Mapping[str, Model] = MappingProxyType({})

    def get(self, name: str, version: str = "") -> ModelVersion:
        """Return a version, the default one when `version` is empty.

        Raises ModelNotFound or VersionNotFound, naming those there are.
        """
        model = self._models.get(name)
        if model is None:
            raise self._unknown(name)
        found = model.versions.get(version or model.default_version)
        if found is None:
            versions = ", ".join(model.versions)
            raise VersionNotFound(
                f'Model "{name}" has no version {version}; versions: {versions}.', model_name=name, model_version=version, versions=versions
            )
        return found

    def find(self, name: str, version: str) -> ModelVersion | None:
        """Return a version, if it is there."""
        model = self._models.get(name)
        return model.versions.get(version) if model else None

    def default_version(self, name: str) -> str:
        """Return the number of a model's default version; empty when there is no such model."""
        model = self._models.get(name)
        return model.default_version if model else ""

    def model(self, name: str) -> Model:
        """Return all of a model. Raises ModelNotFound."""
        if name not in self._models:
            raise self._unknown(name)
        return self._models[name]

    def models(self) -> list[Model]:
        """Return all models, sorted by name."""
        return [self._models[name] for name in sorted(self._models)]

    def versions(self) -> list[ModelVersion]:
        """Return all versions of all models, sorted by name."""
        return [version for model in self.models() for version in model.versions.values()]

    def _unknown(self, name: str) -> ModelNotFound:
        names = sorted(self._models)
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        there = f"models: {shown}." if names else "no model is registered."
        return ModelNotFound(f'There is no model "{name}"; {there}', model_name=name, models=shown)

    # --- for the manager only, one change at a time

    def add(self, version: ModelVersion) -> None:
        """Add a version, or replace the one of that number; the first of a model becomes its default."""
        model = self._models.get(version.name) or Model(version.name, version.version, {})
        self._replace(replace(model, versions={**model.versions, version.version: version}))

    def remove(self, version: ModelVersion) -> None:
        """Remove a version; the last one takes the model with it. When the default goes, the first registered one takes its place."""
        model = self._models[version.name]
        left = {number: other for number, other in model.versions.items() if other is not version}
        default = model.default_version if model.default_version in left else next(iter(left), "")
        self._replace(replace(model, versions=left, default_version=default))

    def set_default(self, version: ModelVersion) -> None:
        """Make a version the default of its model."""
        self._replace(replace(self._models[version.name], default_version=version.version))

    def _replace(self, model: Model) -> None:
        models = {**self._models, model.name: model}
        if not model.versions:
            del models[model.name]
        self._models = MappingProxyType(models)
