"""Runs the handler on one batch: decode every request, call the handler, check its results, encode every reply.

Whatever a handler or a request does wrong ends as the Reply of the requests concerned; nothing is raised.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from time import monotonic_ns

from servegrpc.engine.channel import Item
from servegrpc.errors import HandlerError, InvalidHandlerResult, InvalidInput, ServeError
from servegrpc.reply import Reply
from servegrpc.wire import native
from servegrpc.wire.dialect import About
from servegrpc.wire.status import encode_status
from servegrpc.worker.context import Context
from servegrpc.worker.loader import Entry

EXPOSED_LENGTH = 1000  # characters of an exception's message that a caller sees, when the model config lets it


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
        outcomes: list[object] = [self._decode(item) for item in items]
        live = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, ServeError)]
        handler_nanoseconds = 0
        batch_size = len(live)
        while live:
            started = monotonic_ns()
            try:
                results = self._call([outcomes[index] for index in live], [items[index] for index in live])
            except InvalidInput as error:
                if error.row is None or not 0 <= error.row < len(live):
                    outcomes = self._fail_all(outcomes, live, error)
                    break
                outcomes[live.pop(error.row)] = error  # that row alone is refused; the others are run again
                continue
            except Exception as error:  # noqa: BLE001 - a handler may raise anything, and the worker must serve on
                outcomes = self._fail_all(outcomes, live, self._handler_error(error, [items[index] for index in live]))
                break
            handler_nanoseconds = monotonic_ns() - started
            for index, result in zip(live, results, strict=True):
                outcomes[index] = result
            break
        served = set(live)
        return [
            self._reply(item, outcome, handler_nanoseconds, batch_size if index in served else 1)
            for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True))
        ]

    def _decode(self, item: Item) -> object:
        try:
            return native.decode(item.payload, borrow=self.borrow)
        except InvalidInput as error:
            return error

    def _call(self, rows: list[object], items: Sequence[Item]) -> list[object]:
        self.context.begin_batch([item.request_id for item in items], [dict(item.headers) for item in items])
        results = self.entry(rows, self.context)
        if not isinstance(results, list):
            raise InvalidHandlerResult(f"the handler returned {type(results).__name__}; it must return a list with one result per request")
        if len(results) != len(rows):
            raise InvalidHandlerResult(f"the handler returned {len(results)} results for {len(rows)} requests; it must return one for each")
        return results

    def _fail_all(self, outcomes: list[object], live: Sequence[int], error: ServeError) -> list[object]:
        return [error if index in live else outcome for index, outcome in enumerate(outcomes)]

    def _handler_error(self, error: Exception, items: Sequence[Item]) -> ServeError:
        ids = ", ".join(item.request_id for item in items)
        sys.stderr.write(f"handler failed; request ids: {ids}\n{''.join(traceback.format_exception(error))}")
        sys.stderr.flush()
        if isinstance(error, ServeError):
            return error
        if self.expose_errors:
            return HandlerError(f"the handler raised {type(error).__name__}: {error}"[:EXPOSED_LENGTH], exception=type(error).__name__)
        return HandlerError("the handler failed; the server's log has the trace under the request id")

    def _reply(self, item: Item, outcome: object, handler_nanoseconds: int, batch_size: int) -> Reply:
        if not isinstance(outcome, ServeError):
            about = About(self.model_name, self.model_version, item.request_id, item.queued_microseconds, handler_nanoseconds, batch_size)
            try:
                return Reply(native.encode(outcome, about))
            except InvalidHandlerResult as invalid:
                outcome = invalid
        error = copy(outcome)  # one error may stand for many requests
        error.message = (
            f'Model "{self.model_name}" version {self.model_version}: {outcome.message.rstrip(".")}. Request id: {item.request_id}.'
        )
        names = {"model_name": self.model_name, "model_version": self.model_version}
        error.metadata = {**outcome.metadata, **names, "worker": str(self.worker_id), "request_id": item.request_id}
        return Reply(encode_status(error), int(error.code), error.message)
