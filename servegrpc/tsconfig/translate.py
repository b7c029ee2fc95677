"""TorchServe's keys as settings of ours, under the names of `ServerConfig`.

A key that is not given leaves our default, with four exceptions, where TorchServe's is kept because much depends on it: tokens are asked
for, models are not registered by calls, one that cannot be loaded does not end the server, and there is a worker for each GPU or core.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servegrpc.errors import InvalidInput
from servegrpc.tsconfig.keys import HONOURED, SILENT, WITHOUT_EFFECT

_MILLISECONDS = 1000
_DEFAULTS = {"token_authorization": True, "model_api": False, "skip_failed_models": True, "workers": "per-core"}
_MODEL_DEFAULTS = {
    "default_response_timeout": "response_timeout_seconds",
    "default_startup_timeout": "startup_timeout_seconds",
    "job_queue_size": "max_queue_size",
}
_MODEL_NUMBERS = {  # of the JSON of `models` and `model_snapshot`: our name, and how many of its unit are one of ours
    "minWorkers": ("workers", 1),
    "maxWorkers": ("max_workers", 1),
    "batchSize": ("batch_size", 1),
    "maxBatchDelay": ("max_batch_delay_seconds", _MILLISECONDS),
    "responseTimeout": ("response_timeout_seconds", 1),
    "startupTimeout": ("startup_timeout_seconds", 1),
}


@dataclass
class Translation:
    """Settings of ours, and the keys that have no effect here with the reason."""

    settings: dict[str, object] = field(default_factory=lambda: dict(_DEFAULTS))
    without_effect: dict[str, str] = field(default_factory=dict)


def translate(properties: Mapping[str, str]) -> Translation:
    """Translate all keys. Raises InvalidInput naming the key whose value cannot be read; what the values mean is checked later."""
    result = Translation()
    for key, value in properties.items():
        if key in _SIMPLE:
            _SIMPLE[key](result.settings, key, value.strip())
        elif key not in HONOURED | SILENT:
            result.without_effect[key] = WITHOUT_EFFECT.get(key, "it is no key of TorchServe")
    if _true("debug", properties.get("debug", "").strip()):
        result.settings |= {"log_level": "debug", "workers": 1}
    if defaults := {ours: _number(key, properties[key].strip()) for key, ours in _MODEL_DEFAULTS.items() if key in properties}:
        result.settings["model_defaults"] = defaults
    _add_addresses(properties, result)
    _add_tls(properties, result)
    _add_models(properties, result)
    return result


Put = Callable[[dict[str, object], str, str], None]


def _setting(name: str, convert: Callable[[str, str], object]) -> Put:
    def put(settings: dict[str, object], key: str, value: str) -> None:
        settings[name] = convert(key, value)

    return put


def _text(_: str, value: str) -> str:
    return value


def _true(_: str, value: str) -> bool:
    return value.lower() == "true"  # Java's parseBoolean: all else is false


def _false(key: str, value: str) -> bool:
    return not _true(key, value)


def _patterns(_: str, value: str) -> list[str]:
    return [pattern.strip() for pattern in value.split(",") if pattern.strip()]


def _number(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidInput(f"{key} must be a whole number, not {value!r}.", field=key) from None


def _seconds_of_milliseconds(key: str, value: str) -> float:
    return _number(key, value) / _MILLISECONDS


def _seconds_of_minutes(key: str, value: str) -> float:
    try:
        return float(value) * 60
    except ValueError:
        raise InvalidInput(f"{key} must be a number of minutes, not {value!r}.", field=key) from None


def _workers(key: str, value: str) -> object:
    return _number(key, value) or "per-core"


def _metrics_config(settings: dict[str, object], _key: str, value: str) -> None:
    if Path(value).is_file():  # TorchServe's own file, which many configurations name, went with TorchServe
        settings["metrics_config"] = value


_SIMPLE: Mapping[str, Put] = {
    "model_store": _setting("model_store", _text),
    "blacklist_env_vars": _setting("blocked_environment", _text),
    "default_workers_per_model": _setting("workers", _workers),
    "number_of_gpu": _setting("gpus", _number),
    "max_request_size": _setting("max_message_bytes", _number),
    "default_service_handler": _setting("default_handler", _text),
    "limit_max_image_pixels": _setting("limit_max_image_pixels", _true),
    "service_envelope": _setting("service_envelope", _text),
    "metrics_config": _metrics_config,
    "model_metrics_auto_detect": _setting("declared_metrics_only", _false),
    "grpc_inference_max_connection_age_ms": _setting("inference_connection_age_seconds", _seconds_of_milliseconds),
    "grpc_inference_max_connection_age_grace_ms": _setting("inference_connection_grace_seconds", _seconds_of_milliseconds),
    "grpc_management_max_connection_age_ms": _setting("management_connection_age_seconds", _seconds_of_milliseconds),
    "grpc_management_max_connection_age_grace_ms": _setting("management_connection_grace_seconds", _seconds_of_milliseconds),
    "token_expiration_min": _setting("token_lifetime_seconds", _seconds_of_minutes),
    "disable_token_authorization": _setting("token_authorization", _false),
    "enable_model_api": _setting("model_api", _true),
    "install_py_dep_per_model": _setting("install_requirements", _true),
    "allowed_urls": _setting("allowed_urls", _patterns),
}


def _add_addresses(properties: Mapping[str, str], result: Translation) -> None:
    for port, default in (("inference", "7070"), ("management", "7071")):
        host, number = (properties.get(f"grpc_{port}_{part}", "").strip() for part in ("address", "port"))
        if host or number:
            shown = f"[{host}]" if ":" in host and not host.startswith("[") else host or "127.0.0.1"
            result.settings[f"{port}_address"] = f"{shown}:{_number(f'grpc_{port}_port', number or default)}"
    address = properties.get("metrics_address", "").strip()
    if not _true("", properties.get("enable_metrics_api", "true").strip()):
        result.settings["metrics_address"] = ""
    elif address:
        scheme, _, rest = address.rpartition("://")
        if address.startswith("unix:"):
            result.without_effect["metrics_address"] = "metrics are served on a TCP port only"
            return
        if scheme == "https":
            result.without_effect["metrics_address"] = f"metrics are plain HTTP: they are on {rest} without TLS"
        result.settings["metrics_address"] = rest.rstrip("/") if ":" in rest else f"{rest.rstrip('/')}:8082"


def _add_tls(properties: Mapping[str, str], result: Translation) -> None:
    files = {key: properties[key].strip() for key in ("certificate_file", "private_key_file") if properties.get(key, "").strip()}
    if _true("", properties.get("enable_grpc_ssl", "").strip()):
        if len(files) < 2:
            raise InvalidInput("enable_grpc_ssl needs certificate_file and private_key_file.", field="enable_grpc_ssl")
        result.settings |= files
    else:
        result.without_effect |= dict.fromkeys(files, "TLS of gRPC is turned on by enable_grpc_ssl=true")


def _add_models(properties: Mapping[str, str], result: Translation) -> None:
    snapshot = properties.get("model_snapshot", "").strip()
    if snapshot:
        models = _object("model_snapshot", _object("model_snapshot", json_of("model_snapshot", snapshot)).get("models", {}))
        result.settings["models"] = [
            {
                "archive": str(_object("model_snapshot", entry).get("marName", "")),
                "name": name,
                **_model_numbers("model_snapshot", _object("model_snapshot", entry)),
                **({"default": True} if _object("model_snapshot", entry).get("defaultVersion") is True else {}),
            }
            for name, versions in models.items()
            for entry in _object("model_snapshot", versions).values()
        ]
        if properties.get("load_models", "").strip():
            result.without_effect["load_models"] = "the models are those of model_snapshot"
    elif names := split_models(properties.get("load_models", "")):
        result.settings["models"] = names
    if properties.get("models", "").strip():
        models = _object("models", json_of("models", properties["models"]))
        result.settings["model_settings"] = {
            name: {version: _model_numbers("models", _object("models", entry)) for version, entry in _object("models", versions).items()}
            for name, versions in models.items()
        }


def split_models(text: str) -> list[str]:
    """Return the models of `load_models` or `--models`, which commas part."""
    return [model for part in text.split(",") if (model := part.strip()) not in ("", "none")]


def json_of(key: str, text: str) -> object:
    """Return what a value in JSON says. Raises InvalidInput."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{key} is not valid JSON: {error}.", field=key) from None


def _object(key: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{key} must hold objects of models, of versions and of settings; {json.dumps(value)} is none.", field=key)
    return value


def _model_numbers(key: str, entry: Mapping[str, object]) -> dict[str, object]:
    """Return what is there and above zero; TorchServe ignores the rest."""
    numbers: dict[str, object] = {}
    for theirs, (ours, unit) in _MODEL_NUMBERS.items():
        value = entry.get(theirs)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInput(f"{key}: {theirs} must be a number, not {json.dumps(value)}.", field=key)
        if value > 0:
            numbers[ours] = int(value) if unit == 1 else value / unit
    return numbers
