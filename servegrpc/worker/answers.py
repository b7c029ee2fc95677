"""Turns what becomes of a request in the worker into a Reply of the request's dialect. Nothing a handler returns or raises gets past it."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from servegrpc.engine.channel import Item
from servegrpc.errors import Code, HandlerError, InvalidHandlerResult, InvalidInput, RequestCancelled, RequestExpired, ServeError
from servegrpc.reply import Reply
from servegrpc.wire.dialect import About, Codec
from servegrpc.worker.context import RequestProcessor
from servegrpc.worker.ts.util import PredictionException

LONGEST_MESSAGE = 800  # characters of what a handler said that a caller sees
TRAILER_KEY = re.compile(r"(?!grpc-)[0-9a-z_.\-]+(?<!-bin)")
LARGEST_MESSAGE_BYTES = 2**31 - 1  # protobuf's limit
LONGEST_TRAILER = 4096  # characters; clients refuse more than 8 KiB of metadata
TRAILER_NAMES = {"content-type": "response-content-type"}  # gRPC has a content type of its own

HTTP_CODES = {  # TorchServe's table, `GRPCUtils.java`
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    416: Code.OUT_OF_RANGE,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class Ended:
    """The outcome of a stream that ends well, without a further message."""


ENDED = Ended()


@dataclass(slots=True)
class Took:
    """What a call of the handler took, for the reply to tell."""

    nanoseconds: int = 0
    batch_size: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """Makes the replies of one loaded model."""

    codecs: Mapping[int, Codec]
    model_name: str
    model_version: str
    worker_id: int
    expose_errors: bool

    def decode(self, item: Item, *, borrow: bool = False) -> object:
        """Return the row of a request. Raises InvalidInput."""
        try:
            return self.codecs[item.dialect].decode(item.payload, borrow=borrow)
        except MemoryError:
            raise InvalidInput("the inputs take more memory than the worker can get") from None

    def message(self, item: Item, value: object, took: Took) -> Reply:
        """Return a message of a request's stream.

        Raises InvalidHandlerResult for a value that cannot be sent, InvalidInput for one that the request asks for and that is not there.
        """
        about = item.about
        if about is None:
            about = item.about = About(self.model_name, self.model_version, item.request_id, item.queued_microseconds, request=item.payload)
        about.handler_nanoseconds, about.batch_size = took.nanoseconds, took.batch_size
        try:
            body = self.codecs[item.dialect].encode(value, about)
        except ServeError:
            raise
        except Exception as error:  # noqa: BLE001 - a result may be any object, and fail in any way when it is read
            log_trace(error, "result cannot be sent", [item.request_id])
            raise InvalidHandlerResult(f"the handler's result cannot be sent: {type(error).__name__}: {text(error)}") from None
        if len(body) > LARGEST_MESSAGE_BYTES:
            raise InvalidHandlerResult(
                f"the handler's result makes a message of {len(body):,} bytes, and protobuf takes {LARGEST_MESSAGE_BYTES:,} at most; "
                "send it in parts, as a stream"
            )
        return Reply(body, more=True)

    def reply(self, item: Item, outcome: object, took: Took, processor: RequestProcessor | None = None) -> Reply:
        """Return the final reply: `outcome` is a ServeError, ENDED, or the value to send."""
        trailers: tuple[tuple[str, str], ...] = ()
        if processor is not None and not isinstance(outcome, ServeError):
            trailers = _trailers(processor)
            outcome = _refusal(processor) or outcome
        if isinstance(outcome, Ended):
            return Reply(empty=True, trailers=trailers)
        if not isinstance(outcome, ServeError):
            try:
                reply = self.message(item, outcome, took)
                reply.more, reply.trailers = False, trailers
                return reply
            except ServeError as error:
                outcome = error
        try:
            reply = self._error_reply(item, outcome)
        except Exception as error:  # noqa: BLE001 - a handler's own error object may hold anything
            log_trace(error, "error cannot be sent", [item.request_id])
            unsendable = HandlerError("the handler raised an error that cannot be sent; the server's log has the trace")
            reply = self._error_reply(item, unsendable)
        reply.trailers = reply.trailers or trailers
        return reply

    def handler_error(self, error: BaseException, items: Sequence[Item]) -> ServeError:
        """Log what a handler raised, and return what its callers are told."""
        log_trace(error, "handler failed", [item.request_id for item in items])
        if isinstance(error, ServeError):
            return error
        told = self._told(error)
        if isinstance(error, MemoryError) or "CUDA" in text(error):
            told.about(problem="OUT_OF_RESOURCES")
        return told

    def _told(self, error: BaseException) -> HandlerError:
        code = getattr(error, "error_code", None)
        if isinstance(error, PredictionException) and isinstance(code, int):  # the handler's own word to its callers
            said = text(getattr(error, "message", error))
            told = HandlerError(said, prediction_message=said, prediction_code=code)
            told.code = http_code(code)
            return told
        if self.expose_errors:
            return HandlerError(f"the handler raised {type(error).__name__}: {text(error)}", exception=type(error).__name__)
        return HandlerError("the handler failed; the server's log has the trace under the request id")

    def _error_reply(self, item: Item, error: ServeError) -> Reply:
        about = f'Model "{self.model_name}" version {self.model_version}'
        message = f"{about}: {text(error.message).rstrip('.')}. Request id: {item.request_id}."
        names = {"model_name": self.model_name, "model_version": self.model_version, "worker": str(self.worker_id)}
        return self.codecs[item.dialect].status(error, message, {**names, "request_id": item.request_id})


def check_count(results: object, count: int) -> Sequence[object]:
    """Return a handler's results. Raises InvalidHandlerResult unless they are a list with one for each request."""
    if not isinstance(results, list):
        raise InvalidHandlerResult(
            f"the handler returned {type(results).__name__}; it must return a list with one result per request", problem="NO_LIST"
        )
    if len(results) != count:
        message = f"the handler returned {len(results)} results for {count} requests; it must return one for each"
        raise InvalidHandlerResult(message, problem="WRONG_COUNT")
    return results


