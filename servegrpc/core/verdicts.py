"""What a pool tells the callers whose requests it refuses, drops or loses: one function for each case, all about one version."""

from __future__ import annotations

from dataclasses import dataclass

from servegrpc.core.engine import WorkerExit
from servegrpc.core.model import State
from servegrpc.core.request import Request
from servegrpc.errors import (
    Draining,
    ModelLoadFailed,
    NoWorkers,
    PoisonRequest,
    QueueFull,
    RequestCancelled,
    RequestExpired,
    ResponseTimeout,
    SequenceLimit,
    SequenceUnknown,
    ServeError,
    WorkerLost,
    WouldMissDeadline,
)

NOT_BEGUN = "has not begun: its first request was not run"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The errors of one version; `label` is how messages call it."""

    model_name: str
    model_version: str

    @property
    def label(self) -> str:
        """What messages call the version."""
        return f'Model "{self.model_name}" version {self.model_version}'

    @property
    def names(self) -> dict[str, object]:
        """What all errors carry as metadata."""
        return {"model_name": self.model_name, "model_version": self.model_version}

    def not_serving(self, state: State, cause: str, retry_after_seconds: float | None) -> ServeError:
        """No worker will take a request: the version has failed, drains, or was scaled to 0."""
        if state is State.FAILED:
            remedy = "It is tried again soon; or register it again." if retry_after_seconds else "Register it again or unregister it."
            message = f"{self.label} has failed: {cause} {remedy}"
            return ModelLoadFailed(message, cause=cause, retry_after_seconds=retry_after_seconds).about(**self.names)
        if state in (State.DRAINING, State.UNLOADED):
            return Draining(f"{self.label} is being unregistered and takes no new requests.").about(**self.names)
        return NoWorkers(f"{self.label} has no workers; scale it to at least 1.").about(**self.names)

    def stopped(self, request: Request) -> ServeError:
        """The version has stopped before a worker took the request, or took it for the second time."""
        if request.lost:
            message = f"{self.label}: worker {request.lost.worker_id} ended while it ran the request: {request.lost.cause}."
            return WorkerLost(f"{message} Send it again if it may run twice.", cause=request.lost.cause).about(
                **self.names, worker=request.lost.worker_id, request_id=request.request_id
            )
        return Draining(f"{self.label} has stopped.").about(**self.names)

    def queue_full(self, error: QueueFull, retry_after_seconds: float) -> QueueFull:
        """As many requests, or bytes of them, wait as may; `error` says which."""
        message = f"{self.label}: {error.message}."
        return QueueFull(message, retry_after_seconds=retry_after_seconds).about(**error.metadata, **self.names)

    def sequence_full(self, request: Request, waiting: int, most: int, retry_after_seconds: float) -> SequenceLimit:
        """As many requests of the request's sequence wait as may."""
        sequence_id = request.sequence.id if request.sequence else ""
        message = f'{self.label}: {waiting} requests of sequence "{sequence_id}" wait already.'
        limit = SequenceLimit(message, retry_after_seconds=retry_after_seconds)
        return limit.about(**self.names, sequence_id=sequence_id, max_sequence_queue_size=most)

    def sequence_anew(self, sequence_id: object) -> SequenceUnknown:
        """The request's sequence was started anew before the request was queued."""
        return SequenceUnknown(f"{self.label}: the sequence was started anew.", sequence_id=sequence_id).about(**self.names)

    def sequence_ended(self, sequence_id: str) -> SequenceUnknown:
        """The request's sequence was ended while the request waited."""
        message = f'{self.label}: sequence "{sequence_id}" was ended while the request waited; it was not run.'
        return SequenceUnknown(message, sequence_id=sequence_id).about(**self.names)

    def sequence_not_begun(self, sequence_id: str) -> SequenceUnknown:
        """The request's sequence was to begin with one that was not run."""
        message = f'{self.label}: sequence "{sequence_id}" {NOT_BEGUN}. Start it anew.'
        return SequenceUnknown(message, sequence_id=sequence_id).about(**self.names)

    def left(self, request: Request) -> RequestCancelled:
        """The caller left while the request waited for a worker; nobody reads this."""
        message = f"{self.label}: the caller left while the request waited for a worker; it was not run."
        return RequestCancelled(message, request_id=request.request_id).about(**self.names)

    def late(self, request: Request, now: float, service_seconds: float) -> ServeError:
        """The deadline has passed, or passes before an answer could be there."""
        if request.deadline <= now:
            message = f"{self.label}: the deadline passed while the request waited for a worker; it was not run."
            return RequestExpired(message, request_id=request.request_id).about(**self.names)
        left = request.deadline - now
        message = (
            f"{self.label}: the deadline is in {left:.3g} s, and the quick answers take {service_seconds:.3g} s lately; it was not run."
        )
        error = WouldMissDeadline(message, request_id=request.request_id, service_seconds=f"{service_seconds:.3g}")
        return error.about(**self.names)

    def lost(self, worker_id: int, exit_: WorkerExit, request: Request, timeout_seconds: float | None) -> ServeError:
        """The worker that ran the request is gone; killed by us with `timeout_seconds`."""
        about = {**self.names, "worker": worker_id, "request_id": request.request_id}
        if timeout_seconds is not None:
            timeout = f"{timeout_seconds:g}s"
            message = f"{self.label}: the handler took longer than {timeout}, and its worker was replaced."
            return ResponseTimeout(message, response_timeout=timeout).about(**about)
        first = request.lost
        if first and not (first.blameless or exit_.blameless):
            message = (
                f"{self.label}: the request was run twice, the second time alone, and each time its worker ended: "
                f"worker {first.worker_id}: {first.cause}; worker {worker_id}: {exit_.cause}. Do not send it again."
            )
            poison = PoisonRequest(message, cause=exit_.cause, first_worker=first.worker_id, first_cause=first.cause)
            return poison.about(**about)
        message = f"{self.label}: worker {worker_id} ended while it ran the request: {exit_.cause}. Send it again if it may run twice."
        return WorkerLost(message, cause=exit_.cause).about(**about)
