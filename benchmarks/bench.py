"""Runs a plan: all servers up, then A B C A B C at each cell, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

import grpc
import psutil

from benchmarks import load, measure
from benchmarks.models import HERE, MODELS, python
from benchmarks.peers import PEERS, Deployment, Peer, ServeGrpc, TorchServe
from benchmarks.plan import GROWTH, Cell, Growth, Plan, Scenario
from benchmarks.target import Target

OFFLINE = "offline loop"
Say = Callable[[str], None]
T = TypeVar("T")
Faults = (RuntimeError, OSError, grpc.RpcError, psutil.Error, load.WrongReplyError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Sample:
    """One run of one server at one cell."""

    peer: str
    cell: Cell
    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True)
class Life:
    """One server from start to four workers; seconds are None for what a server cannot do while it runs."""

    peer: str
    start_s: float
    first_reply_s: float | None
    scale_s: float | None
    before: measure.Memory
    after: measure.Memory
    four_workers: measure.Memory


@dataclass
class Results:
    """All that was measured, what was missing and what failed."""

    samples: list[Sample] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    callers_cpu_us: dict[int, float] = field(default_factory=dict)
    models_cpu_us: dict[int, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """Return the results as plain data."""
        return asdict(self)


def run(plan: Plan, say: Say) -> Results:
    """Measure everything in the plan; servers are ended however this ends."""
    results = Results()
    with tempfile.TemporaryDirectory(prefix="servegrpc-bench-") as name:
        folder = Path(name)
        wanted = [PEERS[peer](folder) for peer in plan.peers or PEERS]
        results.missing = {peer.name: reason for peer in wanted if (reason := peer.missing())}
        peers = [peer for peer in wanted if peer.name not in results.missing]
        measure_lives(plan, peers, results, say)
        if plan.scenarios:
            compare(plan, peers, results, say)
        if plan.growth and "servegrpc" not in results.missing:
            say(f"servegrpc with up to {plan.growth.callers[-1]} callers and {plan.growth.models} models")
            _attempt(results, "servegrpc, growth", lambda: grow(plan, plan.growth, folder, results))
    return results


def measure_lives(plan: Plan, peers: list[Peer], results: Results, say: Say) -> None:
    """Measure start, memory and scaling, each server alone: beside others it would share their pages."""
    for number in range(plan.lifecycle_repeats):
        for peer in peers:
            if peer.handlers:
                say(f"start, memory and scaling, {number + 1}/{plan.lifecycle_repeats}: {peer.name}")
                _attempt(results, f"{peer.name}, start and scaling", lambda peer=peer: results.lives.append(live(peer)))


def compare(plan: Plan, peers: list[Peer], results: Results, say: Say) -> None:
    """Start all servers and measure scenario by scenario."""
    with ExitStack() as stack:
        opened = []
        for peer in peers:
            stack.callback(peer.close)
            say(f"starting {peer.name}")
            if _attempt(results, f"{peer.name}, start", lambda peer=peer: _open(peer)):
                opened.append(peer)
        for scenario in plan.scenarios:
            measure_scenario(plan, scenario, [peer for peer in opened if scenario.includes(peer.name)], results, say)


def measure_scenario(plan: Plan, scenario: Scenario, peers: list[Peer], results: Results, say: Say) -> None:
    """Deploy one model on all servers, check their replies, measure them in turn, and withdraw it."""
    seconds = plan.seconds * scenario.deployment.model.seconds_factor
    with ExitStack() as stack:
        targets: dict[Peer, Target] = {}
        for peer in peers:
            say(f"{scenario}: checking {peer.name}")
            stack.callback(_attempt, results, f"{peer.name}, end of {scenario}", peer.withdraw)
            if not _attempt(results, f"{peer.name}, {scenario}", lambda peer=peer: targets.update({peer: _deploy_checked(peer, scenario)})):
                _attempt(results, f"{peer.name}, restart", lambda peer=peer: (peer.close(), peer.open()))
        for cell, number in itertools.product(scenario.cells(), range(plan.repeats)):
            say(f"{cell}, {number + 1}/{plan.repeats}")
            for peer, target in targets.items():
                _attempt(results, f"{peer.name}, {cell}", lambda *to: results.samples.append(sample(*to)), peer, target, cell, seconds)
        if plan.offline:
            say(f"{scenario}: {OFFLINE}")
            for _ in range(plan.repeats):
                _attempt(results, f"{OFFLINE}, {scenario}", lambda: results.samples.append(offline(scenario, seconds)))


def sample(peer: Peer, target: Target, cell: Cell, seconds: float) -> Sample:
    """Measure one server once; again if h2load hangs, as it may at its end with hundreds of HTTP/1.1 connections."""
    try:
        return _sample(peer, target, cell, seconds)
    except subprocess.TimeoutExpired:
        return _sample(peer, target, cell, seconds)


def _sample(peer: Peer, target: Target, cell: Cell, seconds: float) -> Sample:
    """Measure one server; it begins and ends with nothing left to do, since h2load leaves when its time is over."""
    requests = MODELS[cell.model].requests(cell.concurrency, seconds)
    reply_bytes = load.check(target, calls=cell.concurrency)
    before = measure.cpu_seconds(peer.pid)
    seen = load.run(target, cell.concurrency, seconds, reply_bytes, requests)
    cpu_us = (measure.cpu_seconds(peer.pid) - before) / seen.requests * 1e6
    target.send(0)
    return Sample(peer.name, cell, seen.requests, seen.rps, seen.p50_ms, seen.p99_ms, cpu_us)


def offline(scenario: Scenario, seconds: float) -> Sample:
    """Time the handler without any server."""
    model = MODELS[scenario.model]
    rows = b"".join(len(payload).to_bytes(4, "big") + payload for payload in model.payloads)
    command = [python("servegrpc"), HERE / "servers" / "offline.py", "loop", model.handler, str(scenario.batch_size), str(seconds)]
    done = subprocess.run(command, input=rows, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
    return Sample(OFFLINE, Cell(scenario.model, scenario.batch_size, 0, scenario.delay_ms), **json.loads(done.stdout))


def live(peer: Peer) -> Life:
    """Start a server alone on the machine, send it large requests and scale it up."""
    deployment = Deployment(MODELS["length"], batch_size=8)
    try:
        _, opening = _timed(peer.open)
        target, deploying = _timed(lambda: peer.deploy(deployment))
        before = measure.memory(peer.pid)
        load.run(target, 32, 3, load.check(target, 32))
        after = measure.memory(peer.pid)
        _, scaling = _timed(lambda: peer.scale(4))
        four = measure.memory(peer.pid)
    finally:
        peer.close()
    if peer.managed:
        return Life(peer.name, opening, deploying, scaling, before, after, four)
    return Life(peer.name, deploying, None, None, before, after, four)


def grow(plan: Plan, growth: Growth, folder: Path, results: Results) -> None:
    """Measure servegrpc's CPU per request, alone on the machine: with more and more callers, in turn, then with one model and with many."""
    peer, deployment = ServeGrpc(folder), Deployment(MODELS[GROWTH.model], GROWTH.batch_size)

    def cpu_us(target: Target, *callers: int) -> dict[int, float]:
        samples = [sample(peer, target, replace(GROWTH, concurrency=many), plan.seconds) for _ in range(plan.repeats) for many in callers]
        return {many: median(one.cpu_us for one in samples if one.cell.concurrency == many) for many in callers}

    try:
        peer.open()
        target = peer.deploy(deployment)
        results.callers_cpu_us = cpu_us(target, *growth.callers)
        results.models_cpu_us[1] = cpu_us(target, GROWTH.concurrency)[GROWTH.concurrency]
        for number in range(1, growth.models):
            peer.register(deployment, name=f"{GROWTH.model}-{number}")
        results.models_cpu_us[growth.models] = cpu_us(target, GROWTH.concurrency)[GROWTH.concurrency]
    finally:
        peer.close()


def _open(peer: Peer) -> None:
    peer.open()
    if isinstance(peer, TorchServe):
        peer.warm_up()


def _deploy_checked(peer: Peer, scenario: Scenario) -> Target:
    target = peer.deploy(scenario.deployment)
    load.check(target)
    return target


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


def _attempt(results: Results, what: str, work: Callable[..., object], *arguments: object) -> bool:
    """Do something that may fail for one server without ending the run; a failure is reported."""
    try:
        work(*arguments)
    except Faults as fault:
        last_line = (str(fault).strip().splitlines() or [""])[-1]
        results.failures.append(f"{what}: {type(fault).__name__}: {re.sub(r'/[^ ,]+/', '', last_line)[:300]}")
        return False
    return True
