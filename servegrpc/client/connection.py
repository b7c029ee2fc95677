"""How the client connects: addresses, message size, retries and TLS, the same for both clients."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

INFERENCE_ADDRESS = "127.0.0.1:7070"
MANAGEMENT_ADDRESS = "127.0.0.1:7071"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# Reading twice is safe. Changing twice is not: the second attempt could report the effect of the first as an error.
_RETRIED = [
    {"service": "servegrpc.v1.InferenceService"},
    {"service": "servegrpc.v1.ManagementService", "method": "GetModel"},
    {"service": "servegrpc.v1.ManagementService", "method": "ListModels"},
    {"service": "grpc.health.v1.Health"},
]

ChannelOptions = list[tuple[str, int | str]]


@dataclass(frozen=True)
class Tls:
    """What to trust and to show: each the PEM bytes or the path of a PEM file.

    Without `root_certificates` the system's are trusted. A server that asks for client certificates needs the other two.
    """

    root_certificates: bytes | str | Path | None = None
    private_key: bytes | str | Path | None = None
    certificate_chain: bytes | str | Path | None = None


def credentials(tls: bool | Tls) -> grpc.ChannelCredentials | None:
    """Return the credentials of a TLS connection, None for one without."""
    if tls is False:
        return None
    given = Tls() if tls is True else tls
    return grpc.ssl_channel_credentials(_pem(given.root_certificates), _pem(given.private_key), _pem(given.certificate_chain))


def channel_options(max_message_bytes: int, attempts: int) -> ChannelOptions:
    """Return the options of a channel: the size limit both ways (-1: none), and `attempts` (1 to 5) at calls that are UNAVAILABLE."""
    if not 1 <= attempts <= 5:
        raise ValueError(f"attempts is {attempts}; give 1 to 5")
    options: ChannelOptions = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # A server that starts is found soon; by default the wait between two connection attempts grows from 1 s to 2 min.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if attempts == 1:
        return [*options, ("grpc.enable_retries", 0)]
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": _RETRIED, "retryPolicy": policy}]})
    # A request larger than this buffer is not sent again; 256 KiB by default. It is held only while the call runs.
    buffer = max_message_bytes if max_message_bytes >= 0 else 2**31 - 1
    return [*options, ("grpc.service_config", config), ("grpc.per_rpc_retry_buffer_size", buffer)]


def _pem(source: bytes | str | Path | None) -> bytes | None:
    return Path(source).read_bytes() if isinstance(source, str | Path) else source