def caller_left() -> RequestCancelled:
    """Return the end of a call that nobody waits for."""
    return RequestCancelled("the caller left while the handler worked on its request")


def left_before() -> RequestCancelled:
    """Return the end of a call whose caller left when its worker had it, but not the handler."""
    return RequestCancelled("the caller left before the handler got the request; it was not run")


def too_late() -> RequestExpired:
    """Return the end of a call whose deadline passed in the worker."""
    return RequestExpired("the deadline passed before the handler got the request; it was not run")


def http_code(status: int) -> Code:
    """Return the gRPC code of an HTTP status, as TorchServe maps them; INTERNAL for one that says that all is well."""
    if status in HTTP_CODES:
        return HTTP_CODES[status]
    return {4: Code.FAILED_PRECONDITION, 5: Code.INTERNAL, 2: Code.INTERNAL}.get(status // 100, Code.UNKNOWN)


def text(said: object) -> str:
    """Return what a handler's code said as text that can be sent, whatever it is."""
    try:
        return str(said)[:LONGEST_MESSAGE].encode("utf-8", "replace").decode()
    except Exception as error:  # noqa: BLE001 - __str__ is a handler's code too
        return f"(no message: {type(error).__name__} in its __str__)"


def log_trace(error: BaseException, event: str, request_ids: Sequence[str]) -> None:
    """Write an exception to the worker's output, which is the server's log."""
    sys.stderr.write(f"{event}; request ids: {', '.join(request_ids)}\n")
    traceback.print_exception(error)


def refused_row(error: InvalidInput, count: int) -> int | None:
    """Return the position of the one request that a handler refuses, None when it refuses the batch."""
    row = getattr(error, "row", None)  # a subclass may have left it out
    return row if isinstance(row, int) and 0 <= row < count else None


def _refusal(processor: RequestProcessor) -> ServeError | None:
    """Return the error that a handler has set as a response's status, if any."""
    status = processor.get_response_status_code()
    if not isinstance(status, int) or 200 <= status < 300:
        return None
    phrase = text(processor.get_response_status_phrase() or f"the handler answered with status {status}")
    refusal = HandlerError(phrase, http_status=status)
    refusal.code = http_code(status)
    return refusal


def _trailers(processor: RequestProcessor) -> tuple[tuple[str, str], ...]:
    kept = []
    for name, value in cast("dict[object, object]", processor.get_response_headers()).items():
        key = TRAILER_NAMES.get(str(name).lower(), str(name).lower())
        if TRAILER_KEY.fullmatch(key) and str(value).isascii() and str(value).isprintable() and len(str(value)) <= LONGEST_TRAILER:
            kept.append((key, str(value)))
        else:
            sys.stderr.write(
                f"response header {str(name)[:100]!r} cannot be sent as trailing metadata: keys are a-z, 0-9, '_', '-', '.'; "
                f"values ASCII, {LONGEST_TRAILER} characters at most\n"
            )
    return tuple(kept)
