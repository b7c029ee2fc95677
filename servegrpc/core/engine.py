"""What the pool asks of an engine: to run workers somewhere and to tell what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from servegrpc.core.batching import Request
from servegrpc.core.placement import Device
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


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended: `cause` for people ("signal 9 (SIGKILL)"), `load_error` when its handler could not be loaded."""

    cause: str
    load_error: str = ""
    output: Sequence[str] = ()  # its last lines
    untouched: int = 0  # how many of the requests it had, the last ones sent, never reached its handler
    blameless: bool = False  # it ended with what it was forked from, not by itself


class Worker(Protocol):
    """A running worker, as an engine makes it. No method blocks."""

    @property
    def pid(self) -> int:
        """The process id; 0 while it is not started."""

    def send(self, batch: Sequence[Request]) -> bool:
        """Hand over requests, `batch_size` for each call of the handler; at most two hand-overs are in flight.

        Returns False when the worker has ended, and its exit will be reported: then nothing was sent.
        """

    def stop(self, grace_seconds: float) -> None:
        """Let it end after what it was sent; TERM and then KILL it when that takes longer."""

    def kill(self, cause: str) -> None:
        """End it now; `cause` is what its exit will tell."""


class WorkerEvents(Protocol):
    """What an engine tells about a worker, in order, from one thread per worker. After `exited` nothing more comes."""

    def ready(self, worker_id: int) -> None:
        """The handler is loaded."""

    def answered(self, worker_id: int, replies: Sequence[Reply]) -> None:
        """The next `len(replies)` requests sent to it are answered, in the order sent."""

    def exited(self, worker_id: int, exit_: WorkerExit) -> None:
        """The worker is gone."""


class Engine(Protocol):
    """Where workers run. `start` returns at once; the rest comes through the events."""

    def start(self, spec: WorkerSpec, events: WorkerEvents) -> Worker:
        """Start a worker; what goes wrong later is reported by `exited`. Raises, and nothing is started, when it cannot even begin."""

    def close(self) -> None:
        """End all workers that are left, and wait for them."""
