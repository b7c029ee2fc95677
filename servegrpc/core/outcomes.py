"""What becomes of the requests of one model version: each is answered once and counted, and its sequence goes on or ends.

The pool calls it, with the replies of workers and with what no worker answers: requests that were lost, dropped or put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from servegrpc.core.batching import BatchQueue
from servegrpc.core.engine import WorkerExit
from servegrpc.core.model import ModelSettings
from servegrpc.core.request import Loss, Request
from servegrpc.core.sequences import LiveSequence, SequenceTable
from servegrpc.core.stats import PoolStats
from servegrpc.core.timer import Timer
from servegrpc.core.verdicts import NOT_BEGUN, Verdicts
from servegrpc.core.worker import WorkerRecord
from servegrpc.errors import ServeError
from servegrpc.reply import Reply


class Outcomes:
    """Answers requests, and ends the sequences of one version. `pump` is called when a sequence that had to wait may begin."""

    def __init__(
        self,
        verdicts: Verdicts,
        settings: ModelSettings,
        queue: BatchQueue[WorkerRecord],
        stats: PoolStats,
        timer: Timer,
        pump: Callable[[], None],
    ) -> None:
        self.sequences = SequenceTable(
            verdicts.label,
            settings.max_sequences,
            settings.sequence_max_idle_seconds,
            settings.sequence_timeout_seconds,
            self._sequence_ended,
            timer,
        )
        self._verdicts = verdicts
        self._settings = settings
        self._queue = queue
        self._stats = stats
        self._pump = pump

    def answer(self, request: Request, reply: Reply) -> None:
        """Answer a request, the only time."""
        code = request.left_code if request.left else int(reply.error.code) if reply.error else reply.code
        self._stats.answered(code, monotonic() - request.arrived, request.size)
        self.end_if_done(request.sequence)
        request.answer(reply)

    def fail(self, request: Request, error: ServeError) -> None:
        """Answer a request with an error."""
        self.answer(request, Reply(error=error))

    # --- sequences

    def end_if_done(self, sequence: LiveSequence | None) -> None:
        """End a sequence whose last request was queued, or whose first one was not run, when nothing of it waits or runs."""
        if sequence and not sequence.busy:
            if sequence.ending:
                self.sequences.close(sequence)
            elif not sequence.begun:
                self.sequences.close(sequence, NOT_BEGUN if sequence.announced else "")

    def _sequence_ended(self, sequence: LiveSequence) -> None:
        waiting = self._queue.close(sequence)
        record = sequence.worker
        if isinstance(record, WorkerRecord) and record.worker and not record.gone:
            record.worker.end_sequence(sequence.id)
        if sequence.next:
            self._queue.unblock(sequence.next)
            self._pump()
        for request in waiting:
            self.fail(request, self._verdicts.sequence_ended(sequence.id))

    def fail_unbegun(self) -> None:
        """Answer what waited behind the first requests of sequences, which are not run."""
        for request in self._queue.take_unbegun():
            if request.sequence:
                self.fail(request, self._verdicts.sequence_not_begun(request.sequence.id))

    def fail_lost(self, how: str) -> None:
        """End the sequences that have lost their worker, and answer what waited of them."""
        for sequence, waiting in self._queue.take_lost():
            self.sequences.close(sequence, f"lost: {how}")
            for request in waiting:
                self.fail(request, self.sequence_lost(sequence, how))

    def sequence_lost(self, sequence: LiveSequence, how: str) -> ServeError:
        """Return the error of a request whose sequence has lost its worker; no later request is told so."""
        return self.sequences.lost(sequence.id, f"lost: {how}").about(**self._verdicts.names)

    # --- what a worker had that is gone

    def put_back(self, requests: Sequence[Request], how: str) -> None:
        """Queue again what no worker has begun, but for requests whose caller has left, or whose sequence has lost its state."""
        for request in self._queue.put_back(requests):
            if request.left or not request.sequence:
                self.fail(request, self._verdicts.left(request))
            else:
                self.fail(request, self.sequence_lost(request.sequence, how))
        self.fail_unbegun()
        self.fail_lost(how)

    def run_again(self, record: WorkerRecord, exit_: WorkerExit, running: Sequence[Request]) -> list[Request]:
        """Queue what a lost worker was running, each alone, so that one bad request fails alone; returns those that must not run again."""
        now = monotonic()
        again, lost = list[Request](), list[Request]()
        may = self._settings.on_worker_loss == "retry" and not record.timed_out
        for request in running:
            once = may and not (request.lost or request.begun or request.sequence or request.left) and request.deadline > now
            (again if once else lost).append(request)
        for request in again:
            request.lost = Loss(record.id, exit_.cause, exit_.blameless)
        self._queue.put_alone(again)
        return lost

    def loss_error(self, record: WorkerRecord, exit_: WorkerExit, request: Request) -> ServeError:
        """Return the error of a request that a lost worker was running, and that is not run again."""
        if request.sequence:
            return self.sequence_lost(request.sequence, exit_.cause).about(worker=record.id, request_id=request.request_id)
        return self._verdicts.lost(record.id, exit_, request, self._settings.response_timeout_seconds if record.timed_out else None)
