"""How an error looks on the wire: a google.rpc.Status with ErrorInfo, and BadRequest or RetryInfo where they apply (AIP-193)."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from servegrpc.errors import ServeError

DOMAIN = "servegrpc"
LONGEST_TEXT_BYTES = 1000


def short(text: object, longest: int = LONGEST_TEXT_BYTES) -> str:
    """Return a text so short that several fit into trailers, which clients refuse beyond 8 KiB: at most 1000 bytes, percent-encoded."""
    cut = str(text).encode("utf-8", "replace")[:longest]
    plain = cut.decode("utf-8", "ignore")
    return plain if plain.isascii() else plain[: longest // 6]  # what is not ASCII is sent as three characters a byte


def encode_status(
    error: ServeError, message: str | None = None, metadata: Mapping[str, str] | None = None, code: int | None = None
) -> bytes:
    """Return the serialized google.rpc.Status of an error, as `grpc-status-details-bin` carries it.

    `message` and `code` replace the error's own, `metadata` is added to it.
    """
    message = short(error.message if message is None else message)
    status = status_pb2.Status(code=int(error.code if code is None else code), message=message)
    about = {key: short(value) for key, value in {**error.metadata, **(metadata or {})}.items()}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=about))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=short(error.field), description=message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    serialized: bytes = status.SerializeToString()
    return serialized
