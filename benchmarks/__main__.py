"""Measure, then write tables, JSON and plots under `benchmarks/results/`.

`python -m benchmarks run --only "noop bs8 c32" "mlp bs8" --servers servegrpc TorchServe` measures one cell and one scenario again.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from dataclasses import replace

from rich.console import Console

from benchmarks import bench, machine, plots, report
from benchmarks.models import HERE
from benchmarks.peers import DEFAULT_DELAY_MS, PEERS, Peer
from benchmarks.plan import FULL, QUICK


def main() -> int:
    """Run the command line; exit code 0 done, 1 not possible, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run"])
    parser.add_argument("--quick", action="store_true", help="the core of it, in under three minutes")
    parser.add_argument("--seconds", type=float, help="length of each timed run")
    parser.add_argument("--repeats", type=int, help="timed runs of each cell, of which the median counts")
    only = 'scenarios and cells, such as "noop bs8" or "noop bs8 c32"; start; growth'
    parser.add_argument("--only", nargs="+", metavar="PART", help=only)
    parser.add_argument("--servers", nargs="+", choices=PEERS, metavar="NAME", help="leave all others out")
    delay = f"of servers that wait in order to fill a batch, {DEFAULT_DELAY_MS} ms unless given; TorchServe's own default is 100"
    parser.add_argument("--default-delay", type=int, metavar="MS", default=DEFAULT_DELAY_MS, help=delay)
    arguments = parser.parse_args()
    Peer.default_delay_ms = arguments.default_delay
    plan = QUICK if arguments.quick else FULL
    if arguments.only:
        try:
            plan = plan.part(arguments.only)
        except ValueError as fault:
            parser.error(str(fault))
    if arguments.servers:
        plan = replace(plan, name="part", peers=tuple(arguments.servers))
    plan = replace(plan, seconds=arguments.seconds or plan.seconds, repeats=arguments.repeats or plan.repeats)
    if shutil.which("h2load") is None:
        print("h2load is missing; install it with: apt-get install nghttp2-client", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console, started = Console(stderr=True), time.monotonic()
    about, versions = machine.describe(), machine.versions()
    try:
        results = bench.run(plan, lambda text: console.print(f"[dim]{time.monotonic() - started:6.0f} s[/dim]  {text}", highlight=False))
    except KeyboardInterrupt:
        console.print("Interrupted; all servers are ended and nothing is written.")
        return 130
    folder = HERE / "results" / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    report.write(plan, results, about, versions, folder)
    plots.draw(results, folder)
    console.print(f"{time.monotonic() - started:.0f} s; written to benchmarks/results/{plan.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
