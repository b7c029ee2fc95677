"""The workers of one model version, kept at the number asked for.

submit → queue.put → assign ─► worker.send            (caller's thread)
worker answered → request.answer; release → assign    (worker's reader thread)
scale, worker ready, worker exited → reconcile        (any thread)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from weakref import ref

from servegrpc.core.batching import BatchQueue
from servegrpc.core.crew import STOP_GRACE_SECONDS, Crew
from servegrpc.core.engine import Engine, HandlerSpec, LoadedHandler, WorkerExit
from servegrpc.core.model import ModelSettings, State
from servegrpc.core.outcomes import Outcomes
from servegrpc.core.pace import Pace, ServiceTime
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.request import Request, why_left
from servegrpc.core.sequences import LiveSequence
from servegrpc.core.stats import PoolStats
from servegrpc.core.timer import Timer
from servegrpc.core.verdicts import Verdicts
from servegrpc.core.waiting_bytes import WaitingBytes
from servegrpc.core.worker import HandOver, WorkerRecord, WorkerState, watch
from servegrpc.errors import PoisonRequest, QueueFull, ServeError
from servegrpc.reply import Reply

LARGE_BYTES = 64 * 1024  # of a request, on average: to hand it over costs more than to wake a worker


class WorkerPool:
    """The queue and the workers of one version. `on_change` is called, without the lock, after every change of state or numbers."""

    def __init__(
        self,
        spec: HandlerSpec,
        settings: ModelSettings,
        engine: Engine,
        slots: DeviceSlots,
        timer: Timer,
        on_change: Callable[[], None],
        server_bytes: WaitingBytes | None = None,
    ) -> None:
        self.spec = spec
        self.settings = settings
        self._verdicts = Verdicts(spec.model_name, spec.model_version)
        self.label = self._verdicts.label
        self.queue: BatchQueue[WorkerRecord] = BatchQueue(
            settings.batch_size,
            settings.max_batch_delay_seconds,
            settings.max_queue_size,
            settings.max_queue_bytes,
            server_bytes=server_bytes,
            only_idle=settings.use_job_ticket,
        )
        self._crew = Crew(spec, settings, engine, slots, timer, self)
        self._timer = timer
        self._on_change = on_change
        self.stats = PoolStats()
        self._outcomes = Outcomes(self._verdicts, settings, self.queue, self.stats, timer, self.pump)
        self.sequences = self._outcomes.sequences
        self._pace = Pace()
        self._service = ServiceTime()
        self._streams = False  # whether a handler has sent several messages for one request; it need not yield them
        self._wake_at = 0.0
        self.handler = LoadedHandler()  # as the last worker that has loaded it tells
        self.unfinished = 0  # requests that waited in vain when the version went

    @property
    def state(self) -> State:
        """Where the version is in its life."""
        return self._crew.state

    @property
    def target(self) -> int:
        """How many workers are asked for."""
        return self._crew.target

    @property
    def cause(self) -> str:
        """Why the version has failed, or has fewer workers than it was asked for."""
        return self._crew.cause

    @property
    def abandoned(self) -> bool:
        """Whether it could not be loaded, and nothing will read its files any more."""
        return self._crew.abandoned

    # --- requests

    def submit(self, request: Request) -> None:
        """Take one request, without blocking; it is answered through `request.answer`.

        Raises QueueFull, WouldMissDeadline, NoWorkers, Draining or ModelLoadFailed; the request is then not taken.
        """
        self.put(request)
        self.pump()

    def put(self, request: Request) -> bool:
        """Do the first half of `submit`; the caller does the other, `pump`, soon.

        Returns whether a full batch and an idle worker wait for each other: then at once.
        """
        crew, stats = self._crew, self.stats
        stats.accepted += 1  # before a worker can answer it
        try:
            if (crew.state is not State.ACTIVE or not crew.target) and not crew.serving:
                raise self._not_serving()
            if request.deadline - request.arrived < self._service.seconds:
                self._refuse_hopeless(request)
            if request.sequence:
                self._check_sequence(request)
            self.queue.put(request)
            if request.sequence and request.ends_sequence:
                self.sequences.retire(request.sequence)
                self._outcomes.end_if_done(request.sequence)
            if request.expires:
                of = ref(request)
                self._timer.call_at(request.deadline, partial(self._expire, of), of)
        except (ServeError, LookupError) as error:
            stats.accepted -= 1
            self._outcomes.end_if_done(request.sequence)
            refusal = self._refusal(error)
            stats.refused[refusal.reason] += 1
            raise refusal from None
        if crew.state is State.FAILED:
            self._give_up_waiting()  # it failed between the check and the put
        return self.queue.has_idle_worker and len(self.queue) >= self.settings.batch_size

    def _not_serving(self) -> ServeError:
        return self._verdicts.not_serving(self.state, self.cause, self._crew.retry_after())

    def _refuse_hopeless(self, request: Request) -> None:
        seconds = 0.0 if request.streamed else self._service.known(request.arrived)
        if request.deadline - request.arrived < seconds:
            raise self._verdicts.late(request, request.arrived, seconds)

    def _check_sequence(self, request: Request) -> None:
        waiting, most = len(request.sequence.waiting) if request.sequence else 0, self.settings.max_sequence_queue_size
        if waiting >= most:
            raise self._verdicts.sequence_full(request, waiting, most, self.expected_wait())

    def _refusal(self, error: ServeError | LookupError) -> ServeError:
        """Return what the caller is told when the queue has not taken a request."""
        if isinstance(error, QueueFull):
            return self._verdicts.queue_full(error, self.expected_wait())
        if isinstance(error, ServeError):
            return error
        sequence: LiveSequence = error.args[0]
        if sequence.lost:
            self.sequences.close(sequence, "lost: its worker is gone")  # the table may not know yet; nobody else shall be told
            return self._outcomes.sequence_lost(sequence, "its worker is gone")
        try:
            self.sequences.get(sequence.id)  # raises what became of it
        except ServeError as ending:
            return ending
        return self._verdicts.sequence_anew(sequence.id)

    def cancel(self, request: Request) -> bool:
        """Drop a request whose caller left. Returns False when a worker has it already; it is then told, and answers as usual."""
        request.left_code = why_left(request.deadline)
        if not self.queue.cancel(request):
            any(record.set_flags(request, left=True) for record in self.records())
            return False
        self.stats.replies[request.left_code] += 1
        self.stats.expired += request.deadline <= monotonic()
        self._outcomes.end_if_done(request.sequence)
        self._outcomes.fail_unbegun()
        if not self.target:
            self._leave()
        return True

    def _expire(self, of: ref[Request]) -> None:
        """End a request that still waits at its own deadline."""
        request = of()  # none: it has ended
        if request and self.queue.cancel(request, left=False):
            self.stats.expired += 1
            self._outcomes.fail(request, self._verdicts.late(request, request.deadline, 0.0))
            self._outcomes.fail_unbegun()
            if not self.target:
                self._leave()

    def pause(self, request: Request, *, paused: bool) -> None:
        """Tell the worker that has a streamed request whether its caller cannot take more messages now."""
        any(record.set_flags(request, paused=paused) for record in self.records())

    def sequence(self, sequence_id: str, *, start: bool | None = None, named: bool = False) -> LiveSequence:
        """Return the sequence to put a request into; with `start` it begins anew, with None when there is none.

        One `named` by its caller, which no stream's end ends, ends when idle for long, whatever the model says.
        Raises SequenceLimit, SequenceUnknown or SequenceLost.
        """
        try:
            if start or (start is None and not self.sequences.has(sequence_id)):
                return self.sequences.start(sequence_id, named=named, announced=start is not None)
            return self.sequences.get(sequence_id)
        except ServeError as error:
            self.stats.refused[error.reason] += 1
            raise

    def expected_wait(self) -> float:
        """Seconds until a request that came now would be taken, from how long batches took lately."""
        ready = self._crew.count_ready()
        return self._pace.expected_wait(len(self.queue) / self.settings.batch_size, ready)

    def pump(self) -> None:
        """Hand over what the queue decides."""
        now = monotonic()
        service = self._service.known(now)
        assignment = self.queue.assign(now, calls=self._calls(), prefetch=self._pace.prefetch, service_seconds=service)
        if not all([self._hand_over(record, batch) for record, batch in assignment.batches]):  # noqa: C419 - each has its turn
            self.pump()
        self.stats.expired += len(assignment.dropped)
        for request in assignment.dropped:
            self._outcomes.fail(request, self._verdicts.late(request, now, service))
        if assignment.dropped:
            self._outcomes.fail_unbegun()
        if assignment.next_at != float("inf") and assignment.next_at != self._wake_at:
            self._wake_at = assignment.next_at
            self._timer.call_at(assignment.next_at, self.pump)
        if not self._crew.target:
            self._leave()

    def _calls(self) -> int:
        """Return how many batches a hand-over may hold.

        One, of a handler that may wait for a slow reader, with all that is behind it, or of large requests, for which a worker would keep
        as much memory.
        """
        alone = self._streams or self.handler.yields or self.queue.bytes > LARGE_BYTES * len(self.queue)
        return 1 if alone else self._pace.calls

    def _leave(self) -> None:
        if not (len(self.queue) and self.records()):
            self.reconcile()  # the last waiting request was taken, dropped or cancelled, and the workers may follow; or one is needed
        if self._crew.hopeless:
            self._give_up_waiting()  # it closed between the check and the put of a request

    def _hand_over(self, record: WorkerRecord, requests: list[Request]) -> bool:
        """Send requests; returns False when the worker has just gone and they are queued again."""
        now = monotonic()
        if not record.send(requests, now):
            self.queue.forget_worker(record)
            self._outcomes.put_back(requests, "its worker ended")
            if self._crew.hopeless:
                self._give_up_waiting()  # it was the last one, and its end has been dealt with
            return False
        self.stats.last_hand_over = now
        for request in requests:
            self.stats.queue_seconds.observe(now - request.arrived)
            if request.left:  # before the worker had it
                record.set_flags(request, left=True)
        if not record.watched:
            watch(ref(record), self.settings.response_timeout_seconds, self._timer)
        return True

    # --- worker events

    def ready(self, worker_id: int, handler: LoadedHandler) -> None:
        """A worker has loaded its handler."""
        self.handler = handler
        self._crew.note_ready(worker_id, handler.slots)
        self.pump()
        self._on_change()

    def answered(self, worker_id: int, replies: Sequence[Reply]) -> None:
        """A worker has answered some of its requests."""
        record = self._crew.records[worker_id]
        now = monotonic()
        pairs, finished = record.take(replies, now)
        if pairs and worker_id > self._crew.restarts.last_lost:
            self._crew.restarts.failures = 0
        for hand_over in finished:
            self._note_batches(hand_over, now)
        released = sum(not reply.more for reply in replies) if record.live else len(finished)
        for request, reply in pairs:
            if request.sequence and not reply.more:
                self.queue.advance(request.sequence, ran=not reply.unrun)
                self._outcomes.end_if_done(request.sequence)  # before the worker gets one of the same id
        for _ in range(released):
            if self.queue.release(record) and record.worker:
                record.worker.stop(STOP_GRACE_SECONDS)
        if released:
            self.pump()  # before answering: the worker waits, the callers have their replies either way
        for request, reply in pairs:
            if not reply.more:
                self._outcomes.answer(request, reply)
            elif request.message:
                request.begun = self._streams = True
                request.message(reply)
        if any(reply.unrun for reply in replies):
            self._outcomes.fail_unbegun()  # after the first ones, whose fault it is

    def measured(self, worker_id: int, records: Sequence[object]) -> None:  # noqa: ARG002 - the numbers of all workers are one
        """A worker's handler has recorded metrics."""
        self.stats.handler_metrics.add(records)

    def _note_batches(self, hand_over: HandOver, now: float) -> None:
        batches = self.stats.executed(hand_over.rows, self.settings.batch_size, now - hand_over.sent)
        self._pace.learn(now - hand_over.sent, batches)
        if self.settings.refuse_hopeless:
            self._service.learn(now - hand_over.sent, now)
        if len(hand_over.callers_left) == len(hand_over.requests):
            self.stats.wasted_batches += batches

    def exited(self, worker_id: int, exit_: WorkerExit) -> None:
        """A worker is gone: run again or answer what it ran, put back what it had not started, and replace it when it is missed."""
        record = self._crew.records[worker_id]
        running, untouched = record.end(exit_)
        for request in running:
            if request.sequence:
                self.queue.lose(request.sequence)
        self.queue.forget_worker(record)
        self._outcomes.put_back(untouched, exit_.cause)
        lost = self._outcomes.run_again(record, exit_, running)
        self.stats.losses += record.state is not WorkerState.STOPPING or bool(running)
        errors = [self._outcomes.loss_error(record, exit_, request) for request in lost]
        by_request = record.timed_out or any(isinstance(error, PoisonRequest) for error in errors)
        ids = [request.request_id for request in running]
        self._crew.note_end(record, exit_, ids, run_again=len(running) - len(lost), by_request=by_request)
        for request, error in zip(lost, errors, strict=True):
            self._outcomes.fail(request, error)
        self.reconcile()
        self.pump()

    # --- numbers and states

    def scale(self, target: int) -> None:
        """Ask for `target` workers; returns at once. Workers that go finish what they have, also what waits when all go.

        Raises Draining when the version is being unregistered.
        """
        if not self._crew.scale(target):
            raise self._not_serving()
        self.reconcile()

    def drain(self) -> None:
        """Take no new requests, finish those accepted, then stop all workers and become UNLOADED; returns at once."""
        self._crew.drain()
        self.reconcile()

    def kill(self) -> None:
        """Give up what waits and end all workers at once."""
        self._crew.drain(finish=False)
        self.reconcile()
        self._give_up_waiting()
        for record in self.records():
            if record.worker:
                record.worker.kill("the server was stopped")

    def wait(self, done: Callable[[], bool], timeout_seconds: float | None) -> bool:
        """Block until `done()`, checked after every change, or the time-out; returns whether it is done."""
        return self._crew.wait(done, timeout_seconds)

    def settled(self) -> bool:
        """Whether there are exactly as many ready workers as asked for, or the version has failed, or is unloaded."""
        return self._crew.settled()

    def records(self) -> list[WorkerRecord]:
        """The workers there are, oldest first."""
        return list(self._crew.records.values())

    def reconcile(self) -> None:
        """Start or stop workers so that there will be as many as wanted, and tell what that means for requests."""
        stops = self._crew.reconcile()
        self._outcomes.fail_lost("its worker was stopped")
        for record, grace_seconds in stops:
            if record.worker:
                record.worker.stop(grace_seconds)
        if self._crew.hopeless:
            self._give_up_waiting()
        self._on_change()

    def _give_up_waiting(self) -> None:
        """Answer all that wait with the reason why no worker will take them."""
        for request in self.queue.clear():
            self.unfinished += self.state in (State.DRAINING, State.UNLOADED)
            stopped = request.lost or self._crew.serving
            self._outcomes.fail(request, self._verdicts.stopped(request) if stopped else self._not_serving())
