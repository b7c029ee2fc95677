"""`python -m fuzz [--cases 1000000] [--seed 1]`: exit code 1 when anything is wrong. Nine in ten cases run in this process."""

import argparse
import sys
import tempfile
from time import monotonic

from fuzz.inside import fuzz_inside
from fuzz.over_wire import fuzz_wire

CALLS, CONNECTIONS = 0.05, 0.01  # of all cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    wrong, cases, began = [], 0, monotonic()
    for one in fuzz_inside(round(arguments.cases * (1 - CALLS - CONNECTIONS)), arguments.seed):
        print(
            f"{one.name:28} {one.cases:8} cases  {one.refused:8} refused  {one.seconds / one.cases * 1e6:6.0f} µs each"
            f"  {one.grown_bytes / 2**20:+6.1f} MiB  {len(one.wrong)} wrong",
            flush=True,
        )
        cases, wrong = cases + one.cases, wrong + one.wrong
    for lane in ("on", "off"):
        with tempfile.TemporaryDirectory() as folder:
            calls, connections = round(arguments.cases * CALLS / 2), round(arguments.cases * CONNECTIONS / 2)
            wire = fuzz_wire(calls, connections, arguments.seed, folder, lane=lane)
        print(f"rpcs, fast lane {lane:12} {calls:8} cases  {wire.grown_bytes / 2**20:+6.1f} MiB  {dict(wire.codes.most_common())}")
        print(f"HTTP/2, fast lane {lane:10} {wire.garbage:8} cases  {len(wire.wrong)} wrong", flush=True)
        cases, wrong = cases + calls + wire.garbage, wrong + wire.wrong
    print(f"{cases} cases in {monotonic() - began:.0f} s, {len(wrong)} wrong", *wrong[:50], sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
