"""The server's settings: defaults, a TOML file, and the command line over it. Nothing else reads files or the environment for settings."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servegrpc.errors import InvalidInput


class ServerConfig(BaseModel):
    """All settings of `servegrpc serve`, under the names the TOML file uses; sizes in bytes, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inference_address: str = "127.0.0.1:7070"
    management_address: str = "127.0.0.1:7071"
    metrics_address: str = "127.0.0.1:8082"  # empty: no metrics
    model_store: Path | None = None
    models: tuple[str, ...] = ()  # [name=]archive
    workers: int | None = Field(default=None, ge=0)  # per model; None: one, or one per GPU
    cpus: int | None = Field(default=None, ge=1)  # shared by the workers of a model; None: as many as this process may use
    gpus: int | None = Field(default=None, ge=0)  # None: as many as there are
    max_message_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    drain_seconds: float = Field(default=30.0, ge=0)
    fast_lane: bool = True  # off: grpcio's public handlers serve all methods
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    client_ca_file: Path | None = None
    access_log: str = ""  # a file, or - for standard error; empty: none
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    def unpack_root(self) -> Path:
        """Return the folder that archives are unpacked under; each server makes its own below it."""
        return Path(tempfile.gettempdir()) / f"servegrpc-{os.getuid()}"


def load_config(file: Path | None, overrides: dict[str, object]) -> ServerConfig:
    """Return the settings of a TOML file with `overrides` put over them; None overrides nothing.

    Raises InvalidInput naming the file and the setting.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidInput(f"{file.name}: {error}", field="config") from None
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return ServerConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        where = f"{file.name} or the command line: " if file else ""
        raise InvalidInput(f"Bad setting: {where}{problems}.", field="config") from None
