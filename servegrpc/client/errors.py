"""The one exception that calls end with: a gRPC status with its details read."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class CallError(Exception):
    """A call that ended with an error status.

    `code` is the gRPC status, `reason` a name of `ErrorReason` such as "MODEL_NOT_FOUND" (empty when the server sent none), and
    `metadata` what belongs to it, such as {"model_name": "digits"}. `retry_after_seconds` is set when the server says when to try
    again; `fields` maps each wrong field of the request to what is wrong with it.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_after_seconds: float | None = None,
        fields: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = metadata or {}
        self.retry_after_seconds = retry_after_seconds
        self.fields = fields or {}

    def __str__(self) -> str:
        status = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        wrong = "".join(f"; {field}: {text}" for field, text in self.fields.items() if text != self.message)
        again = "" if self.retry_after_seconds is None else f"; try again in {self.retry_after_seconds:g} s"
        return f"{status}: {self.message}{wrong}{again}"


def call_error(error: grpc.RpcError) -> CallError:
    """Return the CallError for what grpc raised, with threads or asyncio."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return CallError(grpc.StatusCode.UNKNOWN, str(error))
    found = CallError(error.code(), error.details() or "no message")
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            _read_details(found, status_pb2.Status.FromString(value))
    return found


def not_ready(service: str, last_status: str, error: CallError | None) -> CallError:
    """Return why the wait for `service`, a health service name, was in vain: `error`, or None when the server ended it."""
    if error is not None and error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return error
    code = error.code if error else grpc.StatusCode.UNAVAILABLE
    why = "in time" if error else "and the server is stopping"
    return CallError(code, f"{service or 'the server'} did not become ready {why}; its last status was {last_status}")


def _read_details(found: CallError, status: status_pb2.Status) -> None:
    error_info, retry_info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(error_info):
            found.reason, found.metadata = error_info.reason, dict(error_info.metadata)
        elif detail.Unpack(retry_info):
            found.retry_after_seconds = retry_info.retry_delay.ToNanoseconds() / 1e9
        elif detail.Unpack(bad_request):
            found.fields = {violation.field: violation.description for violation in bad_request.field_violations}
