"""Micro-batching: the parts of a batch go through a handler's three steps at the same time, each on a thread.

part 1  preprocess ─► inference ──► postprocess
part 2                preprocess ─► inference ──► postprocess
part 3                              preprocess ─► inference ──► postprocess
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, cast

from servegrpc.handlers.rows import Row, renumbered

if TYPE_CHECKING:
    from servegrpc.handlers.base_handler import BaseHandler
    from servegrpc.worker.context import Context

STEPS = ("preprocess", "inference", "postprocess")


class MicroBatching:
    """Takes the place of a handler's `handle`: `self.handle = MicroBatching(self, micro_batch_size=4)` in its `__init__`.

    `parallelism` says how many threads may be in each step, one where it says nothing. The handler's steps must bear being called
    by several threads at once; one step is called by several only if `parallelism` says so.
    """

    def __init__(self, parent_handler: BaseHandler, micro_batch_size: int = 1, parallelism: Mapping[str, int] | None = None) -> None:
        if micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is {micro_batch_size}; it must be at least 1.")
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._parallelism = dict.fromkeys(STEPS, 1)
        self._part = threading.local()
        self._threads: ThreadPoolExecutor | None = None
        self.parallelism = parallelism or {}

    @property
    def parallelism(self) -> dict[str, int]:
        """How many threads may be in each step; a copy. What is assigned replaces the numbers of the steps that it names."""
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: Mapping[str, int]) -> None:
        for step, number in parallelism.items():
            if step not in STEPS or number < 1:
                raise ValueError(f'parallelism of "{step}" is {number}; it takes at least 1 for {", ".join(STEPS)}.')
        self.shutdown()  # which waits for what runs
        self._parallelism.update(parallelism)
        self._slots = {step: threading.BoundedSemaphore(number) for step, number in self._parallelism.items()}

    def shutdown(self) -> None:
        """Wait until no step runs and end the threads; the next batch starts new ones."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def __call__(self, data: list[Row], context: Context) -> list[object]:
        """Return one result for each row, and record HandlerTime; describe, explain and profile without micro-batching."""
        handler = self.handler
        handler.context = context
        if os.environ.get("ENABLE_TORCH_PROFILER") or handler._asking("describe", data) or handler._asking("explain", data):
            return type(handler).handle(handler, data, context)
        start = time.monotonic()
        output = self.handle(data)
        context.metrics.add_time("HandlerTime", round((time.monotonic() - start) * 1000, 2), None, "ms")
        return output

    def handle(self, data: Sequence[Row]) -> list[object]:
        """Return one result for each row, in order. An exception of a step is raised when all parts of the batch have stopped."""
        self._threads = self._threads or ThreadPoolExecutor(sum(self._parallelism.values()), "micro-batch")
        size = self.micro_batch_size
        parts = [self._threads.submit(self._run, data[start : start + size], start) for start in range(0, len(data), size)]
        try:
            return [result for part in parts for result in part.result()]
        finally:
            _stop(parts)

    def get_micro_batch_idx(self) -> int | None:
        """Return which part of the batch the calling thread works on, from 0; None on other threads."""
        return getattr(self._part, "index", None)

    def _run(self, rows: Sequence[Row], start: int) -> list[object]:
        """Run one part of the batch, which begins at row `start`, through all steps."""
        self._part.index = start // self.micro_batch_size
        passed: object = rows
        with renumbered(range(start, start + len(rows))):
            for step in STEPS:
                with self._slots[step]:
                    passed = getattr(self.handler, step)(passed)
        return cast("list[object]", passed)


def _stop(parts: Sequence[Future[list[object]]]) -> None:
    """Call off the parts that have not begun, and wait for the others: nothing of a failed batch runs into the next."""
    for part in parts:
        part.cancel()
    wait(parts)
