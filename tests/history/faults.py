"""What goes wrong while the calls run, at random; each fault is written down with its time, for the check to know what it explains."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import psutil

LOST, STUCK, GONE, FULL = "lost", "stuck", "gone", "full"  # a worker ends, or does not answer; a version is not there; the queue is full
MODELS = ("deeds", "parts", "tokens", "awaits", "totals", "guest")
VERSIONS = ("1.0", "2.0")
FORK_SERVER = "SIGKILL for the fork server"


@dataclass
class Fault:
    """One thing done to a model; it explains errors from `begin` to `end`, when the workers that it ends have ended."""

    what: str
    effects: tuple[str, ...]
    model: str
    begin: float
    end: float = float("inf")


class Faults:
    """Does one thing after the other to a server. `management` is a client with threads; its calls run beside the load."""

    def __init__(self, server, management, chance, archives, clients):
        self._server = server
        self._management = management
        self._chance = chance
        self._archives = archives
        self._client = clients
        self.done = []

    async def one(self):
        """Do one thing, and wait until it is done."""
        kills = (self._kill, self._kill, self._kill_all, self._kill_fork_server, self._pause, self._freeze, self._poison, self._poison)
        await self._chance.choice((*kills, self._scale, self._switch, self._replace))()

    def note(self, what, effects, model):
        self.done.append(Fault(what, effects, model, monotonic()))
        return self.done[-1]

    async def _kill(self):
        model = self._chance.choice(["deeds", "deeds", "parts", "tokens", "awaits", "totals", "guest"])
        fault = self.note("SIGKILL", (LOST,), model)
        await self._signal(await self._one_pid(model), signal.SIGKILL)
        fault.end = monotonic()

    async def _kill_all(self):
        """Kill all workers of a model at the same moment."""
        fault = self.note("SIGKILL for all", (LOST,), model := self._chance.choice(["deeds", "parts", "totals", "guest"]))
        await self._signal(await self._pids(model), signal.SIGKILL)
        fault.end = monotonic()

    async def _kill_fork_server(self):
        """Kill the process that all workers are forked from: they end with it."""
        faults = [self.note(FORK_SERVER, (LOST,), model) for model in MODELS]
        workers = _handles([pid for model in MODELS for pid in await self._pids(model)])
        await self._signal([process.pid for process in psutil.Process(self._server.process.pid).children()], signal.SIGKILL)
        await _ended(workers)
        for fault in faults:
            fault.end = monotonic()

    async def _pause(self):
        """Stop a worker for less than the response timeout: only a delay."""
        fault = self.note("SIGSTOP", (), model := self._chance.choice(["deeds", "parts", "tokens", "awaits", "totals"]))
        await self._signal(await self._one_pid(model), signal.SIGSTOP, signal.SIGCONT, seconds=0.3)
        fault.end = monotonic()

    async def _freeze(self):
        """Stop a worker for longer than the response timeout, if it has something to do."""
        fault = self.note("SIGSTOP for long", (STUCK,), model := self._chance.choice(["deeds", "parts", "tokens", "awaits"]))
        await self._signal(await self._one_pid(model), signal.SIGSTOP, signal.SIGCONT, seconds=3)
        fault.end = monotonic()

    async def _poison(self):
        """Send a request that ends its worker, or never returns."""
        deed = self._chance.choice(["exit", "segfault", "hang"])
        fault = self.note(deed, (STUCK,) if deed == "hang" else (LOST,), "deeds")
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

    async def _pids(self, model):
        found = await asyncio.to_thread(self._management.model, model)
        return sorted(worker.pid for version in found.versions for worker in version.workers if worker.pid)

    async def _one_pid(self, model):
        pids = await self._pids(model)
        return [self._chance.choice(pids)] if pids else []

    async def _signal(self, pids, *numbers, seconds=0.0):
        """Send signals to processes, some time apart; returns when those that are killed have ended."""
        handles = _handles(pids)
        for number in numbers:
            for handle in handles:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
            await asyncio.sleep(seconds)
        if signal.SIGKILL in numbers:
            await _ended(handles)
        else:
            _close(handles)


def _handles(pids):
    """Return descriptors of those processes that are there, so that no other one gets what is meant for them."""
    handles = []
    for pid in pids:
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    return handles


def _close(handles):
    for handle in handles:
        os.close(handle)


async def _ended(handles):
    """Wait for the ends of processes, and close their descriptors."""
    loop = asyncio.get_running_loop()
    for handle in handles:
        ended = loop.create_future()
        loop.add_reader(handle, lambda ended=ended: ended.done() or ended.set_result(None))
        await ended
        loop.remove_reader(handle)
    _close(handles)
