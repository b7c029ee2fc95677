"""Turns results into tables, for the terminal and as Markdown, and into JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.bench import Life, Results
from benchmarks.goals import OURS, Check, Medians, checks, median_life
from benchmarks.plan import Cell, Plan

NOTHING = "-"


@dataclass(frozen=True)
class Table:
    """A title, a header and rows of text."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def as_markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return f"## {self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def as_rich(self) -> RichTable:
        """Return the table for the terminal."""
        table = RichTable(*self.header, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        return table


def tables(results: Results, found: list[Check]) -> list[Table]:
    """Return everything that was measured as tables."""
    medians = Medians(results.samples)
    return [
        Table("Goals", ["goal", "bound", "worst ratio", "at", "holds"], [_check_row(check) for check in found]),
        _figures(medians, "Measured: requests/s, p50 ms, p99 ms, CPU µs per request", _absolute),
        _figures(medians, "Ratios, servegrpc ÷ the other: requests/s, p50, CPU per request", _ratios),
        _lives(results.lives),
        Table("servegrpc as its work grows, noop bs8: CPU µs per request", ["callers or registered models", "CPU"], _growth(results)),
        Table("Missing and failed", ["what", "why"], _problems(results)),
    ]


def write(plan: Plan, results: Results, machine: dict[str, str], versions: dict[str, str], folder: Path) -> None:
    """Write `results.json` and `tables.md`, and show the tables."""
    found = checks(results)
    everything = {
        "plan": asdict(plan),
        "machine": machine,
        "versions": versions,
        **results.as_json(),
        "checks": [asdict(check) for check in found],
    }
    (folder / "results.json").write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
    console = Console(width=200, highlight=False)
    about = Table("Machine and versions", ["what", "which"], [[name, value] for name, value in (machine | versions).items()])
    shown = [about, *(table for table in tables(results, found) if table.rows)]
    (folder / "tables.md").write_text("\n".join(table.as_markdown() for table in shown))
    for table in shown:
        if not table.title.startswith("Measured"):  # too wide for a terminal; it is in the file
            console.print(table.as_rich())


def _check_row(check: Check) -> list[str]:
    worst = NOTHING if check.worst is None else f"{check.worst:.2f}"
    return [check.name, check.bound, worst, check.where, {True: "yes", False: "no", None: "not measured"}[check.holds]]


def _figures(medians: Medians, title: str, show: Callable[[Medians, str, Cell], str]) -> Table:
    peers = [peer for peer in medians.peers() if show is _absolute or peer != OURS]
    rows = []
    for cell in medians.cells():
        shown = [show(medians, peer, cell) for peer in peers]
        if set(shown) != {NOTHING}:
            rows.append([str(cell), *shown])
    return Table(title, ["cell", *peers], rows)


def _absolute(medians: Medians, peer: str, cell: Cell) -> str:
    at = cell if medians.get(peer, cell, "rps") else Cell(cell.model, cell.batch_size, 0, cell.delay_ms)
    values = [medians.get(peer, at, figure) for figure in ("rps", "p50_ms", "p99_ms", "cpu_us")]
    return _joined(values, lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}")


def _ratios(medians: Medians, peer: str, cell: Cell) -> str:
    return _joined([medians.ratio(peer, cell, figure) for figure in ("rps", "p50_ms", "cpu_us")], lambda value: f"{value:.2f}")


def _joined(values: Iterable[float | None], show: Callable[[float], str]) -> str:
    known = [show(value) for value in values if value is not None]
    return " / ".join(known) or NOTHING


def _lives(lives: list[Life]) -> Table:
    columns: dict[str, Callable[[Life], float | None]] = {
        "start → ready, s": lambda life: life.start_s,
        "register → first reply, s": lambda life: life.first_reply_s,
        "scale 1 → 4, s": lambda life: life.scale_s,
        "PSS before 1 MB traffic, MiB": lambda life: life.before.pss_mib,
        "PSS after": lambda life: life.after.pss_mib,
        "RSS before": lambda life: life.before.rss_mib,
        "RSS after": lambda life: life.after.rss_mib,
        "PSS, 4 workers": lambda life: life.four_workers.pss_mib,
        "RSS, 4 workers": lambda life: life.four_workers.rss_mib,
    }
    rows = []
    for peer in dict.fromkeys(life.peer for life in lives):
        values = [median_life(lives, peer, read) for read in columns.values()]
        rows.append([peer, *(NOTHING if value is None else f"{value:.2f}" if value < 50 else f"{value:.0f}" for value in values)])
    return Table("Start, scaling and memory of the whole process tree", ["server", *columns], rows)


def _growth(results: Results) -> list[list[str]]:
    rows = [(f"c{many}", cpu_us) for many, cpu_us in results.callers_cpu_us.items()]
    rows += [(f"{many} models, c32", cpu_us) for many, cpu_us in results.models_cpu_us.items()]
    return [[what, f"{cpu_us:.1f}"] for what, cpu_us in rows]


def _problems(results: Results) -> list[list[str]]:
    return [[f"{name} is missing", reason] for name, reason in results.missing.items()] + [
        failure.split(": ", 1) for failure in results.failures
    ]
