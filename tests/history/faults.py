"""What goes wrong while the calls run, at random; each fault is written down with its time, for the check to know what it explains."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

LOST, STUCK, GONE, FULL = "lost", "stuck", "gone", "full"  # a worker ends, or does not answer; a version is not there; the queue is full
VERSIONS = ("1.0", "2.0")


@dataclass
class Fault:
    """One thing done to a model; it explains errors from `begin` until a little after `end`."""

    what: str
    effects: tuple[str, ...]
    model: str
    begin: float
    end: float = float("inf")


class Faults:
    """Does one thing after the other. `management` is a client with threads; its calls run beside the load."""

    def __init__(self, management, chance, archives, clients):
        self._management = management
        self._chance = chance
        self._archives = archives
        self._client = clients
        self.done = []

    async def one(self):
        """Do one thing, and wait until it is done."""
        deeds = (self._kill, self._kill, self._pause, self._freeze, self._poison, self._poison, self._scale, self._switch, self._replace)
        await self._chance.choice(deeds)()

    def note(self, what, effects, model):
        self.done.append(Fault(what, effects, model, monotonic()))
        return self.done[-1]

    async def _kill(self):
        model = self._chance.choice(["deeds", "deeds", "parts", "tokens", "awaits", "totals", "guest"])
        fault = self.note("SIGKILL", (LOST,), model)
        await self._signal(model, signal.SIGKILL)
        fault.end = monotonic()

    async def _pause(self):
        """Stop a worker for less than the response timeout: only a delay."""
        fault = self.note("SIGSTOP", (), model := self._chance.choice(["deeds", "parts", "tokens", "awaits", "totals"]))
        await self._signal(model, signal.SIGSTOP, signal.SIGCONT, seconds=0.3)
        fault.end = monotonic()

    async def _freeze(self):
        """Stop a worker for longer than the response timeout, if it has something to do."""
        fault = self.note("SIGSTOP for long", (LOST, STUCK), model := self._chance.choice(["deeds", "parts", "tokens", "awaits"]))
        await self._signal(model, signal.SIGSTOP, signal.SIGCONT, seconds=3)
        fault.end = monotonic()

    async def _poison(self):
        """Send a request that ends its worker, or never returns."""
        deed = self._chance.choice(["exit", "segfault", "hang"])
        fault = self.note(deed, (LOST, STUCK) if deed == "hang" else (LOST,), "deeds")
        await self._client.unary("poison", deed=deed)
        fault.end = monotonic()

    async def _scale(self):
        fault = self.note("scale", (), "deeds")
        for workers in (self._chance.choice([1, 2, 4]), 3):
            await self._manage("scale", "deeds", workers)
        fault.end = monotonic()

    async def _switch(self):
        fault = self.note("default version", (), "guest")
        await self._manage("set_default", "guest", self._chance.choice(VERSIONS))
        fault.end = monotonic()

    async def _replace(self):
        """Unregister a version, or the model, and register it again."""
        fault = self.note("unregister and register", (GONE,), "guest")
        version = self._chance.choice(("", *VERSIONS))
        if version:
            await self._manage("set_default", "guest", next(other for other in VERSIONS if other != version))
        await self._manage("unregister", "guest", version)
        for one in (version,) if version else VERSIONS:
            await self._manage("register", self._archives["guest", one])
        fault.end = monotonic()

    async def _manage(self, call, *arguments):
        await asyncio.to_thread(getattr(self._management, call), *arguments)

    async def _signal(self, model, *numbers, seconds=0.0):
        """Send signals to one worker of a model, some time apart; by descriptor, so that no other process gets them."""
        found = await asyncio.to_thread(self._management.model, model)
        pids = sorted(worker.pid for version in found.versions for worker in version.workers if worker.pid)
        if not pids:
            return
        with suppress(ProcessLookupError):
            worker = os.pidfd_open(self._chance.choice(pids))
            try:
                for number in numbers:
                    signal.pidfd_send_signal(worker, number)
                    await asyncio.sleep(seconds)
            finally:
                os.close(worker)
