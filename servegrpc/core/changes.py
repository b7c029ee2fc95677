"""What listeners, health and watchers, hear of the versions: how each is, then every change of it, in order. The manager publishes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from servegrpc.core.model import ModelChange, State
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.core.worker import WorkerState


class Changes:
    """Tells listeners the states of the versions of a registry."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()  # held while listeners are called: the last one that they hear is the present state
        self._listeners: list[Callable[[ModelChange], None]] = []
        self._shown: dict[tuple[str, str], ModelChange] = {}

    def listen(self, listener: Callable[[ModelChange], None]) -> Callable[[], None]:
        """Call `listener` with the present state of every version, then with each change, until the returned function is called.

        It is called from the thread that made the change and must not block.
        """
        with self._lock:
            for change in self._shown.values():
                listener(change)
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return stop

    def subscribe(self) -> tuple[queue.SimpleQueue[ModelChange | None], Callable[[], None]]:
        """Return a queue that receives the present states and then the changes, and the function that ends it.

        The reader may put None in itself to wake up.
        """
        changes: queue.SimpleQueue[ModelChange | None] = queue.SimpleQueue()
        return changes, self.listen(changes.put)

    def publish_all(self, name: str) -> None:
        """Tell how all versions of a model are, where that has changed."""
        for version in self._registry.versions():
            if version.name == name:
                self.publish(version)

    def publish(self, version: ModelVersion) -> None:
        """Tell how a version is, when that has changed."""
        pool = version.pool
        with self._lock:
            ready = sum(record.state is WorkerState.READY for record in pool.records())
            default = self._registry.default_version(version.name) == version.version
            change = ModelChange(version.name, version.version, pool.state, ready, pool.target, pool.cause, default, time.time())
            key = (version.name, version.version)
            if (self._registry.find(*key) or version) is not version:
                return  # a failed version that was replaced says no more
            last = self._shown.get(key)
            if last and replace(last, time=change.time) == change:
                return
            if last is None and change.state is State.UNLOADED:
                return  # its end has been told already
            self._shown[key] = change
            if change.state is State.UNLOADED:
                del self._shown[key]
            for listener in self._listeners:
                listener(change)
