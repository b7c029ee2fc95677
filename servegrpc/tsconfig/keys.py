"""All keys of TorchServe 0.12's config.properties: those that have no effect here with the reason, and the variables that override them."""

from __future__ import annotations

from collections.abc import Mapping

_HTTP = "HTTP is not served"
_LOGS = "logs go to standard error"
_PROMETHEUS = "metrics are on the metrics port, in Prometheus's format"
_CPU = "workers divide the CPU cores among themselves"
_CPP = "only Python handlers are run"

WITHOUT_EFFECT: Mapping[str, str] = {
    "inference_address": f"{_HTTP}; gRPC is, on grpc_inference_address and _port",
    "management_address": f"{_HTTP}; gRPC is, on grpc_management_address and _port",
    "workflow_store": "workflows are not served",
    "unregister_model_timeout": "unregistering ends when the requests accepted before have been answered",
    "number_of_netty_threads": _HTTP,
    "netty_client_threads": _HTTP,
    "metrics_mode": _PROMETHEUS,
    "disable_system_metrics": "the machine is not measured; Prometheus's node exporter does that",
    "system_metrics_cmd": "the machine is not measured; Prometheus's node exporter does that",
    "metric_time_interval": "metrics are read when they are asked for",
    "ipex_enable": "handlers choose their own optimizations",
    "ipex_gpu_enable": "handlers choose their own optimizations",
    "cpu_launcher_enable": _CPU,
    "cpu_launcher_args": _CPU,
    "async_logging": _LOGS,
    "cors_allowed_origin": _HTTP,
    "cors_allowed_methods": _HTTP,
    "cors_allowed_headers": _HTTP,
    "decode_input_request": "gRPC inputs reach handlers as bytes",
    "keystore": "gRPC takes certificate_file and private_key_file",
    "keystore_pass": "gRPC takes certificate_file and private_key_file",
    "keystore_type": "gRPC takes certificate_file and private_key_file",
    "max_response_size": "replies have no limit",
    "model_server_home": "servegrpc is a Python package",
    "prefer_direct_buffer": _HTTP,
    "initial_worker_port": "workers open no ports",
    "initial_distribution_port": "torchrun is not used",
    "cpp_log_config": _CPP,
    "ts_open_inference_protocol": "the Open Inference Protocol is always served",
    "ts_header_key_sequence_id": "sequences are told by the fields of the call",
    "ts_header_key_sequence_start": "sequences are told by the fields of the call",
    "ts_header_key_sequence_end": "sequences are told by the fields of the call",
    "use_native_io": _HTTP,
    "io_ratio": _HTTP,
    "vmargs": "there is no Java",
    "plugins_path": "plugins are Java programs",
}
HONOURED = frozenset(
    {
        *("debug", "metrics_address", "enable_metrics_api", "load_models", "model_store", "blacklist_env_vars"),
        *("default_workers_per_model", "default_response_timeout", "default_startup_timeout", "job_queue_size", "number_of_gpu"),
        *("certificate_file", "private_key_file", "enable_grpc_ssl", "max_request_size", "default_service_handler", "service_envelope"),
        *("metrics_config", "model_metrics_auto_detect", "limit_max_image_pixels"),
        *("install_py_dep_per_model", "allowed_urls", "use_env_allowed_urls"),
        *("grpc_inference_address", "grpc_management_address", "grpc_inference_port", "grpc_management_port"),
        *("grpc_inference_max_connection_age_ms", "grpc_inference_max_connection_age_grace_ms"),
        *("grpc_management_max_connection_age_ms", "grpc_management_max_connection_age_grace_ms"),
        *("token_expiration_min", "disable_token_authorization", "enable_model_api"),
        *("enable_envvars_config", "models", "model_snapshot"),
    }
)
SILENT = frozenset({"version", "tsConfigFile", "python", "snapshot_store"})  # what TorchServe itself writes into a snapshot
_NO_VARIABLE = (
    "use_native_io",
    "io_ratio",
    "metric_time_interval",
    "enable_envvars_config",
    "model_snapshot",
    "models",
    "vmargs",
    "plugins_path",
)


def variables(environment: Mapping[str, str], *, allowed_urls: bool) -> dict[str, str]:
    """Return the keys that variables of the environment set, with their values; TS_ALLOWED_URLS only when it is allowed to."""
    found = {}
    for key in sorted({*HONOURED, *WITHOUT_EFFECT} - set(_NO_VARIABLE)):
        name = key.upper() if key.startswith("ts_") else f"TS_{key.upper()}"
        if name in environment and (key != "allowed_urls" or allowed_urls):
            found[key] = environment[name]
    if "TS_TOKEN_EXPIRATION_TIME_MIN" in environment:
        found["token_expiration_min"] = environment["TS_TOKEN_EXPIRATION_TIME_MIN"]
    return found
