"""`python -m history [--seconds 60] [--seeds 1 2 3]`: run it for long, with either lane; exit code 1 when anything is wrong."""

import argparse
import sys

from history.run import run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--lanes", nargs="+", choices=["on", "off"], default=["on", "off"])
    arguments = parser.parse_args()
    failed = False
    for seed in arguments.seeds:
        for lane in arguments.lanes:
            history = run(seed, arguments.seconds, lane=lane)
            print(f"seed {seed}, fast lane {lane}: {history.calls} calls, {history.faults} faults, {len(history.wrong)} wrong")
            print("\n".join(f"  {line}" for line in [*history.summary, *history.wrong[:50]]), flush=True)
            failed |= bool(history.wrong)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
