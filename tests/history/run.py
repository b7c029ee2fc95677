"""One run: a server, the load on it for some seconds with faults all the while, and then the check.

start ─► a little load ─► footprint ─► load ‖ faults ─► all calls have ended ─► check, footprint again
"""

import asyncio
import os
import random
import tempfile
import urllib.request
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families
from servers import ServerProcess, until

from history.calls import Client
from history.check import summary, violations
from history.faults import FULL, VERSIONS, Faults
from history.footprint import Footprint, footprint
from servegrpc.core.archiver import ArchiveSpec, write_archive

HANDLERS = Path(__file__).parent / "handlers"
WARM_UP_SECONDS = 1.5
CALLERS = 16
QUEUE_SIZE = 40
BURST = 70
FAULT_SECONDS = (0.2, 0.8)  # between two faults
MOVING_SAMPLES = 15  # in a row in which requests are between the queue and the workers: more were counted wrongly
WORKERS = {"deeds": 3, "parts": 2, "tokens": 1, "awaits": 1, "totals": 2, "guest": 1}
STREAMING = ["parts", "tokens", "awaits"]
ROOM = {
    "threads": 48,  # pools have fewer than this at most, make threads when there is much to do, and keep them
    "memfd": 2 * sum(WORKERS.values()),  # a slab that has been used is mapped, by one more descriptor
}


@dataclass
class History:
    """What came of a run; without `wrong`, all was well."""

    wrong: list[str]
    summary: list[str]
    calls: int
    faults: int
    before: Footprint
    after: Footprint


