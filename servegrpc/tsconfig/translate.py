"""TorchServe's keys as settings of ours, under the names of `ServerConfig`.

A key that is not given leaves our default, with four exceptions, where TorchServe's is kept because much depends on it: tokens are asked
for, models are not registered by calls, one that cannot be loaded does not end the server, and there is a worker for each GPU or core.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
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
_LARGEST = 2**31 - 1
_POSITIVE = (  # keys for which zero or less says nothing
    *("default_response_timeout", "default_startup_timeout", "job_queue_size", "max_request_size", "token_expiration_min"),
    *("grpc_inference_max_connection_age_ms", "grpc_management_max_connection_age_ms"),
)
_NOT_NEGATIVE = ("number_of_gpu", "default_workers_per_model")
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
    """Translate all keys; one without a value counts as not given.

    Raises InvalidInput naming the key whose value cannot be read; what the values mean is checked later.
    """
    given = {key: value.strip() for key, value in properties.items() if value.strip()}
    result = Translation()
    _limit_numbers(given, result)
    for key, value in given.items():
        if key in _SIMPLE:
            name, convert = _SIMPLE[key]
            result.settings[name] = convert(key, value)
        elif key not in HONOURED | SILENT:
            result.without_effect[key] = WITHOUT_EFFECT.get(key, "it is no key of TorchServe")
    if _is_true(given.get("debug")):
        result.settings |= {"log_level": "debug", "workers": 1}
    if defaults := {ours: _number(key, given[key]) for key, ours in _MODEL_DEFAULTS.items() if key in given}:
        result.settings["model_defaults"] = defaults
    _add_addresses(given, result)
    _add_metrics(given, result)
    _add_tls(given, result)
    _add_models(given, result)
    return result


def _limit_numbers(given: dict[str, str], result: Translation) -> None:
    """Put what TorchServe takes and we do not into our limits, and tell so."""
    for key in (*_POSITIVE, *_NOT_NEGATIVE):
        try:
            number = float(given.get(key, "1"))
        except ValueError:
            continue  # refused where it is read
        if number <= 0 and key in _POSITIVE:
            result.without_effect[key] = f"{given.pop(key)} counts as not given"
        elif number < 0 or (number > _LARGEST and key == "max_request_size"):
            limit = int(max(0, min(number, _LARGEST)))
            result.without_effect[key] = f"{given[key]} counts as {limit}"
            given[key] = str(limit)


def _text(_: str, value: str) -> str:
    return value


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() == "true"  # Java's parseBoolean: all else is false


def _true(_: str, value: str) -> bool:
    return _is_true(value)


def _false(_: str, value: str) -> bool:
    return not _is_true(value)


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


_SIMPLE: Mapping[str, tuple[str, Callable[[str, str], object]]] = {
    "model_store": ("model_store", _text),
    "blacklist_env_vars": ("blocked_environment", _text),
    "default_workers_per_model": ("workers", _workers),
    "number_of_gpu": ("gpus", _number),
    "max_request_size": ("max_message_bytes", _number),
    "default_service_handler": ("default_handler", _text),
    "limit_max_image_pixels": ("limit_max_image_pixels", _true),
    "service_envelope": ("service_envelope", _text),
    "model_metrics_auto_detect": ("declared_metrics_only", _false),
    "grpc_inference_max_connection_age_ms": ("inference_connection_age_seconds", _seconds_of_milliseconds),
    "grpc_inference_max_connection_age_grace_ms": ("inference_connection_grace_seconds", _seconds_of_milliseconds),
    "grpc_management_max_connection_age_ms": ("management_connection_age_seconds", _seconds_of_milliseconds),
    "grpc_management_max_connection_age_grace_ms": ("management_connection_grace_seconds", _seconds_of_milliseconds),
    "token_expiration_min": ("token_lifetime_seconds", _seconds_of_minutes),
    "disable_token_authorization": ("token_authorization", _false),
    "enable_model_api": ("model_api", _true),
    "install_py_dep_per_model": ("install_requirements", _true),
    "allowed_urls": ("allowed_urls", _patterns),
}


def _add_addresses(given: Mapping[str, str], result: Translation) -> None:
    for port, default in (("inference", "7070"), ("management", "7071")):
        host, number = (given.get(f"grpc_{port}_{part}", "") for part in ("address", "port"))
        if host or number:
            shown = f"[{host}]" if ":" in host and not host.startswith("[") else host or "127.0.0.1"
            result.settings[f"{port}_address"] = f"{shown}:{_number(f'grpc_{port}_port', number or default)}"


def _add_metrics(given: Mapping[str, str], result: Translation) -> None:
    file, address = given.get("metrics_config", ""), given.get("metrics_address", "")
    if Path(file).is_file():
        result.settings["metrics_config"] = file
    elif file:
        result.without_effect["metrics_config"] = "the file is not there"  # many configurations name the one that came with TorchServe
    if not _is_true(given.get("enable_metrics_api", "true")):
        result.settings["metrics_address"] = ""
    elif address:
        scheme, _, rest = address.rpartition("://")
        if address.startswith("unix:"):
            result.without_effect["metrics_address"] = "metrics are served on a TCP port only"
            return
        if scheme == "https":
            result.without_effect["metrics_address"] = f"metrics are plain HTTP: they are on {rest} without TLS"
        result.settings["metrics_address"] = rest.rstrip("/") if ":" in rest else f"{rest.rstrip('/')}:8082"


def _add_tls(given: Mapping[str, str], result: Translation) -> None:
    files = {key: given[key] for key in ("certificate_file", "private_key_file") if key in given}
    if _is_true(given.get("enable_grpc_ssl")):
        if len(files) < 2:
            raise InvalidInput("enable_grpc_ssl needs certificate_file and private_key_file.", field="enable_grpc_ssl")
        result.settings |= files
    else:
        result.without_effect |= dict.fromkeys(files, "TLS of gRPC is turned on by enable_grpc_ssl=true")


def _add_models(given: Mapping[str, str], result: Translation) -> None:
    if "model_snapshot" in given:
        snapshot = _object("model_snapshot", _json("model_snapshot", given["model_snapshot"]))
        entries = _entries("model_snapshot", snapshot.get("models", {}))
        result.settings["models"] = [_registered(name, version, entry, result) for name, version, entry in entries]
        if "load_models" in given:
            result.without_effect["load_models"] = "the models are those of model_snapshot"
    elif "load_models" in given:
        names = (part.strip() for part in given["load_models"].split(","))
        result.settings["models"] = ["all" if name.lower() == "all" else name for name in names if name not in ("", "none")]
    if "models" in given:
        tables: dict[str, dict[str, object]] = {}
        for name, version, entry in _entries("models", _json("models", given["models"])):
            tables.setdefault(name, {})[version] = _model_numbers(f"models: {name} {version}", entry, result)
        result.settings["model_settings"] = tables


def _registered(name: str, version: str, entry: Mapping[str, object], result: Translation) -> dict[str, object]:
    numbers = _model_numbers(f"model_snapshot: {name} {version}", entry, result)
    zeros = {_MODEL_NUMBERS[theirs][0]: 0 for theirs in ("minWorkers", "maxBatchDelay") if entry.get(theirs) == 0}
    model = {"archive": str(entry.get("marName", "")), "name": name, **numbers, **zeros}
    return {**model, "default": True} if entry.get("defaultVersion") is True else model


def _entries(key: str, models: object) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yield name, version and what is said of it."""
    for name, versions in _object(key, models).items():
        for version, entry in _object(key, versions).items():
            yield name, version, _object(key, entry)


def _json(key: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{key} is not valid JSON: {error}.", field=key) from None


def _object(key: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{key} must hold objects of models, of versions and of settings; {json.dumps(value)} is none.", field=key)
    return value


def _model_numbers(where: str, entry: Mapping[str, object], result: Translation) -> dict[str, float]:
    """Return what is there and above zero; TorchServe ignores the rest."""
    numbers: dict[str, float] = {}
    for theirs, (ours, unit) in _MODEL_NUMBERS.items():
        value = entry.get(theirs)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidInput(f"{where}: {theirs} must be a number, not {json.dumps(value)}.", field=where.partition(":")[0])
        if value > 0:
            numbers[ours] = int(value) if unit == 1 else value / unit
    if numbers.get("max_workers", math.inf) < numbers.get("workers", 0):
        del numbers["max_workers"]
        result.without_effect[f"{where}: maxWorkers"] = "it is less than minWorkers"
    return numbers
