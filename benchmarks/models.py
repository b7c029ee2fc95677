"""The benchmark's models: what is sent, what must come back, and the archive that TorchServe and servegrpc serve."""

from __future__ import annotations

import json
import random
import subprocess
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENTS = ROOT / ".bench-venv"
VARIANTS = 8


@dataclass(frozen=True)
class Model:
    """One model.

    `shape` is set where the input is a float32 tensor rather than bytes. `pace` is set where requests are so large or slow that those in
    flight when a run's time is over would count: it is how many requests make a second of a timed run.
    """

    name: str
    shape: tuple[int, ...] = ()
    pace: int = 0
    seconds_factor: float = 1

    @property
    def handler(self) -> Path:
        """The TorchServe handler that every server runs."""
        return HERE / "handlers" / f"{self.name}.py"

    def requests(self, concurrency: int, seconds: float) -> int:
        """Return the length of a timed run in requests, at least four for each caller; 0 where it is timed."""
        return self.pace and max(4 * concurrency, round(self.pace * seconds * min(1, concurrency / 4)))

    @cached_property
    def payloads(self) -> list[bytes]:
        """Different inputs, so that a check sees replies that were mixed up."""
        return [_payload(self, number) for number in range(VARIANTS)]

    @cached_property
    def replies(self) -> list[bytes]:
        """The reply to each payload, as the handler gives it outside any server."""
        command = [python("servegrpc"), HERE / "servers" / "offline.py", "replies", self.handler]
        sizes = b"".join(len(payload).to_bytes(4, "big") + payload for payload in self.payloads)
        run = subprocess.run(command, input=sizes, stdout=subprocess.PIPE, check=True, timeout=120)
        return [bytes.fromhex(line) for line in run.stdout.decode().splitlines()]

    def write_archive(self, folder: Path) -> Path:
        """Write the model's archive and return its path."""
        model = {"modelName": self.name, "handler": self.handler.name, "modelVersion": "1.0"}
        manifest = {"createdOn": "01/01/2026 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
        path = folder / f"{self.name}.mar"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
            archive.write(self.handler, self.handler.name)
        return path


def python(environment: str) -> str:
    """Return the interpreter of a peer's environment; servegrpc runs from the project's own."""
    return str((ROOT / ".venv" if environment == "servegrpc" else ENVIRONMENTS / environment) / "bin" / "python")


def _payload(model: Model, number: int) -> bytes:
    generator = random.Random(number)
    if model.name == "noop":
        return generator.randbytes(100)
    if model.name == "length":
        return generator.randbytes(2**20 - number)
    if model.name == "mlp":
        return np.array([generator.randrange(8) for _ in range(64)], dtype="<f4").tobytes()
    return np.random.default_rng(number).integers(-9, 9, model.shape).astype("<f4").tobytes()


MODELS = {
    model.name: model
    for model in (
        Model("noop"),
        Model("mlp"),
        Model("length", pace=1000),
        Model("tensor", shape=(3, 224, 224), pace=1000),
        Model("resnet", shape=(3, 224, 224), pace=40, seconds_factor=4),
    )
}
