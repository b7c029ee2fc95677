"""Draws the results: throughput, CPU, latency and memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.bench import OFFLINE, Results
from benchmarks.goals import Figure, Medians, median_life
from benchmarks.plan import Cell

CELLS = (Cell("noop", 1, 32), Cell("noop", 8, 32), Cell("noop", 32, 64), Cell("mlp", 8, 32), Cell("mlp", 32, 64), Cell("length", 8, 32))
LINES = Cell("noop", 8, 0)
STYLE = {
    "figure.dpi": 120,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
}


def draw(results: Results, folder: Path) -> None:
    """Write the plots for which there are figures."""
    mpl.use("Agg")
    medians = Medians(results.samples)
    with plt.rc_context(STYLE):
        _bars(medians, "rps", "Requests per second (more is better)", folder / "throughput.png")
        _bars(medians, "cpu_us", "CPU µs per request, whole process tree (less is better)", folder / "cpu.png")
        _latency(medians, folder / "latency.png")
        if results.lives:
            _memory(results, folder / "memory.png")


def _bars(medians: Medians, figure: Figure, title: str, path: Path) -> None:
    cells = [cell for cell in CELLS if cell in medians.cells()]
    peers = [peer for peer in reversed(medians.peers()) if peer != OFFLINE]
    shown, grid = plt.subplots(2, 3, figsize=(12, 1.5 + 0.5 * len(peers)), layout="constrained", squeeze=False)
    for cell, axes in itertools.zip_longest(cells, grid.flat):
        if cell is None:
            axes.set_axis_off()
            continue
        values = {peer: value for peer in peers if (value := medians.get(peer, cell, figure))}
        bars = axes.barh(list(values), list(values.values()), color=[_color(peer) for peer in values])
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set_title(str(cell), fontsize=10)
        axes.margins(x=0.18)
        axes.grid(visible=False)
        axes.set_xticks([])
    shown.suptitle(title)
    shown.savefig(path)
    plt.close(shown)


def _latency(medians: Medians, path: Path) -> None:
    cells = sorted((cell for cell in medians.cells() if _is_line(cell)), key=lambda cell: cell.concurrency)
    if len(cells) < 2:
        return
    shown, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for peer in medians.peers():
        points = [(cell.concurrency, value) for cell in cells if (value := medians.get(peer, cell, "p50_ms"))]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=peer, color=_color(peer))
    axes.set(xscale="log", yscale="log", xlabel="concurrent requests", ylabel="p50, ms")
    axes.set_xticks([cell.concurrency for cell in cells], [str(cell.concurrency) for cell in cells], minor=False)
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title("Median latency, noop, batch size 8 (less is better)", loc="left")
    shown.legend(loc="outside right center", frameon=False)
    shown.savefig(path)
    plt.close(shown)


def _is_line(cell: Cell) -> bool:
    return (cell.model, cell.batch_size, cell.delay_ms) == (LINES.model, LINES.batch_size, None)


def _memory(results: Results, path: Path) -> None:
    peers = list(dict.fromkeys(life.peer for life in results.lives))
    readings = {
        "1 worker": [median_life(results.lives, peer, lambda life: life.before.pss_mib) for peer in peers],
        "1 worker, after 1 MB requests": [median_life(results.lives, peer, lambda life: life.after.pss_mib) for peer in peers],
        "4 workers": [median_life(results.lives, peer, lambda life: life.four_workers.pss_mib) for peer in peers],
    }
    shown, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for number, (label, values) in enumerate(readings.items()):
        bars = axes.bar([place + (number - 1) * 0.27 for place in range(len(peers))], values, 0.26, label=label, color=f"C{number}")
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(peers)), peers)
    axes.grid(visible=False, axis="x")
    axes.set_title("Memory of the whole process tree: proportional set size, MiB (less is better)", loc="left")
    shown.legend(loc="outside lower center", ncols=3, frameon=False)
    shown.savefig(path)
    plt.close(shown)


def _color(peer: str) -> str:
    order = ("servegrpc", "servegrpc, no fast lane", "TorchServe", "mosec", "Triton", "MLServer", "aio echo", "queue echo", OFFLINE)
    return ("C3", "#f2a6a6", "C0", "C2", "C8", "C4", "#999999", "#444444", "C5")[order.index(peer)]
