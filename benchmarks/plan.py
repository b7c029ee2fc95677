"""What is measured: cells of model, batch size, delay and concurrency, grouped so that a server is set up once for its concurrencies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.models import MODELS
from benchmarks.peers import Deployment

ECHOES = ("aio echo", "queue echo")
QUICK_PEERS = ("servegrpc", "TorchServe", "mosec", "queue echo")
EXPLICIT_DELAY_MS = 5
BATCH_SIZES = (1, 8, 32)
CONCURRENCIES = (1, 8, 32, 64, 256)


@dataclass(frozen=True)
class Cell:
    """One point of the measurement."""

    model: str
    batch_size: int
    concurrency: int
    delay_ms: int | None = None

    def __str__(self) -> str:
        delay = "" if self.delay_ms is None else f", delay {self.delay_ms} ms"
        concurrency = f" c{self.concurrency}" if self.concurrency else ""
        return f"{self.model} bs{self.batch_size}{concurrency}{delay}"


@dataclass(frozen=True)
class Scenario:
    """A deployment and the concurrencies it is measured at."""

    model: str
    batch_size: int
    concurrencies: tuple[int, ...]
    delay_ms: int | None = None

    def __str__(self) -> str:
        return f"{self.model} bs{self.batch_size}" + ("" if self.delay_ms is None else f", delay {self.delay_ms} ms")

    @property
    def deployment(self) -> Deployment:
        """What the servers are given."""
        return Deployment(MODELS[self.model], self.batch_size, self.delay_ms)

    def cells(self) -> Iterator[Cell]:
        """Yield the scenario's cells."""
        return (Cell(self.model, self.batch_size, concurrency, self.delay_ms) for concurrency in self.concurrencies)

    def includes(self, peer: str) -> bool:
        """Whether a peer takes part; the echoes do only where no model's work is in the figures."""
        return peer not in ECHOES or (self.model in ("noop", "length") and self.delay_ms is None)


@dataclass(frozen=True)
class Growth:
    """How far the work of servegrpc grows: concurrencies, the first of which the others are compared with, and registered models."""

    callers: tuple[int, ...]
    models: int


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    name: str
    scenarios: tuple[Scenario, ...]
    peers: tuple[str, ...]  # empty: all
    seconds: float
    repeats: int
    lifecycle_repeats: int
    growth: Growth | None
    offline: bool

    def part(self, names: Sequence[str]) -> Plan:
        """Return the named scenarios and cells of the plan, with "start" and "growth" where named; ValueError says what names there are."""
        scenarios = []
        for scenario in self.scenarios:
            named = [cell.concurrency for cell in scenario.cells() if {str(scenario), str(cell)} & {*names}]
            if named:
                scenarios.append(replace(scenario, concurrencies=tuple(named)))
        known = {"start", "growth", *map(str, self.scenarios), *(str(cell) for scenario in self.scenarios for cell in scenario.cells())}
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"There is no {unknown[0]!r}; there are start, growth, {'; '.join(map(str, self.scenarios))}, and cells of these"
            )
        lives, growth = (self.lifecycle_repeats if "start" in names else 0), (self.growth if "growth" in names else None)
        return replace(self, name="part", scenarios=tuple(scenarios), lifecycle_repeats=lives, growth=growth)


GROWTH = Cell("noop", 8, 32)  # where servegrpc is measured as its work grows


QUICK = Plan(
    "quick",
    (
        Scenario("noop", 1, (32,)),
        Scenario("noop", 8, (32,)),
        Scenario("noop", 32, (8, 64)),
        Scenario("mlp", 8, (1, 32)),
        Scenario("mlp", 32, (64,)),
        Scenario("length", 8, (32,)),
        Scenario("noop", 8, (4,), delay_ms=EXPLICIT_DELAY_MS),
    ),
    QUICK_PEERS,
    seconds=1.2,
    repeats=2,
    lifecycle_repeats=0,
    growth=None,
    offline=False,
)

FULL = Plan(
    "full",
    (
        *(Scenario(model, batch_size, CONCURRENCIES) for model in ("noop", "mlp", "length", "tensor") for batch_size in BATCH_SIZES),
        Scenario("resnet", 1, (1, 8, 32)),
        Scenario("resnet", 8, (1, 8, 32)),
        Scenario("resnet", 32, (1, 8, 32, 64)),
        Scenario("noop", 8, (1, 4, 32), delay_ms=EXPLICIT_DELAY_MS),
        Scenario("noop", 32, (8, 64), delay_ms=EXPLICIT_DELAY_MS),
    ),
    (),
    seconds=1,
    repeats=3,
    lifecycle_repeats=3,
    growth=Growth(callers=(32, 64, 256, 512), models=200),
    offline=True,
)
