"""What the pool asks of an engine: to run workers somewhere and to tell what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from servegrpc.core.placement import Device
from servegrpc.core.request import Request
from servegrpc.reply import Reply


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """The handler a worker runs: all of it goes to the child as plain data."""

    model_name: str
    model_version: str
    folder: str
    handler: str
    manifest: dict[str, object]
    model_config: dict[str, object]
    expose_errors: bool
    device_type: str
    device_ids: tuple[int, ...]
    python_path: tuple[str, ...] = ()  # folders to import from, after the model's own


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker to start."""

    worker_id: int
    handler: HandlerSpec
    batch_size: int
    device: Device
    threads: int
    response_timeout_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended: `cause` for people ("signal 9 (SIGKILL)"), `load_error` when its handler could not be loaded."""

    cause: str
    load_error: str = ""
    output: Sequence[str] = ()  # its last lines
    started: Mapping[int, int] = field(default_factory=dict)  # by ticket: how many requests of a hand-over may have reached its handler
    blameless: bool = False  # it ended with what it was forked from, not by itself


class LoadedHandler(NamedTuple):
    """What a worker tells of its handler. With `slots` it is live: it takes further requests while it works on others, so many at once.

    `yields` is whether it may have several messages for one request, `joins` whether requests are joined for it along their rows.
    """

    slots: int = 0
    yields: bool = False
    joins: bool = False


class UnknownRequestError(Exception):
    """A worker has answered what it was not asked."""


class Worker(Protocol):
    """A running worker, as an engine makes it. No method blocks."""

    @property
    def pid(self) -> int:
        """The process id; 0 while it is not started."""

    @property
    def started(self) -> float:
        """When its process began, in monotonic seconds; inf while it has not."""

    def send(self, ticket: int, batch: Sequence[Request]) -> bool:
        """Hand over requests, `batch_size` for each call of the handler; at most two hand-overs are in flight.

        A live worker takes any number of hand-overs, of as many requests in all as it has slots. `ticket` is new for each
        hand-over. Returns False when the worker has ended, and its exit will be reported: then nothing was sent.
        """

    def set_flags(self, ticket: int, index: int, *, left: bool = False, paused: bool = False) -> None:
        """Tell it that the caller of a request it has not answered has left, or cannot take more messages for now."""

    def end_sequence(self, sequence_id: str) -> None:
        """Tell it that no more requests of a sequence will come."""

    def stop(self, grace_seconds: float) -> None:
        """Let it end after what it was sent; TERM and then KILL it when that takes longer."""

    def kill(self, cause: str) -> None:
        """End it now; `cause` is what its exit will tell."""


class WorkerEvents(Protocol):
    """What an engine tells about a worker, in order, from one thread per worker. After `exited` nothing more comes."""

    def ready(self, worker_id: int, handler: LoadedHandler) -> None:
        """The handler is loaded."""

    def answered(self, worker_id: int, replies: Sequence[Reply]) -> None:
        """Some of its requests, named by ticket and index, are answered, or have got a message of their stream.

        A live worker that works without that says so about once a second, by no replies.
        Raises UnknownRequestError when it does not have them.
        """

    def measured(self, worker_id: int, records: Sequence[object]) -> None:
        """Its handler has recorded metrics: [name, type, unit, value, [[dimension, value], …]] each, as it says."""

    def exited(self, worker_id: int, exit_: WorkerExit) -> None:
        """The worker is gone."""


class Engine(Protocol):
    """Where workers run. `start` returns at once; the rest comes through the events."""

    def start(self, spec: WorkerSpec, events: WorkerEvents) -> Worker:
        """Start a worker; what goes wrong later is reported by `exited`. Raises, and nothing is started, when it cannot even begin."""

    def close(self) -> None:
        """End all workers that are left, and wait for them. `start` raises RuntimeError from then on."""
