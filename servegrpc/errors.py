"""Every error that a caller can see: one gRPC code and one reason each.

    ServeError
    ├── InvalidInput                                 what the caller sent
    ├── ModelNotFound, VersionNotFound, NoWorkers, Draining, QueueFull
    ├── ModelLoadFailed, VersionExists, DefaultVersion
    ├── ArchiveNotFound, InvalidArchive, RequirementsFailed    what was packaged
    ├── HandlerError, InvalidHandlerResult           what the handler did
    ├── WorkerLost (PoisonRequest), ResponseTimeout  what happened to its process
    ├── TokenRefused, ModelApiDisabled               what the caller may not do
    ├── RegionExists, RegionNotFound                 memory that clients share with the server
    ├── SequenceUnknown, SequenceLost, SequenceLimit, SlowReader
    └── RequestExpired, WouldMissDeadline, RequestCancelled, NotSupported, ServerError

A message goes to callers as it is: it names the model, version or worker and says what to do next, without paths or traces.
Reasons are those of `protos/servegrpc/v1/errors.proto`. Handlers, workers and the server all raise these; nothing here imports grpc.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Self


class Code(IntEnum):
    """The canonical gRPC status codes (`grpc/status.h`), without importing grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServeError(Exception):
    """The root; raise a subclass.

    `metadata` becomes ErrorInfo.metadata, `field` (with the message) a BadRequest violation, `retry_after_seconds` a RetryInfo.
    """

    code: Code = Code.INTERNAL  # of the class; a handler may choose its own
    reason: ClassVar[str] = "SERVER_ERROR"

    def __init__(self, message: str, *, field: str = "", retry_after_seconds: float | None = None, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_seconds = retry_after_seconds
        self.metadata = {key: str(value) for key, value in metadata.items()}

    def about(self, **metadata: object) -> Self:
        """Add what the error is about to its metadata; returns the same error."""
        self.metadata |= {key: str(value) for key, value in metadata.items()}
        return self


class ServerError(ServeError):
    """A fault of the server itself."""


class InvalidInput(ServeError):
    """A field of the request is wrong.

    A handler raises it to refuse its caller's input; `row` is the index of the bad request in the batch. Only that request gets
    the error: the handler is called again with the others. Without `row` the whole batch is refused.
    """

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_INPUT"

    def __init__(self, message: str, *, field: str = "", row: int | None = None, **metadata: object) -> None:
        super().__init__(message, field=field, retry_after_seconds=None, **metadata)
        self.row = row


class ModelNotFound(ServeError):
    """No model of that name is registered."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class VersionNotFound(ServeError):
    """The model has no such version."""

    code = Code.NOT_FOUND
    reason = "VERSION_NOT_FOUND"


class NoWorkers(ServeError):
    """The version has no worker and none is coming."""

    code = Code.UNAVAILABLE
    reason = "NO_WORKERS"


class Draining(ServeError):
    """The version, or the server, takes no new requests."""

    code = Code.UNAVAILABLE
    reason = "DRAINING"


class QueueFull(ServeError):
    """As many requests wait as may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "QUEUE_FULL"


class TooManyCalls(ServeError):
    """As many calls run in the server as may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_CALLS"


class ModelLoadFailed(ServeError):
    """The version failed to load, or failed for good later."""

    code = Code.FAILED_PRECONDITION
    reason = "MODEL_LOAD_FAILED"


class VersionExists(ServeError):
    """The version is registered already."""

    code = Code.ALREADY_EXISTS
    reason = "VERSION_EXISTS"


class DefaultVersion(ServeError):
    """The default version cannot go while others are there."""

    code = Code.FAILED_PRECONDITION
    reason = "DEFAULT_VERSION"


class ArchiveNotFound(ServeError):
    """The archive is not there."""

    code = Code.NOT_FOUND
    reason = "ARCHIVE_NOT_FOUND"


class InvalidArchive(ServeError):
    """The archive is damaged, unsafe or incomplete."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARCHIVE"


class RequirementsFailed(ServeError):
    """The packages that the archive asks for could not be installed."""

    code = Code.FAILED_PRECONDITION
    reason = "REQUIREMENTS_FAILED"


class HandlerError(ServeError):
    """The handler raised an exception."""

    reason = "HANDLER_ERROR"


class InvalidHandlerResult(ServeError):
    """The handler returned something other than one sendable result for each request."""

    reason = "INVALID_HANDLER_RESULT"


class WorkerLost(ServeError):
    """The worker ended while it ran the request.

    ABORTED and not UNAVAILABLE: the handler may have done part of its work, so only who knows that it may run twice should send it again.
    """

    code = Code.ABORTED
    reason = "WORKER_LOST"


class PoisonRequest(WorkerLost):
    """A worker ended while it ran the request, and so did the one that then ran it alone: whoever sends it again ends a third."""

    reason = "POISON_REQUEST"


class ResponseTimeout(ServeError):
    """The handler took longer than the model's response timeout; its worker was killed, or its task cancelled when it is asynchronous."""

    code = Code.DEADLINE_EXCEEDED
    reason = "RESPONSE_TIMEOUT"


class RequestExpired(ServeError):
    """The request's deadline passed before a worker took it."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXPIRED"


class WouldMissDeadline(ServeError):
    """Less time is left until the deadline than the model takes at its quickest."""

    code = Code.DEADLINE_EXCEEDED
    reason = "WOULD_MISS_DEADLINE"


class RequestCancelled(ServeError):
    """The caller left before a worker took the request."""

    code = Code.CANCELLED
    reason = "REQUEST_CANCELLED"


class SequenceUnknown(ServeError):
    """There is no such sequence: it was not started, it was closed, or it was idle for too long."""

    code = Code.FAILED_PRECONDITION
    reason = "SEQUENCE_UNKNOWN"


class SequenceLost(ServeError):
    """The worker that held the sequence's state is gone; the sequence must be started anew."""

    code = Code.ABORTED
    reason = "SEQUENCE_LOST"


class SequenceLimit(ServeError):
    """As many sequences are open, or requests of one sequence wait, as may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "SEQUENCE_LIMIT"


class SlowReader(ServeError):
    """The caller did not read its stream fast enough."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "SLOW_READER"


class TokenRefused(ServeError):
    """The call has no valid token."""

    code = Code.PERMISSION_DENIED
    reason = "TOKEN_REFUSED"


class ModelApiDisabled(ServeError):
    """The server registers and unregisters no models by calls."""

    code = Code.PERMISSION_DENIED
    reason = "MODEL_API_DISABLED"


class NotSupported(ServeError):
    """This server does not do that, or is not allowed to."""

    code = Code.UNIMPLEMENTED
    reason = "NOT_SUPPORTED"


class RegionExists(ServeError):
    """A region of shared memory of that name is registered already."""

    code = Code.ALREADY_EXISTS
    reason = "REGION_EXISTS"


class RegionNotFound(ServeError):
    """No region of shared memory of that name is registered."""

    code = Code.NOT_FOUND
    reason = "REGION_NOT_FOUND"
