"""A gRPC call as a request of the core, and its reply as the end of the call. Shared by all ways in."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from contextvars import ContextVar
from functools import partial
from time import monotonic
from typing import NoReturn

import grpc

from servegrpc.core.pool import WorkerPool
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.core.request import Request
from servegrpc.errors import InvalidInput, ServeError, SlowReader
from servegrpc.frontend.methods import Call, Pump, Stream
from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.rows import count_rows
from servegrpc.wire.scan import Route
from servegrpc.wire.status import encode_status, short

DETAILS_KEY = "grpc-status-details-bin"
PRIORITY = "servegrpc-priority"  # a header
LONGEST_PRIORITY = 10  # digits
NOT_FORWARDED = ("user-agent", "authorization")
CODES = {code.value[0]: code for code in grpc.StatusCode}
SEQUENCE_ID, SEQUENCE_START, SEQUENCE_END = "ts_request_sequence_id", "ts_request_sequence_start", "ts_request_sequence_end"  # headers

call_note: ContextVar[tuple[str, str]] = ContextVar("call_note", default=("", ""))  # model and request id, for the access log

_ids = itertools.count(1)
_id_prefix = os.urandom(4).hex()


def new_request_id() -> str:
    """Return an id that no other request of this server has, and no other server is likely to give."""
    return f"{_id_prefix}-{next(_ids)}"


def forwarded_headers(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str], ...]:
    """Return the metadata that handlers see as request headers: all but gRPC's own and binary ones.

    A key that comes more than once has its values joined, as gRPC allows.
    """
    kept: dict[str, str] = {}
    for key, value in metadata:  # a loop: most calls have nothing but a user agent
        if key not in NOT_FORWARDED and isinstance(value, str) and not key.startswith(("grpc-", ":")):
            kept[key] = f"{kept[key]}, {value}" if key in kept else value
    return tuple(kept.items())


def priority_of(headers: Iterable[tuple[str, str]]) -> int:
    """Return the priority that a call's headers ask for: 1 is the highest, 0 none. Raises InvalidInput."""
    for key, value in headers:
        if key == PRIORITY:
            if not (value.isascii() and value.isdecimal() and len(value) < LONGEST_PRIORITY):
                raise InvalidInput(f"the header {PRIORITY} must be a whole number of at least 0, and is {value[:20]!r}.", field=PRIORITY)
            return int(value)
    return 0


def submit(
    registry: ModelRegistry,
    dialect: Dialect,
    route: Route,
    raw: bytes,
    call: Call,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    timeout_seconds: float = math.inf,
    priority: int = 0,
    sequence_id: str = "",
    sequence_start: bool | None = None,
    sequence_end: bool = False,
) -> Pump | None:
    """Send a call's request through its model's queue; when the caller leaves while it waits, it never reaches a handler.

    `headers` are added to those of the call; one of them says the priority, where the request does not. A request with a `sequence_id` is
    of that sequence: `sequence_start` begins it anew, None if there is none, and `sequence_end` ends it afterwards. Returns the pool's
    `pump` when it should wait until all that has arrived is queued. Raises ServeError for what the server refuses.
    """
    call.model_name, call.request_id = route.model_name, route.request_id or new_request_id()
    version = registry.get(route.model_name, route.model_version)
    pool = version.pool
    deadline = call.deadline if timeout_seconds == math.inf else min(call.deadline, monotonic() + timeout_seconds)
    sent_on, expires = forwarded_headers(call.metadata) + headers, timeout_seconds < math.inf
    rank = priority or (priority_of(sent_on) if sent_on else 0)
    request = Request(raw, dialect, call.request_id, call.answer, deadline, sent_on, priority=rank, expires=expires)
    if sequence_id:
        begin_in_sequence(pool, request, sequence_id, start=sequence_start, end=sequence_end)
    elif dialect is Dialect.OPEN_INFERENCE:
        check_free(version)
    call.on_cancel = partial(pool.cancel, request)
    return put(pool, request)


def submit_stream(registry: ModelRegistry, dialect: Dialect, route: Route, raw: bytes, stream: Stream) -> Pump | None:
    """Do as `submit`, for a caller that takes every message the handler has for it."""
    stream.model_name, stream.request_id = route.model_name, route.request_id or new_request_id()
    pool = registry.get(route.model_name, route.model_version).pool
    headers = forwarded_headers(stream.metadata)
    rank = priority_of(headers)
    request = Request(raw, dialect, stream.request_id, stream.answer, stream.deadline, headers, message=stream.message, priority=rank)
    stream.buffer_bytes = pool.settings.stream_buffer_bytes
    stream.on_room = partial(mind_reader, stream, pool, request)
    stream.on_cancel = partial(pool.cancel, request)
    return put(pool, request)


def put(pool: WorkerPool, request: Request) -> Pump | None:
    """Queue a request; returns the pool's `pump` when that can wait until all that has arrived is queued."""
    if pool.handler.joins:
        request.size = min(max(1, count_rows(request.dialect, request.payload)), pool.settings.batch_size)
    if not pool.put(request):
        return pool.pump
    pool.pump()
    return None


def begin_in_sequence(pool: WorkerPool, request: Request, sequence_id: str, *, start: bool | None, end: bool, named: bool = True) -> None:
    """Make a request one of a sequence, which ends with it if `end`; its handler sees so by TorchServe's headers. Raises ServeError."""
    sequence = request.sequence = pool.sequence(sequence_id, start=start, named=named)
    first = not sequence.begun and not sequence.busy
    said = ((SEQUENCE_ID, sequence_id), (SEQUENCE_START, str(first).lower()), (SEQUENCE_END, str(end).lower()))
    request.headers = tuple(pair for pair in request.headers if pair[0] not in (SEQUENCE_ID, SEQUENCE_START, SEQUENCE_END)) + said
    request.ends_sequence = end


def check_free(version: ModelVersion) -> None:
    """Raise InvalidInput when a model takes no requests that are of no sequence; in Triton's words."""
    if version.archive.config.sequence_batching:
        text = f"inference request to model '{version.name}' must specify a non-zero or non-empty correlation ID: parameter 'sequence_id'"
        raise InvalidInput(text, field="parameters.sequence_id")


def mind_reader(stream: Stream, pool: WorkerPool, request: Request, room: bool) -> None:
    """Pause a request whose caller does not keep up, or end it at once when its model says so."""
    if room or pool.settings.on_slow_reader != "end":
        pool.pause(request, paused=not room)
        return
    message = f"{pool.label}: more than {pool.settings.stream_buffer_bytes} bytes wait for the caller to read."
    stream.answer(Reply(error=SlowReader(message, request_id=request.request_id)))
    pool.cancel(request)


def end_with_error(context: grpc.ServicerContext, error: ServeError) -> NoReturn:
    """End a call with an error's code, message and details."""
    end_call(context, int(error.code), short(error.message), encode_status(error))


def end_call(context: grpc.ServicerContext, code: int, message: str, details: bytes) -> NoReturn:
    """End a call with a status and serialized google.rpc.Status details."""
    context.set_trailing_metadata(((DETAILS_KEY, details),))
    context.abort(CODES[code], message)
    raise AssertionError  # abort raises
