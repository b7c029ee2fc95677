"""The modules and public names of `torch-model-archiver` 0.12, and where each lives here; data only."""

from __future__ import annotations

from collections.abc import Mapping

_ARCHIVER = "servegrpc.compat_api.archiver"


def _here(*names: str) -> dict[str, str]:
    return {name: f"{_ARCHIVER}:{name}" for name in names}


MODEL_ARCHIVER: Mapping[str, Mapping[str, str]] = {
    "model_archiver": _here("ModelArchiver", "ModelArchiverConfig", "__version__"),
    "model_archiver.version": _here("__version__"),
    "model_archiver.arg_parser": _here("ArgParser", "ModelArchiverConfig", "RuntimeType"),
    "model_archiver.model_archiver": _here("ModelArchiver", "ModelArchiverConfig", "generate_model_archive"),
    "model_archiver.model_archiver_config": _here("ModelArchiverConfig", "RuntimeType"),
    "model_archiver.model_archiver_error": _here("ModelArchiverError"),
    "model_archiver.model_packaging": _here(
        "ArgParser", "ModelArchiverConfig", "ModelArchiverError", "ModelExportUtils", "generate_model_archive", "package_model"
    ),
    "model_archiver.model_packaging_utils": _here(
        *("MANIFEST_FILE_NAME", "MAR_INF", "MODEL_ARCHIVE_VERSION", "MODEL_SERVER_VERSION", "archiving_options", "model_handlers"),
        *("Manifest", "Model", "ModelArchiverConfig", "ModelArchiverError", "ModelExportUtils", "RuntimeType"),
    ),
    "model_archiver.manifest_components": {},
    "model_archiver.manifest_components.manifest": _here("Manifest", "RuntimeType"),
    "model_archiver.manifest_components.model": _here("Model"),
}
