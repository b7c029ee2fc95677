"""The keys of TorchServe's config.properties: all of them are known."""

import pytest

from servegrpc.tsconfig.keys import HONOURED, SILENT, WITHOUT_EFFECT
from servegrpc.tsconfig.translate import translate

TORCHSERVE_KEYS = """
debug inference_address management_address metrics_address load_models model_store workflow_store blacklist_env_vars
default_workers_per_model default_response_timeout default_startup_timeout unregister_model_timeout number_of_netty_threads
netty_client_threads job_queue_size number_of_gpu metrics_config metrics_mode model_metrics_auto_detect disable_system_metrics
enable_metrics_api system_metrics_cmd ipex_enable ipex_gpu_enable cpu_launcher_enable cpu_launcher_args async_logging
cors_allowed_origin cors_allowed_methods cors_allowed_headers decode_input_request keystore keystore_pass keystore_type
certificate_file private_key_file max_request_size max_response_size limit_max_image_pixels default_service_handler service_envelope
model_server_home prefer_direct_buffer allowed_urls use_env_allowed_urls install_py_dep_per_model grpc_inference_address
grpc_management_address grpc_inference_port grpc_management_port grpc_inference_max_connection_age_ms
grpc_management_max_connection_age_ms grpc_inference_max_connection_age_grace_ms grpc_management_max_connection_age_grace_ms
enable_grpc_ssl initial_worker_port initial_distribution_port cpp_log_config ts_open_inference_protocol token_expiration_min
ts_header_key_sequence_id ts_header_key_sequence_start ts_header_key_sequence_end disable_token_authorization enable_model_api
use_native_io io_ratio metric_time_interval enable_envvars_config model_snapshot models version vmargs plugins_path
"""


def test_all_keys_are_known():
    """All keys of TorchServe 0.12 → each is honoured or without effect, never both; no other key is known, but what snapshots have."""
    assert not HONOURED & set(WITHOUT_EFFECT)
    assert HONOURED | set(WITHOUT_EFFECT) | SILENT == {*TORCHSERVE_KEYS.split(), "tsConfigFile", "python", "snapshot_store"}


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_key_without_effect(key):
    """A key has no effect here → it is named with a reason, and changes nothing."""
    translation = translate({key: "1"})
    assert translation.without_effect == {key: WITHOUT_EFFECT[key]}
    assert translation.settings == translate({}).settings


def test_unknown_key():
    """A key is none of TorchServe's → it is named; what TorchServe writes into snapshots is not."""
    assert translate({"job_queue": "1", "tsConfigFile": "x", "version": "0.12.0"}).without_effect == {
        "job_queue": "it is no key of TorchServe"
    }
