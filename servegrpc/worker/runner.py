"""Runs the handler on one batch: decode every request, call the handler, check its results, encode every reply.

Whatever a handler or a request does wrong ends as the Reply of the requests concerned; nothing is raised.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic_ns

from servegrpc.engine.channel import Item
from servegrpc.errors import HandlerError, InvalidHandlerResult, InvalidInput, ServeError
from servegrpc.reply import Reply
from servegrpc.wire.codecs import CODECS
from servegrpc.wire.dialect import About
from servegrpc.worker.context import Context
from servegrpc.worker.loader import Entry

LONGEST_MESSAGE = 800  # characters of what a handler said that a caller sees


@dataclass(frozen=True, slots=True)
class Runner:
    """One loaded handler. With `borrow` it gets large inputs as views of shared memory, valid until it returns."""

    entry: Entry
    context: Context
    model_name: str
    model_version: str
    worker_id: int
    expose_errors: bool
    borrow: bool = False

    def run(self, items: Sequence[Item]) -> list[Reply]:
        """Return one reply per item, in order."""
        outcomes: dict[int, object] = {}
        live = list(range(len(items)))
        handler_nanoseconds = batch_size = 0
        while live:
            rows = self._decode([items[index] for index in live], live, outcomes)
            batch_size = len(live)
            started = monotonic_ns()
            try:
                results = self._call(rows, [items[index] for index in live]) if live else []
            except InvalidInput as error:
                row = getattr(error, "row", None)  # a subclass may have left it out
                if isinstance(row, int) and 0 <= row < len(live):
                    outcomes[live.pop(row)] = error  # that row alone is refused; the others are run again
                    continue
                results = [error] * len(live)
            except Exception as error:  # noqa: BLE001 - a handler may raise anything, and the worker must serve on
                results = [self._handler_error(error, [items[index] for index in live])] * len(live)
            handler_nanoseconds = monotonic_ns() - started
            outcomes.update(zip(live, results, strict=True))
            break
        return [self._reply(item, outcomes[index], handler_nanoseconds, batch_size) for index, item in enumerate(items)]

    def _decode(self, items: Sequence[Item], live: list[int], outcomes: dict[int, object]) -> list[object]:
        """Return the rows of the items; one that cannot be decoded leaves `live` for `outcomes`."""
        rows: list[object] = []
        for index, item in zip(list(live), items, strict=True):
            try:
                rows.append(CODECS[item.dialect].decode(item.payload, borrow=self.borrow))
            except InvalidInput as error:
                live.remove(index)
                outcomes[index] = error
        return rows

    def _call(self, rows: list[object], items: Sequence[Item]) -> list[object]:
        self.context.begin_batch([item.request_id for item in items], [dict(item.headers) for item in items])
        results = self.entry(rows, self.context)
        if not isinstance(results, list):
            raise InvalidHandlerResult(f"the handler returned {type(results).__name__}; it must return a list with one result per request")
        if len(results) != len(items):
            raise InvalidHandlerResult(
                f"the handler returned {len(results)} results for {len(items)} requests; it must return one for each"
            )
        return results

    def _handler_error(self, error: Exception, items: Sequence[Item]) -> ServeError:
        _log_trace(error, "handler failed", [item.request_id for item in items])
        if isinstance(error, ServeError):
            return error
        if self.expose_errors:
            return HandlerError(f"the handler raised {type(error).__name__}: {_text(error)}", exception=type(error).__name__)
        return HandlerError("the handler failed; the server's log has the trace under the request id")

    def _reply(self, item: Item, outcome: object, handler_nanoseconds: int, batch_size: int) -> Reply:
        if not isinstance(outcome, ServeError):
            name, version = self.model_name, self.model_version
            about = About(name, version, item.request_id, item.queued_microseconds, handler_nanoseconds, batch_size)
            try:
                return Reply(CODECS[item.dialect].encode(outcome, about))
            except InvalidHandlerResult as error:
                outcome = error
            except Exception as error:  # noqa: BLE001 - a result may be any object, and fail in any way when it is read
                _log_trace(error, "result cannot be sent", [item.request_id])
                outcome = InvalidHandlerResult(f"the handler's result cannot be sent: {type(error).__name__}: {_text(error)}")
        try:
            return self._error_reply(item, outcome)
        except Exception as error:  # noqa: BLE001 - a handler's own error object may hold anything
            _log_trace(error, "error cannot be sent", [item.request_id])
            return self._error_reply(item, HandlerError("the handler raised an error that cannot be sent; the server's log has the trace"))

    def _error_reply(self, item: Item, error: ServeError) -> Reply:
        about = f'Model "{self.model_name}" version {self.model_version}'
        message = f"{about}: {_text(error.message).rstrip('.')}. Request id: {item.request_id}."
        names = {"model_name": self.model_name, "model_version": self.model_version, "worker": str(self.worker_id)}
        return CODECS[item.dialect].status(error, message, {**names, "request_id": item.request_id})


def _text(said: object) -> str:
    """Return what a handler's code said as text that can be sent, whatever it is."""
    try:
        return str(said)[:LONGEST_MESSAGE].encode("utf-8", "replace").decode()
    except Exception as error:  # noqa: BLE001 - __str__ is a handler's code too
        return f"(no message: {type(error).__name__} in its __str__)"


def _log_trace(error: Exception, event: str, request_ids: Sequence[str]) -> None:
    sys.stderr.write(f"{event}; request ids: {', '.join(request_ids)}\n")
    traceback.print_exception(error)
