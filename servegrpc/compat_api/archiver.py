"""`torch-model-archiver`'s Python API on top of `core.archiver`, which writes the archives."""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Self

from servegrpc.core.archiver import ARCHIVE_SUFFIXES, DEFAULT_HANDLERS, ArchiveSpec, write_archive
from servegrpc.errors import InvalidArchive

__version__ = "0.12.0"

MANIFEST_FILE_NAME = "MANIFEST.json"
MAR_INF = "MAR-INF"
MODEL_SERVER_VERSION = MODEL_ARCHIVE_VERSION = "1.0"
archiving_options = dict(ARCHIVE_SUFFIXES)
model_handlers = dict.fromkeys(DEFAULT_HANDLERS, "default handler")


class ModelArchiverError(Exception):
    """An archive cannot be written."""


class RuntimeType(Enum):
    """What runs a handler."""

    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"


@dataclass
class ModelArchiverConfig:
    """What goes into an archive; the flags of `servegrpc archive`."""

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    runtime: str = RuntimeType.PYTHON.value
    export_path: str = "."
    archive_format: str = "default"
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Self:
        """Take the fields from parsed arguments."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})


class Model:
    """The "model" section of a manifest."""

    def __init__(
        self,
        model_name: str,
        serialized_file: str | None,
        handler: str,
        model_file: str | None = None,
        model_version: str | None = None,
        extensions: object = None,
        requirements_file: str | None = None,
        config_file: str | None = None,
    ) -> None:
        values = {
            "modelName": model_name,
            "serializedFile": serialized_file and os.path.basename(serialized_file),
            "handler": os.path.basename(handler),
            "modelFile": model_file and os.path.basename(model_file),
            "modelVersion": model_version,
            "extensions": extensions,
            "requirementsFile": requirements_file and os.path.basename(requirements_file),
            "configFile": config_file and os.path.basename(config_file),
        }
        self.model_dict = {key: value for key, value in values.items() if value}

    def __str__(self) -> str:
        return json.dumps(self.model_dict)


class Manifest:
    """MANIFEST.json."""

    def __init__(self, runtime: str, model: Model) -> None:
        self.manifest_dict = {
            "createdOn": datetime.now().strftime("%d/%m/%Y %H:%M:%S"),
            "runtime": RuntimeType(runtime).value,
            "model": model.model_dict,
            "archiverVersion": __version__,
        }

    def __str__(self) -> str:
        return json.dumps(self.manifest_dict, indent=2)


class ModelExportUtils:
    """The checks of the archiver that scripts call by themselves."""

    @staticmethod
    def get_archive_export_path(export_file_path: str, model_name: str, archive_format: str) -> str:
        """Return where the archive will be."""
        return os.path.join(export_file_path, f"{model_name}{ARCHIVE_SUFFIXES[archive_format]}")

    @staticmethod
    def check_mar_already_exists(model_name: str, export_file_path: str | None, overwrite: bool, archive_format: str = "default") -> str:
        """Return the folder of the archive; raises ModelArchiverError when the archive is there and must not be replaced."""
        folder = export_file_path or os.getcwd()
        if not overwrite and os.path.exists(ModelExportUtils.get_archive_export_path(folder, model_name, archive_format)):
            raise ModelArchiverError(f"{model_name} already exists in {folder}; set force to replace it.")
        return folder

    @staticmethod
    def check_model_name_regex_or_exit(model_name: str) -> None:
        """Raise ModelArchiverError for a name that no model can have."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-.]*", model_name):
            raise ModelArchiverError(
                f'The model name "{model_name}" must begin with a letter or digit and go on with those, "_", "-" or ".".'
            )

    @staticmethod
    def validate_inputs(model_name: str, export_path: str) -> None:
        """Check the name, and make the folder."""
        ModelExportUtils.check_model_name_regex_or_exit(model_name)
        Path(export_path).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def generate_model(modelcfg: ModelArchiverConfig) -> Model:
        """Return the "model" section of the manifest."""
        return Model(
            modelcfg.model_name,
            modelcfg.serialized_file,
            modelcfg.handler,
            modelcfg.model_file,
            modelcfg.version,
            requirements_file=modelcfg.requirements_file,
            config_file=modelcfg.config_file,
        )

    @staticmethod
    def generate_manifest_json(config: ModelArchiverConfig) -> str:
        """Return the manifest as text."""
        return str(Manifest(config.runtime, ModelExportUtils.generate_model(config)))


class ArgParser:
    """The command line of `torch-model-archiver`."""

    @staticmethod
    def export_model_args_parser() -> ModelArchiverConfig:
        """Return what the program's arguments ask for."""
        parser = argparse.ArgumentParser(description="Write a model archive; `servegrpc archive --help` says more.")
        for field in fields(ModelArchiverConfig):
            names = [f"--{field.name.replace('_', '-')}", *({"force": ["-f"], "version": ["-v"]}.get(field.name, []))]
            if field.name == "force":
                parser.add_argument(*names, action="store_true")
            else:
                required = field.name in ("model_name", "handler", "version")
                parser.add_argument(*names, required=required, default=None if required else field.default)
        return ModelArchiverConfig.from_args(parser.parse_args())


class ModelArchiver:
    """Writes archives."""

    @staticmethod
    def generate_model_archive(config: ModelArchiverConfig) -> None:
        """Write the archive."""
        generate_model_archive(config)


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Write the archive that `config`, or else the program's arguments, ask for; raises ModelArchiverError."""
    package_model(config or ArgParser.export_model_args_parser())


def package_model(config: ModelArchiverConfig, manifest: str = "") -> None:  # noqa: ARG001 - the manifest is made anew
    """Write the archive; raises ModelArchiverError naming the flag at fault."""
    texts: dict[str, Any] = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in asdict(config).items()}
    try:
        write_archive(ArchiveSpec(**texts))
    except InvalidArchive as error:
        raise ModelArchiverError(error.message) from error
