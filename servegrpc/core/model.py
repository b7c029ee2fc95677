"""What is served: a version of a model, its settings and the states of its life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """The life of a model version; numbers are those of `servegrpc.v1.ModelState`."""

    LOADING = 1
    ACTIVE = 2
    DRAINING = 3
    UNLOADED = 4
    FAILED = 5


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.LOADING: frozenset({State.ACTIVE, State.DRAINING, State.FAILED}),
    State.ACTIVE: frozenset({State.LOADING, State.DRAINING, State.FAILED}),  # LOADING again when its last worker is lost
    State.DRAINING: frozenset({State.UNLOADED, State.FAILED}),
    State.UNLOADED: frozenset(),
    State.FAILED: frozenset({State.DRAINING, State.LOADING}),  # LOADING when it is tried again
}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a version batches and waits; `servegrpc.v1.ModelSettings` says what each means."""

    batch_size: int = 1
    max_batch_delay_seconds: float = 0.0
    response_timeout_seconds: float = 120.0
    startup_timeout_seconds: float = 120.0
    max_queue_size: int = 1000
    max_sequences: int = 10_000
    max_sequence_queue_size: int = 100
    sequence_max_idle_seconds: float = 0.0  # 0: no limit
    sequence_timeout_seconds: float = 0.0  # 0: no limit
    on_slow_reader: str = ""  # "pause" or "end"; else workers that run batches wait for a time
    stream_buffer_bytes: int = 4 * 1024 * 1024
    max_queue_bytes: int = 1024**3
    use_job_ticket: bool = False  # no request waits for a busy worker
    on_worker_loss: str = "retry"  # or "fail": what becomes of the requests that a lost worker was running
    refuse_hopeless: bool = True  # requests that have less time left than answers take
    cool_down_seconds: float = 60.0  # after which a version whose workers kept ending is tried again; 0: never
    max_retry_timeout_seconds: float | None = None  # how long workers may keep ending; None: five times


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One entry of the stream that watchers see: the state of a version after a change."""

    model_name: str
    model_version: str
    state: State
    ready_workers: int
    target_workers: int
    cause: str
    is_default: bool
    time: float  # seconds since the epoch
