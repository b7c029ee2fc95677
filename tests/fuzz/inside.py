"""Runs the cases within this process: no other error, no hang, no memory that grows."""

import faulthandler
import random
from dataclasses import dataclass
from math import ceil
from time import monotonic

import psutil
import torch

from fuzz.decoders import targets

assert torch.float32  # a decoder asks for torch when it gets the first tensor, which would look like memory that grows

HANG_SECONDS = 60  # then the process ends itself, with all its stacks
SLOW_SECONDS = 2.0
MEMORY_BYTES = 64 * 2**20  # how much more a target may hold at its end than after its first tenth


@dataclass
class Outcome:
    """What came of one target; without `wrong`, all was well."""

    name: str
    cases: int
    refused: int
    seconds: float
    grown_bytes: int
    wrong: list[str]


def fuzz_inside(cases, seed):
    """Run about so many cases in all, and yield the outcome of each target."""
    with targets() as found:
        whole = sum(target.share for target in found)
        for target in found:
            yield _fuzz(target, ceil(cases * target.share / whole), random.Random(f"{seed} {target.name}"))


def _fuzz(target, cases, chance):
    outcome = Outcome(target.name, cases, 0, 0.0, 0, [])
    process, began, held = psutil.Process(), monotonic(), 0
    for case in range(cases):
        if case == cases // 10:
            held = process.memory_info().rss
        if case % 1000 == 0:
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        raw = target.make(chance)
        started = monotonic()
        try:
            target.take(raw)
        except target.refusals:
            outcome.refused += 1
        except Exception as error:
            outcome.wrong.append(f"{type(error).__name__}: {error}; for {raw[:300]!r}")
        if monotonic() - started > SLOW_SECONDS:
            outcome.wrong.append(f"took {monotonic() - started:.1f} s; for {raw[:300]!r}")
    faulthandler.cancel_dump_traceback_later()
    outcome.seconds, outcome.grown_bytes = monotonic() - began, process.memory_info().rss - held
    if outcome.grown_bytes > MEMORY_BYTES:
        outcome.wrong.append(f"memory grew by {outcome.grown_bytes >> 20} MiB")
    return outcome
