"""Runs the handler on one batch: decode every request, call the handler, check its results, encode every reply.

Whatever a handler or a request does wrong ends as the Reply of the requests concerned; nothing is raised but by the way to the server.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, monotonic_ns

from servegrpc.engine.channel import LEFT, Item
from servegrpc.errors import InvalidInput, RequestCancelled, RequestExpired, ServeError, SlowReader
from servegrpc.handlers.streaming import FINISHED, NOTHING, Last
from servegrpc.reply import Reply
from servegrpc.worker.answers import Answers, Took, caller_left, check_count, left_before, refused_row, too_late
from servegrpc.worker.batch_call import SENT, BatchCall, Outlet
from servegrpc.worker.context import Context, RequestProcessor, all_distinct
from servegrpc.worker.joining import Joined
from servegrpc.worker.loader import Entry

NOTHING_DECODED: Mapping[int, object] = {}
STALL_SECONDS = 10.0  # how long the handler waits for a caller who takes nothing, unless the model says to pause


@dataclass(frozen=True, slots=True)
class Runner:
    """One loaded handler. With `borrow` it gets large inputs as views of shared memory, valid until it returns.

    With `isolate`, requests of a batch on which it raises are run again one by one, so that those it can answer are answered. Requests
    that are joined run group by group, each answered when it is done.
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
        batch = dict(enumerate(items, first_index))
        if not isinstance(self.entry, Joined):
            return self._run(batch, outlet)
        refused: dict[int, object] = {}
        rows = self._rows(batch, outlet, refused)
        groups = self.entry.groups(rows, refused)
        replies = [self._final(index, batch[index], outcome, Took()) for index, outcome in refused.items()]
        _mark_unrun(replies, called=set())
        for group in groups:
            if replies:
                outlet.send(replies)
            replies = self._run({index: batch[index] for index in group}, outlet, rows)
        return replies

    def _run(self, batch: Mapping[int, Item], outlet: Outlet, decoded: Mapping[int, object] = NOTHING_DECODED) -> list[Reply]:
        """Run requests, given by index, by one call of the handler; by further ones without those it refuses. Does as `run`."""
        outcomes: dict[int, object] = {}
        live: list[int] = []
        called: set[int] = set()
        took = Took()
        while rows := self._rows(batch, outlet, outcomes, decoded):
            live = list(rows)
            called.update(live)
            call = BatchCall([batch[index] for index in live], live, outlet, self._send)
            started = monotonic_ns()
            try:
                results = self._call(list(rows.values()), call)
            except InvalidInput as error:
                row = refused_row(error, len(live))
                if isinstance(self.entry, Joined):  # it knows no rows of requests
                    if self._may_run_apart(call):
                        return self._run_apart(batch, outlet)
                elif row is not None and not call.sent:
                    outcomes[live[row]] = error  # that row alone is refused; the others are run again
                    continue
                results = call.outcomes(error)
            except RequestCancelled as error:
                results = call.outcomes(error)
            except (Exception, GeneratorExit) as error:  # noqa: BLE001 - a handler may raise anything, and the worker must serve on
                told = self.answers.handler_error(error, call.items)
                if self.isolate and self._may_run_apart(call):
                    return self._run_apart(batch, outlet)
                results = call.outcomes(told)
            took = Took(monotonic_ns() - started, len(live))
            outcomes.update(zip(live, results, strict=True))
            break
        responses = dict(zip(live, self.context.responses(), strict=False))  # a handler may have set others
        final = ((index, item, outcomes[index]) for index, item in batch.items())
        replies = [self._final(index, item, outcome, took, responses.get(index)) for index, item, outcome in final if outcome is not SENT]
        if len(called) < len(batch):
            _mark_unrun(replies, called)
        return replies

    def _may_run_apart(self, call: BatchCall) -> bool:
        """Whether the handler may be called again with each request: none has got a part of its answer, or is of a sequence with state."""
        key = self.context.header_key_sequence_id
        return len(call.items) > 1 and not call.sent and all(name != key for item in call.items for name, _ in item.headers)

    def _run_apart(self, batch: Mapping[int, Item], outlet: Outlet) -> list[Reply]:
        """Run each request by itself, and answer it at once: the time-out counts from one answer to the next."""
        for index, item in batch.items():
            if replies := self._run({index: item}, outlet):
                outlet.send(replies)
        return []

    def _rows(
        self, batch: Mapping[int, Item], outlet: Outlet, outcomes: dict[int, object], decoded: Mapping[int, object] = NOTHING_DECODED
    ) -> dict[int, object]:
        """Return the rows of the requests that have no outcome yet; one is that it cannot be decoded, or that nobody waits.

        Those that are `decoded` are taken from there.
        """
        rows: dict[int, object] = {}
        now = monotonic()
        for index, item in batch.items():
            if index in outcomes:
                continue
            try:
                if item.deadline <= now:
                    raise too_late()
                if outlet.flags(index) & LEFT:
                    raise left_before()
                rows[index] = decoded[index] if index in decoded else self.answers.decode(item, borrow=self.borrow)
            except (InvalidInput, RequestExpired, RequestCancelled) as error:
                outcomes[index] = error
        now = monotonic()  # to decode large ones takes its time
        for index in [index for index in rows if batch[index].deadline <= now]:
            del rows[index]
            outcomes[index] = too_late()
        return rows

    def _call(self, rows: list[object], call: BatchCall) -> Sequence[object]:
        request_ids = all_distinct([item.request_id for item in call.items])
        self.context.begin_batch(request_ids, [dict(item.headers) for item in call.items], call)
        try:
            results = self.entry(rows, self.context)
            if isinstance(results, Generator):
                self._drive(results, call)
        finally:
            call.close()  # a thread of the handler's own may send yet
        if isinstance(results, Generator):
            return call.outcomes(None)
        results = check_count(results, len(call.items))
        if len(call.open) == len(call.items):
            return results
        return [result if position in call.open else SENT for position, result in enumerate(results)]  # some were sent their last

    def _drive(self, steps: Generator[object, None, object], call: BatchCall) -> None:
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

    def _step(self, call: BatchCall, entries: Sequence[object], took: Took) -> None:
        replies = []
        with call.lock:
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
                reply.index = call.indexes[position]
            except ServeError as error:
                return self._replies_to(call, position, error, took)
        else:
            outcome = entry.value if isinstance(entry, Last) else call.outcome(position, entry if isinstance(entry, Exception) else None)
            responses = self.context.responses()
            processor = responses[position] if position < len(responses) else None
            reply = self._final(call.indexes[position], item, outcome, took, processor)
            call.open.discard(position)
        return [reply]

    def _final(self, index: int, item: Item, outcome: object, took: Took, processor: RequestProcessor | None = None) -> Reply:
        if isinstance(outcome, Exception) and not isinstance(outcome, ServeError):
            outcome = self.answers.handler_error(outcome, [item])
        reply = self.answers.reply(item, outcome, took, processor)
        reply.index = index
        return reply

    def _send(self, call: BatchCall, results: object) -> None:
        """Send one message to each caller that takes a stream, from within the handler. Raises RequestCancelled when nobody waits more."""
        if call.open and all(call.items[position].streamed and call.has_left(position) for position in call.open):
            raise caller_left()
        took = Took(0, len(call.items))
        replies = []
        for position, value in enumerate(check_count(results, len(call.items))):
            if position in call.open and call.items[position].streamed and not call.has_left(position):
                replies += self._replies_to(call, position, value, took)
        self._send_now(call, replies, took)


def _mark_unrun(replies: Sequence[Reply], called: Container[int]) -> None:
    """Mark the replies of requests, by index, that the handler was not called with."""
    for reply in replies:
        reply.unrun = reply.index not in called
