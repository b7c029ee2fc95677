"""Runs the handler on one batch: decode every request, call the handler, check its results, encode every reply.

Whatever a handler or a request does wrong ends as the Reply of the requests concerned; nothing is raised but by the way to the server.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from time import monotonic, monotonic_ns

from servegrpc.engine.channel import LEFT, Item
from servegrpc.errors import InvalidInput, RequestCancelled, RequestExpired, ServeError, SlowReader
from servegrpc.handlers.streaming import FINISHED, NOTHING, Last
from servegrpc.reply import Reply
from servegrpc.worker.answers import Answers, Took, caller_left, check_count, refused_row
from servegrpc.worker.batch_call import SENT, BatchCall, Outlet
from servegrpc.worker.context import Context, RequestProcessor, all_distinct
from servegrpc.worker.loader import Entry

STALL_SECONDS = 10.0  # how long the handler waits for a caller who takes nothing, unless the model says to pause


@dataclass(frozen=True, slots=True)
class Runner:
    """One loaded handler. With `borrow` it gets large inputs as views of shared memory, valid until it returns.

    With `isolate`, requests of a batch on which it raises are run again one by one, so that those it can answer are answered.
    `stall_seconds` is how long it waits for a caller that shares its batch with nobody and takes nothing.
    """

    entry: Entry
    context: Context
    answers: Answers
    borrow: bool = False
    isolate: bool = False
    stall_seconds: float = STALL_SECONDS

    def run(self, items: Sequence[Item], outlet: Outlet, first_index: int = 0) -> list[Reply]:
        """Run the requests whose indexes begin at `first_index`; returns the final replies that have not been sent, in order."""
        outcomes: dict[int, object] = {}
        live = list(range(len(items)))
        took = Took()
        while live:
            rows = self._decode(items, live, outcomes, outlet, first_index)
            call = BatchCall([items[index] for index in live], [first_index + index for index in live], outlet, self._send)
            started = monotonic_ns()
            try:
                results = self._call(rows, call) if live else []
            except InvalidInput as error:
                row = refused_row(error, len(live))
                if row is not None and not call.sent:
                    outcomes[live.pop(row)] = error  # that row alone is refused; the others are run again
                    continue
                results = call.outcomes(error)
            except (Exception, GeneratorExit) as error:  # noqa: BLE001 - a handler may raise anything, and the worker must serve on
                told = self.answers.handler_error(error, call.items)
                if self.isolate and len(live) > 1 and not call.sent:
                    return self._run_apart(items, outlet, first_index)
                results = call.outcomes(told)
            took = Took(monotonic_ns() - started, len(live))
            outcomes.update(zip(live, results, strict=True))
            call.open.clear()  # a thread of the handler's own may send yet
            break
        replies = []
        for index, item in enumerate(items):
            if outcomes[index] is not SENT:
                position = live.index(index) if self._responses() and index in live else -1
                reply = self._final(item, outcomes[index], took, position)
                reply.index = first_index + index
                replies.append(reply)
        return replies

    def _run_apart(self, items: Sequence[Item], outlet: Outlet, first_index: int) -> list[Reply]:
        """Run each request by itself, and answer it at once: the time-out counts from one answer to the next."""
        for index, item in enumerate(items, first_index):
            if replies := self.run([item], outlet, index):
                outlet.send(replies)
        return []

    def _decode(
        self, items: Sequence[Item], live: list[int], outcomes: dict[int, object], outlet: Outlet, first_index: int
    ) -> list[object]:
        """Return the rows of the items; one that cannot be decoded, or that nobody waits for, leaves `live` for `outcomes`."""
        rows: list[object] = []
        now = monotonic()
        for index in list(live):
            item = items[index]
            try:
                if item.deadline <= now:
                    raise RequestExpired("the deadline passed before the handler got the request; it was not run")
                if outlet.flags(first_index + index) & LEFT:
                    raise RequestCancelled("the caller left before the handler got the request; it was not run")
                rows.append(self.answers.decode(item, borrow=self.borrow))
            except (InvalidInput, RequestExpired, RequestCancelled) as error:
                live.remove(index)
                outcomes[index] = error
        return rows

    def _call(self, rows: list[object], call: BatchCall) -> Sequence[object]:
        request_ids = all_distinct([item.request_id for item in call.items])
        self.context.begin_batch(request_ids, [dict(item.headers) for item in call.items], call)
        results = self.entry(rows, self.context)
        if isinstance(results, Generator):
            return self._drive(results, call)
        results = check_count(results, len(call.items))
        if len(call.open) == len(call.items):
            return results
        return [result if position in call.open else SENT for position, result in enumerate(results)]  # some were sent their last

    def _drive(self, steps: Generator[object, None, object], call: BatchCall) -> list[object]:
        """Send what a handler yields, step by step, until all streams have ended or their callers have left."""
        started = monotonic_ns()
        try:
            for entries in steps:
                took = Took(monotonic_ns() - started, len(call.items))
                self._step(call, check_count(entries, len(call.items)), took)
                if not call.open:
                    break
        finally:
            steps.close()
        return call.outcomes(None)

    def _step(self, call: BatchCall, entries: Sequence[object], took: Took) -> None:
        replies = []
        for position in sorted(call.open):
            entry = caller_left() if call.has_left(position) else entries[position]
            replies += self._replies_to(call, position, entry, took)
        self._send_now(call, replies, took)

    def _send_now(self, call: BatchCall, replies: list[Reply], took: Took) -> None:
        """Send messages, and wait for those who cannot take more, each for as long as it may hold up the others; then it is ended."""
        if replies:
            call.sent = True
            call.outlet.send(replies)
        for position in [position for position in call.open if call.is_paused(position)]:
            alone = len(call.open) == 1
            began = monotonic()
            call.outlet.wait(call.indexes[position], self.stall_seconds if alone else call.patience[position])
            if not alone:
                call.patience[position] -= monotonic() - began
            if call.is_paused(position) and not call.has_left(position):
                slow = SlowReader(f"the caller reads too slowly{'' if alone else ', and others share its batch'}")
                call.outlet.send(self._replies_to(call, position, slow, took))

    def _replies_to(self, call: BatchCall, position: int, entry: object, took: Took) -> list[Reply]:
        """Return what one entry of a step means for its caller."""
        item = call.items[position]
        if entry is NOTHING:
            return []
        if not (isinstance(entry, Last | Exception) or entry is FINISHED):
            if not item.streamed:
                call.last[position] = entry
                return []
            try:
                reply = self.answers.message(item, entry, took)
            except ServeError as error:
                return self._replies_to(call, position, error, took)
        else:
            outcome = entry.value if isinstance(entry, Last) else call.outcome(position, entry if isinstance(entry, Exception) else None)
            reply = self._final(item, outcome, took, position)
            call.open.discard(position)
        reply.index = call.indexes[position]
        return [reply]

    def _final(self, item: Item, outcome: object, took: Took, position: int) -> Reply:
        if isinstance(outcome, Exception) and not isinstance(outcome, ServeError):
            outcome = self.answers.handler_error(outcome, [item])
        responses = self._responses()
        return self.answers.reply(item, outcome, took, responses[position] if 0 <= position < len(responses) else None)

    def _responses(self) -> Sequence[RequestProcessor]:
        """What the handler has set on its responses; nothing for most batches."""
        return self.context.responses()

    def _send(self, call: BatchCall, results: object) -> None:
        """Send one message to each caller that takes a stream, from within the handler."""
        took = Took(0, len(call.items))
        replies = []
        for position, value in enumerate(check_count(results, len(call.items))):
            if position in call.open and call.items[position].streamed and not call.has_left(position):
                replies += self._replies_to(call, position, value, took)
        self._send_now(call, replies, took)
