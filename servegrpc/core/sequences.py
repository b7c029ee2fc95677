"""Sequences: requests that belong together, run by one worker, one after the other, in the order sent.

A session of `servegrpc.v1` is one; other dialects name theirs in each request. The table knows which there are; where each one's
requests wait is the business of `BatchQueue`.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from servegrpc.core.timer import Timer
from servegrpc.errors import SequenceLimit, SequenceLost, SequenceUnknown

if TYPE_CHECKING:
    from servegrpc.core.request import Request

KEPT_ENDINGS = 10_000  # how many sequences are remembered after their end, to tell their callers why
NAMED_IDLE_SECONDS = 600.0  # after which a sequence named by its caller ends, when its model says nothing: no stream's end ends it


@dataclass(slots=True, eq=False)
class LiveSequence:
    """One sequence. `worker` is who holds its state, None until its first request is handed over.

    The queue changes what has to do with requests and workers, the table the rest.
    """

    id: str
    named: bool = False  # by its caller; else it ends with its stream
    announced: bool = False  # its caller says which request is the first; else any may be
    worker: object = None
    head: Request | None = None  # the request of it that is queued or being run
    begun: bool = False  # one has been run: the worker has its state
    over: bool = False  # nothing more of it is taken: its worker is gone, or it was ended
    lost: bool = False  # its worker is gone
    ending: bool = False  # its last request is queued: it ends when it is not busy any more
    closed: bool = False
    blocked: bool = False  # one of the same id, that is ending, comes first
    next: LiveSequence | None = None  # the one that this one blocks
    waiting: list[Request] = field(default_factory=list)  # for the head to end
    started: float = field(default_factory=monotonic)
    used: float = field(default_factory=monotonic)

    @property
    def busy(self) -> bool:
        """Whether a request of it is queued or being run."""
        return self.head is not None or bool(self.waiting)


class SequenceTable:
    """The open sequences of one version. Idle and total time-outs are in seconds, 0 for none.

    `on_end` is called, without the lock, for each sequence that ends, whatever the way. The `timer` ends those that are late.
    """

    def __init__(
        self,
        label: str,
        max_sequences: int,
        max_idle_seconds: float,
        max_seconds: float,
        on_end: Callable[[LiveSequence], None],
        timer: Timer,
    ) -> None:
        self.max_sequences = max_sequences
        self._label = label
        self._max_idle_seconds = max_idle_seconds
        self._max_seconds = max_seconds or math.inf
        self._on_end = on_end
        self._lock = threading.Lock()
        self._live: dict[str, LiveSequence] = {}
        self._ending: dict[str, LiveSequence] = {}  # the last one of each id
        self._ended: OrderedDict[str, str] = OrderedDict()  # id: how, until it is told
        self._look_at = math.inf  # no sequence can end by time before
        self._timer = timer
        self._called_at = math.inf  # when the timer calls next

    def __len__(self) -> int:
        return len(self._live) + len(self._ending)

    def start(self, sequence_id: str, *, named: bool = False, announced: bool = True) -> LiveSequence:
        """Open a sequence; one of that id that is open is ended, one that is ending comes first. Raises SequenceLimit."""
        self.end(sequence_id, "was started anew")
        self.expire(monotonic())
        with self._lock:
            if len(self._live) >= self.max_sequences:
                message = f"{self._label}: {len(self._live)} sequences are open, as many as may; end some, or raise maxNumSequence."
                raise SequenceLimit(message, sequence_id=sequence_id, max_sequences=self.max_sequences)
            self._ended.pop(sequence_id, None)
            sequence = self._live[sequence_id] = LiveSequence(sequence_id, named, announced)
            if sequence_id in self._ending:
                self._ending[sequence_id].next, sequence.blocked = sequence, True
            self._look_at = min(self._look_at, sequence.started + min(self._most_idle(sequence), self._max_seconds))
        self._expire_later(self._look_at)
        return sequence

    def get(self, sequence_id: str) -> LiveSequence:
        """Return an open sequence. Raises SequenceUnknown, or SequenceLost when its worker has gone, telling once how it ended."""
        self.expire(monotonic())
        with self._lock:
            sequence = self._live.get(sequence_id)
            if sequence:
                sequence.used = monotonic()
                return sequence
            how = self._ended.pop(sequence_id, "was never started")
        if how.startswith("lost"):
            raise self.lost(sequence_id, how)
        raise SequenceUnknown(f'{self._label}: sequence "{sequence_id}" {how}; start it first.', sequence_id=sequence_id)

    def has(self, sequence_id: str) -> bool:
        """Whether a sequence is open, or was and its end has not been told."""
        self.expire(monotonic())
        return sequence_id in self._live or sequence_id in self._ended

    def lost(self, sequence_id: str, how: str) -> SequenceLost:
        """Return the error of a sequence whose worker is gone; its id may be started anew."""
        with self._lock:
            self._ended.pop(sequence_id, None)
        message = f'{self._label}: sequence "{sequence_id}" is {how}; its state is gone. Start it anew.'
        return SequenceLost(message, sequence_id=sequence_id, cause=how)

    def end(self, sequence_id: str, how: str = "was closed") -> None:
        """Close the sequence of an id, if it is open."""
        sequence = self._live.get(sequence_id)
        if sequence:
            self.close(sequence, how)

    def close(self, sequence: LiveSequence, how: str = "was closed") -> None:
        """Close a sequence, if it is open or ending; whatever has its id by now goes on. Without `how` it is as if it had never been."""
        with self._lock:
            if sequence.closed:
                return
            sequence.closed = True
            if self._ending.get(sequence.id) is sequence:
                del self._ending[sequence.id]
            self._take_out(sequence, how)
        self._on_end(sequence)

    def retire(self, sequence: LiveSequence) -> None:
        """Free the id of a sequence whose last request is queued. When nothing of it waits or runs, the caller closes it."""
        with self._lock:
            if not sequence.closed:
                sequence.ending = True
                self._ending[sequence.id] = sequence
                self._take_out(sequence, "was closed")

    def _take_out(self, sequence: LiveSequence, how: str) -> None:
        if self._live.get(sequence.id) is not sequence:
            return
        del self._live[sequence.id]
        if how:
            self._ended[sequence.id] = how
        if len(self._ended) > KEPT_ENDINGS:
            self._ended.popitem(last=False)

    def _most_idle(self, sequence: LiveSequence) -> float:
        return self._max_idle_seconds or (NAMED_IDLE_SECONDS if sequence.named else math.inf)

    def _expire_later(self, when: float) -> None:
        if when < self._called_at:
            self._called_at = when
            self._timer.call_at(when, self._expire_now)

    def _expire_now(self) -> None:
        self._called_at = math.inf
        self._expire_later(self.expire(monotonic()))

    def expire(self, now: float) -> float:
        """End those that were idle, or open, for too long; returns when the next one may be, inf when none can."""
        if now < self._look_at:
            return self._look_at
        late, next_at = list[tuple[LiveSequence, str]](), math.inf
        with self._lock:
            for sequence in self._live.values():
                most_idle = self._most_idle(sequence)
                idle_at = math.inf if sequence.busy else sequence.used + most_idle
                over_at = sequence.started + self._max_seconds
                if min(idle_at, over_at) <= now:
                    limit = f"idle for {most_idle:g} s" if idle_at <= over_at else f"open for {self._max_seconds:g} s"
                    late.append((sequence, f"was {limit}, and closed"))
                else:
                    next_at = min(next_at, idle_at, over_at, now + most_idle)
            self._look_at = next_at
        for sequence, how in late:
            self.close(sequence, how)
        return next_at
