"""A gRPC call as a request of the core, and its reply as the end of the call. Shared by all ways in."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from queue import SimpleQueue
from time import monotonic
from typing import NoReturn

import grpc

from servegrpc.core.batching import Request
from servegrpc.core.pool import WorkerPool
from servegrpc.core.registry import ModelRegistry
from servegrpc.errors import RequestCancelled, ServeError
from servegrpc.reply import Reply
from servegrpc.wire.dialect import Dialect
from servegrpc.wire.scan import Route
from servegrpc.wire.status import encode_status, short

DETAILS_KEY = "grpc-status-details-bin"
NOT_FORWARDED = ("user-agent", "authorization")
CODES = {code.value[0]: code for code in grpc.StatusCode}

call_note: ContextVar[tuple[str, str]] = ContextVar("call_note", default=("", ""))  # model and request id, for the access log

_ids = itertools.count(1)
_id_prefix = os.urandom(4).hex()


def new_request_id() -> str:
    """Return an id that no other request of this server has, and no other server is likely to give."""
    return f"{_id_prefix}-{next(_ids)}"


def forwarded_headers(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str], ...]:
    """Return the metadata that handlers see as request headers: all but gRPC's own and binary ones."""
    kept = []
    for key, value in metadata:  # a loop: most calls have nothing but a user agent
        if key not in NOT_FORWARDED and isinstance(value, str) and not key.startswith(("grpc-", ":")):
            kept.append((key, value))
    return tuple(kept)


def run_blocking(registry: ModelRegistry, dialect: Dialect, route: Route, raw: bytes, context: grpc.ServicerContext) -> bytes:
    """Send a request through its model's queue and wait for the reply on this thread; returns the encoded reply.

    When the caller leaves or its deadline passes while the request waits, it never reaches a handler. Ends the call with the
    status of a failed reply; raises ServeError for what the server itself refuses.
    """
    request_id = route.request_id or new_request_id()
    call_note.set((route.model_name, request_id))
    pool = registry.get(route.model_name, route.model_version).pool
    replies: SimpleQueue[Reply] = SimpleQueue()
    remaining = context.time_remaining()
    request = Request(
        raw,
        dialect,
        request_id,
        replies.put,
        deadline=math.inf if remaining is None else monotonic() + remaining,
        headers=forwarded_headers(context.invocation_metadata()),
    )
    cancel = _cancel(pool, request)
    heard = context.add_callback(cancel)
    pool.submit(request)
    if not heard or not context.is_active():
        cancel()  # the caller left before it could be cancelled
    reply = replies.get()
    if reply.error:
        raise reply.error
    if reply.code:
        end_call(context, reply.code, reply.message, reply.body)
    if reply.trailers:
        context.set_trailing_metadata(reply.trailers)
    return reply.body


def _cancel(pool: WorkerPool, request: Request) -> Callable[[], None]:
    def cancel() -> None:
        if pool.cancel(request):
            message = f"{pool.label}: the caller left while the request waited for a worker; it was not run."
            request.answer(Reply(error=RequestCancelled(message)))

    return cancel


def end_with_error(context: grpc.ServicerContext, error: ServeError) -> NoReturn:
    """End a call with an error's code, message and details."""
    end_call(context, int(error.code), short(error.message), encode_status(error))


def end_call(context: grpc.ServicerContext, code: int, message: str, details: bytes) -> NoReturn:
    """End a call with a status and serialized google.rpc.Status details."""
    context.set_trailing_metadata(((DETAILS_KEY, details),))
    context.abort(CODES[code], message)
    raise AssertionError  # abort raises
