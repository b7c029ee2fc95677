"""Which device a new worker gets."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """Where a worker computes: `gpu` is the CUDA index, None for the CPU."""

    gpu: int | None = None

    def __str__(self) -> str:
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"


CPU = Device()


class DeviceSlots:
    """Hands out devices: the GPU with the fewest workers, the lowest first; the CPU when there is no GPU or the model asks for it."""

    def __init__(self, gpus: int, cpus: int) -> None:
        self.gpus = gpus
        self.cpus = cpus
        self._lock = threading.Lock()
        self._workers: Counter[int] = Counter()

    def candidates(self, device_type: str = "", device_ids: Sequence[int] = ()) -> Sequence[int]:
        """Return the GPUs that a model may use, none for the CPU; with an id that does not exist all (TorchServe `Model.setDeviceIds`)."""
        if device_type == "cpu":
            return ()
        return device_ids if device_ids and max(device_ids) < self.gpus else range(self.gpus)

    def take(self, device_type: str = "", device_ids: Sequence[int] = ()) -> Device:
        """Take a slot; give it back with `give_back`."""
        candidates = self.candidates(device_type, device_ids)
        if not candidates:
            return CPU
        with self._lock:
            index = min(candidates, key=lambda gpu: self._workers[gpu])
            self._workers[index] += 1
        return Device(index)

    def give_back(self, device: Device) -> None:
        """Return a slot when its worker is gone."""
        if device.gpu is not None:
            with self._lock:
                self._workers[device.gpu] -= 1

    def threads(self, workers: int) -> int:
        """How many CPU threads each of `workers` workers of a model should compute with, so that they do not fight for cores."""
        return max(1, self.cpus // max(1, workers))
