"""What servegrpc must reach, as named checks on the medians of one run. Each check names its worst cell."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.bench import OFFLINE, Life, Results, Sample
from benchmarks.plan import Cell

OURS = "servegrpc"
Figure = Literal["rps", "p50_ms", "p99_ms", "cpu_us"]
FIGURES: tuple[Figure, ...] = ("rps", "p50_ms", "p99_ms", "cpu_us")
Select = Callable[[Cell], bool]


@dataclass(frozen=True)
class Check:
    """One goal: what was compared, the bound, the worst ratio found and where; None where it was not measured."""

    name: str
    bound: str
    worst: float | None
    where: str
    holds: bool | None


class Medians:
    """The median of each figure, by server and cell."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        grouped: dict[tuple[str, Cell], list[Sample]] = defaultdict(list)
        for sample in samples:
            grouped[sample.peer, sample.cell].append(sample)
        self._medians = {
            key: {name: statistics.median(getattr(one, name) for one in group) for name in FIGURES} for key, group in grouped.items()
        }

    def get(self, peer: str, cell: Cell, figure: Figure) -> float | None:
        """Return one median, if it was measured."""
        return self._medians.get((peer, cell), {}).get(figure)

    def cells(self) -> list[Cell]:
        """Return all cells with a concurrency, in the order measured."""
        return list(dict.fromkeys(cell for _, cell in self._medians if cell.concurrency))

    def peers(self) -> list[str]:
        """Return all servers, in the order measured."""
        return list(dict.fromkeys(peer for peer, _ in self._medians))

    def ratio(self, other: str, cell: Cell, figure: Figure) -> float | None:
        """Return servegrpc's figure divided by another's; the offline loop has no concurrency."""
        theirs = self.get(other, Cell(cell.model, cell.batch_size, 0, cell.delay_ms) if other == OFFLINE else cell, figure)
        ours = self.get(OURS, cell, figure)
        return None if ours is None or not theirs else ours / theirs


def checks(results: Results) -> list[Check]:
    """Return all goals with what was found."""
    medians = Medians(results.samples)
    return [*_load_checks(medians), *_life_checks(results.lives), *_growth_checks(results)]


def _load_checks(medians: Medians) -> Iterator[Check]:
    def at(model: str, batch_size: int, least: int) -> Select:
        return lambda cell: (cell.model, cell.batch_size, cell.delay_ms) == (model, batch_size, None) and cell.concurrency >= least

    def full(cell: Cell) -> bool:
        return cell.model in ("noop", "mlp") and cell.batch_size > 1 and cell.concurrency >= cell.batch_size and cell.delay_ms is None

    def part(cell: Cell) -> bool:
        return cell.model in ("noop", "mlp") and cell.concurrency < cell.batch_size and cell.delay_ms is None

    def large(cell: Cell) -> bool:
        return cell.model == "length" and cell.concurrency == 32

    rows: list[tuple[str, str, Figure, str, float, Select]] = [
        ("bs1 noop, c ≥ 8", "TorchServe", "rps", "≥", 4, at("noop", 1, 8)),
        ("bs1 noop, c ≥ 8", "TorchServe", "cpu_us", "≤", 0.3, at("noop", 1, 8)),
        ("bs8 and bs32 noop and mlp, c ≥ bs", "TorchServe", "rps", "≥", 2, full),
        ("bs8 and bs32 noop and mlp, c ≥ bs", "TorchServe", "cpu_us", "≤", 0.5, full),
        ("partly filled batches, default batching", "TorchServe", "p50_ms", "≤", 0.1, part),
        ("explicit max_batch_delay", "TorchServe", "p50_ms", "≤", 1.05, lambda cell: cell.delay_ms is not None),
        ("bs8 noop, c ≥ 8", "mosec", "cpu_us", "≤", 1.2, at("noop", 8, 8)),
        ("bs1 noop, c ≥ 8", "queue echo", "cpu_us", "≤", 4, at("noop", 1, 8)),
        ("bs32 noop, c ≥ 32", "queue echo", "cpu_us", "≤", 2, at("noop", 32, 32)),
        ("1 MB → length, c = 32", "TorchServe", "rps", "≥", 1.5, large),
        ("1 MB → length, c = 32", "TorchServe", "cpu_us", "≤", 0.6, large),
        ("ResNet-18-like, bs8, saturated", OFFLINE, "rps", "≥", 0.95, at("resnet", 8, 16)),
        ("ResNet-18-like, bs8, saturated", "TorchServe", "rps", "≥", 1, at("resnet", 8, 16)),
    ]
    names = {"rps": "requests/s", "p50_ms": "p50", "cpu_us": "CPU"}
    for what, other, figure, sign, bound, select in rows:
        ratios = {str(cell): ratio for cell in medians.cells() if select(cell) and (ratio := medians.ratio(other, cell, figure))}
        yield _check(f"{what}: {names[figure]} vs {other}", sign, bound, ratios)


def _life_checks(lives: list[Life]) -> Iterator[Check]:
    rows: list[tuple[str, float, Callable[[Life], float | None]]] = [
        ("PSS, 1 worker, vs TorchServe", 0.3, lambda life: life.before.pss_mib),
        ("PSS, 1 worker after 1 MB traffic, vs TorchServe", 0.3, lambda life: life.after.pss_mib),
        ("PSS, 4 workers, vs TorchServe", 0.3, lambda life: life.four_workers.pss_mib),
        ("scale 1 → 4, time vs TorchServe", 0.1, lambda life: life.scale_s),
    ]
    for what, bound, read in rows:
        ours, theirs = (median_life(lives, peer, read) for peer in (OURS, "TorchServe"))
        yield _check(what, "≤", bound, {"": ours / theirs} if ours and theirs else {})


def median_life(lives: list[Life], peer: str, read: Callable[[Life], float | None]) -> float | None:
    """Return the median of one figure of a server's life, if it has it."""
    values = [value for life in lives if life.peer == peer and (value := read(life)) is not None]
    return statistics.median(values) if values else None


def _growth_checks(results: Results) -> Iterator[Check]:
    rows = (
        ("CPU per request, c = 64, 256, 512 vs c = 32", "c", results.callers_cpu_us),
        ("CPU per request, 200 registered models vs 1", "models ", results.models_cpu_us),
    )
    for what, unit, cpu_us in rows:
        least = min(cpu_us, default=0)
        yield _check(what, "≤", 1.15, {f"noop bs8 {unit}{many}": cpu_us[many] / cpu_us[least] for many in cpu_us if many != least})


def _check(name: str, sign: str, bound: float, ratios: dict[str, float]) -> Check:
    if not ratios:
        return Check(name, f"{sign} {bound:g}", None, "", None)
    where, worst = (min if sign == "≥" else max)(ratios.items(), key=lambda item: item[1])
    return Check(name, f"{sign} {bound:g}", worst, where, worst >= bound if sign == "≥" else worst <= bound)
