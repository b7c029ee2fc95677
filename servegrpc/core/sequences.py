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

from servegrpc.errors import SequenceLimit, SequenceLost, SequenceUnknown

if TYPE_CHECKING:
    from servegrpc.core.request import Request

KEPT_ENDINGS = 10_000  # how many sequences are remembered after their end, to tell their callers why


@dataclass(slots=True, eq=False)
class LiveSequence:
    """One sequence. `worker` is who holds its state, None until its first request is handed over; the queue changes both and `waiting`."""

    id: str
    worker: object = None
    busy: bool = False  # a request of it is queued or being run
    begun: bool = False  # one has been answered: the worker has its state
    lost: bool = False  # that worker is gone, or the sequence was ended
    waiting: list[Request] = field(default_factory=list)  # for that one to end
    started: float = field(default_factory=monotonic)
    used: float = field(default_factory=monotonic)


class SequenceTable:
    """The open sequences of one version. Idle and total time-outs are in seconds, 0 for none.

    `on_end` is called, without the lock, for each sequence that ends, whatever the way.
    """

    def __init__(
        self, label: str, max_sequences: int, max_idle_seconds: float, max_seconds: float, on_end: Callable[[LiveSequence], None]
    ) -> None:
        self.max_sequences = max_sequences
        self._label = label
        self._max_idle_seconds = max_idle_seconds
        self._max_seconds = max_seconds
        self._on_end = on_end
        self._lock = threading.Lock()
        self._live: dict[str, LiveSequence] = {}
        self._ended: OrderedDict[str, str] = OrderedDict()  # id: how
        self._look_at = math.inf  # no sequence can end by time before

    def __len__(self) -> int:
        return len(self._live)

    def start(self, sequence_id: str) -> LiveSequence:
        """Open a sequence; one of that id that is open is ended. Raises SequenceLimit."""
        self.end(sequence_id, "was started anew")
        self.expire(monotonic())
        with self._lock:
            if len(self._live) >= self.max_sequences:
                message = f"{self._label}: {len(self._live)} sequences are open, as many as may; end some, or raise maxNumSequence."
                raise SequenceLimit(message, sequence_id=sequence_id, max_sequences=self.max_sequences)
            self._ended.pop(sequence_id, None)
            sequence = self._live[sequence_id] = LiveSequence(sequence_id)
            limits = [seconds for seconds in (self._max_idle_seconds, self._max_seconds) if seconds]
            self._look_at = min(self._look_at, sequence.started + min(limits, default=math.inf))
            return sequence

    def get(self, sequence_id: str) -> LiveSequence:
        """Return an open sequence. Raises SequenceUnknown, or SequenceLost when its worker has gone, telling how it ended."""
        self.expire(monotonic())
        with self._lock:
            sequence = self._live.get(sequence_id)
            if sequence:
                sequence.used = monotonic()
                return sequence
            how = self._ended.get(sequence_id, "was never started")
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
        """Close a sequence, if it is open."""
        with self._lock:
            sequence = self._live.pop(sequence_id, None)
            if sequence:
                self._ended[sequence_id] = how
                if len(self._ended) > KEPT_ENDINGS:
                    self._ended.popitem(last=False)
        if sequence:
            self._on_end(sequence)

    def expire(self, now: float) -> float:
        """End those that were idle, or open, for too long; returns when the next one may be, inf when none can."""
        if now < self._look_at:
            return self._look_at
        late, next_at = [], math.inf
        with self._lock:
            for sequence in self._live.values():
                idle_at = sequence.used + self._max_idle_seconds if self._max_idle_seconds and not sequence.busy else math.inf
                over_at = sequence.started + self._max_seconds if self._max_seconds else math.inf
                if min(idle_at, over_at) <= now:
                    limit = f"idle for {self._max_idle_seconds:g} s" if idle_at <= over_at else f"open for {self._max_seconds:g} s"
                    late.append((sequence.id, f"was {limit}, and closed"))
                else:
                    busy_until = now + self._max_idle_seconds if sequence.busy and self._max_idle_seconds else math.inf
                    next_at = min(next_at, idle_at, over_at, busy_until)
            self._look_at = next_at
        for sequence_id, how in late:
            self.end(sequence_id, how)
        return next_at