def run(seed, seconds, *, lane="on", faulty=True):
    """Run once; blocks for a little longer than the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), random.Random(seed), lane)
        try:
            return asyncio.run(world.run(seconds, faulty=faulty))
        finally:
            world.server.stop()


class World:
    """A server with its models, and what happens to it."""

    def __init__(self, folder, chance, lane):
        self._chance = chance
        self.folder = folder / "tmp"
        self.folder.mkdir()
        self._journal = folder / "journal"
        self._journal.touch()
        self._archives = {(name, version): self._archive(folder, name, version) for name in WORKERS for version in VERSIONS}
        self._room = ROOM | ({"threads": CALLERS + BURST} if lane == "off" else {})  # then each call has a thread
        self.server = ServerProcess("--fast-lane", lane, environment={"TMPDIR": str(self.folder)})
        self._ends = float("inf")
        self.unequal = []

    def _archive(self, folder, name, version):
        config = folder / "model-config.yaml"
        size = 4 if name != "totals" else 2
        lines = [f"batchSize: {size}", f"minWorkers: {WORKERS[name]}", "responseTimeout: 2", f"jobQueueSize: {QUEUE_SIZE}"]
        lines += ["streamBufferBytes: 100000"] * (name in ("tokens", "awaits"))
        config.write_text("\n".join([*lines, f"journal: {self._journal}", ""]))
        handler = "deeds" if name == "guest" else name
        shared = [] if handler == "deeds" else ["deeds"] if name in ("parts", "totals") else ["deeds", "parts"]
        extra = ",".join(str(HANDLERS / f"{module}.py") for module in shared) or None
        file, store = str(HANDLERS / f"{handler}.py:{handler.title()}"), str(folder / version)
        return str(write_archive(ArchiveSpec(name, file, version, config_file=str(config), extra_files=extra, export_path=store)))

    async def run(self, seconds, *, faulty):
        """See the module."""
        with self.server.client() as management:
            for name in WORKERS:
                for version in VERSIONS if name == "guest" else VERSIONS[:1]:
                    await asyncio.to_thread(management.register, self._archives[name, version])
            await self._load(management, WARM_UP_SECONDS, faulty=False)
            before = await asyncio.to_thread(self._quiet, management)
            os.truncate(self._journal, 0)
            client, faults = await self._load(management, seconds, faulty=faulty)
            after = await asyncio.to_thread(self._settled, management, before)
        wrong = violations(client.calls, faults.done, self._journal.read_text().splitlines())
        wrong += [*self.unequal, *after.more_than(before, **self._room), *self._wrong_metrics(client.calls)]
        return History(wrong, summary(client.calls, faults.done), len(client.calls), len(faults.done), before, after)

    async def _load(self, management, seconds, *, faulty):
        """Return the history when the time is over and every call has ended."""
        self._ends = monotonic() + seconds
        client = Client(self.server.inference, self._chance)
        faults = Faults(self.server, management, self._chance, self._archives, client)
        async with asyncio.TaskGroup() as group:
            for work in [self._burst(client, faults), *(self._call_on(client) for _ in range(CALLERS))]:
                group.create_task(work)
            group.create_task(self._watch_metrics(self.unequal))
            if faulty:
                group.create_task(self._break(faults))
        await client.close()
        return client, faults

    async def _call_on(self, client):
        while monotonic() < self._ends:
            await self._one(client)

    async def _one(self, client):
        """Make one call of a random kind."""
        chance = self._chance
        kind = chance.choices(*zip(*KINDS.items(), strict=True))[0]
        wait = {"milliseconds": chance.choice([0, 0, 5, 30])}
        match kind:
            case "small":
                await client.unary(kind, **wait)
            case "guest":
                await client.unary(kind, model="guest", version=chance.choice(["", *VERSIONS]), **wait)
            case "large":
                await client.unary(kind, size=chance.choice([20_000, 200_000, 1_000_000]))
            case "cancelled":
                await client.unary(kind, cancel_after=chance.uniform(0, 0.05), milliseconds=20)
            case "expiring":
                await client.unary(kind, timeout=chance.uniform(0.001, 0.08), milliseconds=30)
            case "refused":
                await client.unary(kind, deed="refuse")
            case "stream":
                await client.stream(
                    kind, model=chance.choice(STREAMING), count=chance.randint(1, 20), size=chance.choice([20, 20_000]), **wait
                )
            case "left":
                await client.stream(kind, model=chance.choice(STREAMING), count=1000, milliseconds=5, leave_after=chance.randint(1, 5))
            case "slow":
                await client.stream(kind, model=chance.choice(STREAMING[1:]), count=60, size=50_000, rest_seconds=0.3)
            case "many":
                await client.many(kind, chance.randint(1, 6), **wait)
            case "session" | "sequence":
                await getattr(client, kind)(kind, [chance.randint(0, 99) for _ in range(chance.randint(1, 12))], **wait)

    async def _burst(self, client, faults):
        """Ask for more at once than the queue holds, again and again."""
        while monotonic() < self._ends:
            burst = faults.note("burst", (FULL,), "deeds")
            await asyncio.gather(*(client.unary("burst", milliseconds=1) for _ in range(BURST)))
            burst.end = monotonic()
            await asyncio.sleep(self._chance.uniform(0.5, 1.5))

    async def _break(self, faults):
        while monotonic() < self._ends:
            await asyncio.sleep(self._chance.uniform(*FAULT_SECONDS))
            await faults.one()

    def _quiet(self, management):
        """Wait until all workers are there and nothing is in flight; returns what the server holds then."""
        until(lambda: self._at_rest(management), 40)
        return footprint(self.server.process.pid, self.folder)

    def _settled(self, management, before):
        """Wait until the server holds no more than before, and no longer than it may take; returns what it holds."""
        self._quiet(management)
        ends = monotonic() + 10
        while (now := footprint(self.server.process.pid, self.folder)).more_than(before, **self._room) and monotonic() < ends:
            self._at_rest(management)  # connections are closed meanwhile
        return now

    def _at_rest(self, management):
        in_flight = _values(self._metrics(), "servegrpc_in_flight_requests")
        ready = {
            model.name: [worker.state for version in model.versions for worker in version.workers].count("READY")
            for model in management.models()
        }
        return ready == {**WORKERS, "guest": 2} and not any(in_flight.values())

    def _metrics(self):
        """Return all samples, read at one time."""
        with closing(urllib.request.urlopen(f"http://{self.server.metrics}/metrics")) as page:
            return [sample for family in text_string_to_metric_families(page.read().decode()) for sample in family.samples]

    async def _watch_metrics(self, unequal):
        """Add up, again and again: what was accepted is answered or in flight, and that waits or is with a worker, or is just between."""
        moving = Counter()
        while monotonic() < self._ends:
            samples = await asyncio.to_thread(self._metrics)
            accepted, in_flight = (_values(samples, f"servegrpc_{name}") for name in ("accepted_requests_total", "in_flight_requests"))
            there = _values(samples, "servegrpc_requests_total") + in_flight
            unequal += [f"{key}: {accepted[key]} accepted, {there[key]} in all" for key in accepted if accepted[key] != there[key]]
            held = _values(samples, "servegrpc_queued_requests") + _values(samples, "servegrpc_running_requests")
            for key in accepted:
                moving[key] = moving[key] + 1 if in_flight[key] != held[key] else 0
            unequal += [f"{key}: {in_flight[key]} in flight, {held[key]} held" for key in accepted if moving[key] == MOVING_SAMPLES]
            await asyncio.sleep(0.2)

    def _wrong_metrics(self, calls):
        """Hold the metrics against each other and against the history, for the models that were there all the time."""
        samples = self._metrics()
        accepted, answered = _values(samples, "servegrpc_accepted_requests_total"), _values(samples, "servegrpc_requests_total")
        well = _values([sample for sample in samples if sample.labels.get("code") == "OK"], "servegrpc_requests_total")
        seen = Counter(call.model for call in calls if call.outcome == "OK" and call.kind != "session")
        for model in WORKERS:
            if accepted[model] != answered[model]:
                yield f"{model}: {accepted[model]} accepted, {answered[model]} answered, none in flight"
            if model != "guest" and well[model] < seen[model]:
                yield f"{model}: {well[model]} answered OK, {seen[model]} callers saw OK"


def _values(samples, name):
    """Return the values of a metric by model, all versions and other labels together."""
    values = Counter()
    for sample in samples:
        if sample.name == name:
            values[sample.labels["model_name"]] += int(sample.value)
    return values


KINDS = {
    "small": 30,
    "guest": 10,
    "large": 6,
    "cancelled": 10,
    "expiring": 10,
    "refused": 4,
    "stream": 12,
    "left": 4,
    "slow": 2,
    "many": 5,
    "session": 7,
    "sequence": 7,
}
