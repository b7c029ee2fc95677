"""The server's settings: defaults, a TOML file, and the command line over it. Nothing else reads files or the environment for settings."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from servegrpc.core.model_config import LARGEST
from servegrpc.core.registration import MAX_WORKERS, Defaults, GivenSettings
from servegrpc.errors import InvalidInput


class ModelTable(BaseModel):
    """Settings of a model or of one version; None: not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    workers: int | None = Field(default=None, ge=0, le=MAX_WORKERS)
    max_workers: int | None = Field(default=None, ge=1, le=MAX_WORKERS)  # more than `workers`: their number follows the load
    batch_size: int | None = Field(default=None, ge=1, le=65536)
    max_batch_delay_seconds: float | None = Field(default=None, ge=0, le=3600)
    response_timeout_seconds: float | None = Field(default=None, ge=0.001, le=LARGEST)
    startup_timeout_seconds: float | None = Field(default=None, ge=0.001, le=LARGEST)
    max_queue_size: int | None = Field(default=None, ge=1, le=LARGEST)

    def given(self) -> GivenSettings:
        """Return the same for the core."""
        return GivenSettings(**{name: getattr(self, name) for name in GivenSettings.__dataclass_fields__})


class ModelEntry(ModelTable):
    """A model to load at the start, with settings that go before the archive's."""

    archive: str
    name: str = ""
    handler: str = ""
    default: bool = False  # this version becomes the default of its model


class ServerConfig(BaseModel):
    """All settings of `servegrpc serve`, under the names the TOML file uses; sizes in bytes, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    inference_address: str = "127.0.0.1:7070"
    management_address: str = "127.0.0.1:7071"
    metrics_address: str = "127.0.0.1:8082"  # empty: no metrics
    model_store: Path | None = None
    models: tuple[str | ModelEntry, ...] = ()  # [name=]archive; "all": all of the model store
    skip_failed_models: bool = False  # one that cannot be loaded does not end the server
    model_defaults: ModelTable = ModelTable()  # where neither the caller nor the archive says
    model_settings: Mapping[str, Mapping[str, ModelTable]] = Field(default_factory=dict)  # the same for one version of one name
    default_handler: str = ""  # for archives that name none
    limit_max_image_pixels: bool = True  # off: image handlers take pictures beyond Pillow's limit
    service_envelope: str = ""  # for all models; TorchServe's name of one
    metrics_config: Path | None = None  # TorchServe's metrics.yaml, for models without one
    declared_metrics_only: bool = False  # metrics of handlers that it does not declare are dropped
    state_dir: Path | None = None  # None: what is registered is forgotten at the end
    workers: Annotated[int, Field(ge=0, le=MAX_WORKERS)] | Literal["per-core"] | None = None  # per model; None: one, or one per GPU
    cpus: int | None = Field(default=None, ge=1)  # shared by the workers of a model; None: as many as this process may use
    gpus: int | None = Field(default=None, ge=0)  # None: as many as there are
    max_message_bytes: int = Field(default=64 * 1024 * 1024, ge=1, le=LARGEST)
    max_queue_bytes: int = Field(default=4 * 1024**3, ge=1)  # of the requests that wait, for all models together
    max_concurrent_calls: int | None = Field(default=None, ge=1)  # that run models; None: any number
    max_streams_per_connection: int | None = Field(default=None, ge=1, le=LARGEST)  # calls of one connection at once; None: any number
    drain_seconds: float = Field(default=30.0, ge=0)
    inference_connection_age_seconds: float | None = Field(default=None, gt=0)  # then clients are asked to connect anew
    inference_connection_grace_seconds: float | None = Field(default=None, ge=0)  # then the old connection is cut; None: never
    management_connection_age_seconds: float | None = Field(default=None, gt=0)
    management_connection_grace_seconds: float | None = Field(default=None, ge=0)
    fast_lane: bool = True  # off: grpcio's public handlers serve all methods
    allow_repository_api: bool = False  # Triton's calls that load and unload models, on the inference port too
    allow_client_shm: str = ""  # how the names of shared memory that clients may use begin; empty: none
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    client_ca_file: Path | None = None
    token_authorization: bool = False
    token_lifetime_seconds: float = Field(default=3600.0, gt=0, le=3e9)
    key_file: Path = Path("key_file.json")
    install_requirements: bool = False  # whether the Python packages that an archive asks for are installed for it
    allowed_urls: tuple[str, ...] = ()  # regular expressions; a URL that one of them matches whole may be downloaded
    model_api: bool = True  # whether calls may register and unregister models
    blocked_environment: str = ""  # regular expression; workers do not get variables whose whole name it matches
    access_log: str = ""  # a file, or - for standard error; empty: none
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("blocked_environment", "allowed_urls")
    @classmethod
    def _check_patterns(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for pattern in (value,) if isinstance(value, str) else value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from None
        return value

    @field_validator("metrics_config")
    @classmethod
    def _check_metrics(cls, file: Path | None) -> Path | None:
        if file is not None:
            _read_metrics(file)
        return file

    def defaults(self) -> Defaults:
        """Return what holds for models where neither their callers nor their archives say."""
        versions = {(name, number): table.given() for name, tables in self.model_settings.items() for number, table in tables.items()}
        return Defaults(self.model_defaults.given(), versions, self.default_handler, self._model_config())

    def _model_config(self) -> dict[str, object]:
        config: dict[str, object] = {"serviceEnvelope": self.service_envelope} if self.service_envelope else {}
        if not self.limit_max_image_pixels:
            config["limitMaxImagePixels"] = False
        if self.metrics_config:
            declared = _read_metrics(self.metrics_config)
            config |= {"metricsConfig": declared, "declaredMetricsOnly": self.declared_metrics_only}
        return config

    def block_environment(self) -> None:
        """Remove the blocked variables from this process, before it starts the one that workers come from."""
        for name in list(os.environ):
            if self.blocked_environment and re.fullmatch(self.blocked_environment, name):
                del os.environ[name]

    def package_root(self) -> Path:
        """Return the folder that keeps what is installed for archives, from one server to the next."""
        return (self.state_dir or Path(os.path.expanduser("~/.cache/servegrpc"))) / "packages"

    def unpack_root(self) -> Path:
        """Return the folder that archives are unpacked under; each server makes its own below it."""
        return Path(tempfile.gettempdir()) / f"servegrpc-{os.getuid()}"


def _read_metrics(file: Path) -> dict[str, object]:
    """Return the model_metrics of a metrics.yaml; raises ValueError saying what is wrong with it."""
    import yaml  # only servers need it

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from None
    if not isinstance(content, dict) or not content.get("model_metrics"):
        raise ValueError(f"{file.name} has nothing under model_metrics")
    return {"model_metrics": content["model_metrics"]}


def environment() -> Mapping[str, str]:
    """Return the variables of this process: TorchServe's are read, when its configuration is."""
    return os.environ


def load_config(file: Path | None, overrides: Mapping[str, object], *, values: Mapping[str, object] | None = None) -> ServerConfig:
    """Return the settings of a TOML file, or given as `values`, with `overrides` put over them; None overrides nothing.

    Raises InvalidInput naming the file and the setting.
    """
    settings = dict(values or {})
    if file is not None:
        try:
            settings |= tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidInput(f"{file.name}: {error}", field="config") from None
    settings |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return ServerConfig.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        where = f"{file.name} or the command line: " if file else ""
        raise InvalidInput(f"Bad setting: {where}{problems}.", field="config") from None
