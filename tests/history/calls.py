"""The load: what each kind of call sends, and what is written down of how it ended.

A call's answer is right when it is made of the call's own id; anything else is a `problem`, told with the call.
"""

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from time import monotonic

import grpc

from history import wire
from history.handlers.deeds import expanded

NO_STATUS_SECONDS = 40  # a call that has no status after so long never gets one
OK = "OK"


@dataclass
class Call:
    """What is known of one call; `outcome` is OK, a reason, or the name of a code."""

    kind: str
    dialect: str
    model: str
    id: str
    begin: float
    timeout: float = NO_STATUS_SECONDS
    cancelled_at: float | None = None
    end: float = 0.0
    outcome: str = ""
    message: str = ""
    problems: list[str] = field(default_factory=list)


class Client:
    """Makes calls over one connection and keeps the history of all of them."""

    def __init__(self, address, chance):
        self._channel = wire.channel(address)
        self._chance = chance
        self._numbers = itertools.count(1)
        self.calls = []

    async def close(self):
        await self._channel.close()

    def _begin(self, kind, dialect, model, **kwargs):
        call = Call(kind, dialect, model, f"{kind}-{next(self._numbers)}", monotonic(), **kwargs)
        self.calls.append(call)
        return call

    def _payload(self, call, *, size=20, **ask):
        head = {"id": call.id, "size": size, "reply_size": size, "deed": "answer", "milliseconds": 0, **ask}
        return json.dumps(head).encode() + b"\n" + expanded(call.id, size), head

    async def unary(self, kind, *, model="deeds", version="", dialect=None, timeout=NO_STATUS_SECONDS, cancel_after=None, **ask):
        """Make one unary call, and check that its answer is its own."""
        call = self._begin(kind, dialect or self._dialect(), model, timeout=timeout)
        payload, ask = self._payload(call, **ask)
        raw = wire.request(call.dialect, model, version, payload, call.id)
        rpc = self._channel.unary_unary(wire.PATHS[call.dialect])(raw, timeout=timeout)
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(cancel_after, self._cancel, call, rpc)
        async with _written(call):
            self._check_unary(call, await rpc, version, ask)

    async def stream(self, kind, *, model="parts", leave_after=None, rest_seconds=0.0, **ask):
        """Read one stream, to its end or for so many messages; with a rest, the first is read long before the others."""
        dialect = self._chance.choice(["native", "native", "torchserve"])
        call = self._begin(kind, dialect, model)
        payload, ask = self._payload(call, **ask)
        rpc = self._channel.unary_stream(wire.PATHS[f"{dialect} stream"])(
            wire.request(dialect, model, "", payload, call.id), timeout=call.timeout
        )
        async with _written(call):
            step = 0
            async for raw in rpc:
                step += 1
                head, body = self._proof(call, raw)
                if head["step"] != step or body != expanded(f"part {step} of {call.id}", ask["reply_size"]):
                    call.problems.append(f"message {step} is {head}")
                if step == leave_after:
                    self._cancel(call, rpc)
                if step == 1:
                    await asyncio.sleep(rest_seconds)
            if step != ask["count"] and call.cancelled_at is None:
                call.problems.append(f"{step} messages and OK, of {ask['count']}")

    async def many(self, kind, count, **ask):
        """Send several requests on one stream of Open Inference at once; each is a call of the history."""
        calls = {call.id: call for call in (self._begin(kind, "open inference", "deeds") for _ in range(count))}
        payloads = {name: self._payload(call, **ask) for name, call in calls.items()}
        rpc = self._channel.stream_stream(wire.PATHS["open inference stream"])(timeout=NO_STATUS_SECONDS)
        for name, (payload, _) in payloads.items():
            await rpc.write(wire.request("open inference", "deeds", "", payload, name))
        await rpc.done_writing()
        async for raw in rpc:
            name, reply, failed, message = wire.stream_result(raw)
            call = calls[name]
            async with _written(call):
                if not failed:
                    self._check_unary(call, reply, "", payloads[name][1])
            call.outcome, call.message = failed or call.outcome, message

    async def session(self, kind, numbers, *, milliseconds):
        """Add numbers up in a native session: one call, with an answer for each number."""
        call = self._begin(kind, "native", "totals")
        rpc = self._channel.stream_stream(wire.PATHS["native session"])(timeout=call.timeout)
        async with _written(call):
            for count, number in enumerate(numbers, 1):
                payload, _ = self._payload(call, number=number, milliseconds=milliseconds)
                await rpc.write(wire.request("native", "totals" if count == 1 else "", "", payload, call.id))
                self._check_total(call, await rpc.read(), numbers[:count])
            await rpc.done_writing()
            if await rpc.read() is not grpc.aio.EOF:
                call.problems.append("a message more than was asked for")

    async def sequence(self, kind, numbers, *, milliseconds):
        """Add numbers up in a sequence of Open Inference: a call for each number, until one fails."""
        name = f"sequence-{next(self._numbers)}"
        method = self._channel.unary_unary(wire.PATHS["open inference"])
        for count, number in enumerate(numbers, 1):
            call = self._begin(kind, "open inference", "totals")
            payload, _ = self._payload(call, number=number, milliseconds=milliseconds)
            place = (name, count == 1, count == len(numbers))
            async with _written(call):
                raw = await method(wire.request(call.dialect, "totals", "", payload, call.id, place), timeout=call.timeout)
                self._check_total(call, raw, numbers[:count])
            if call.outcome != OK:
                return

    def _dialect(self):
        return self._chance.choice(["native", "native", "torchserve", "open inference"])

    def _cancel(self, call, rpc):
        if not rpc.done():
            call.cancelled_at = monotonic()
            rpc.cancel()

    def _proof(self, call, raw):
        """Return what a reply says of itself and its bytes."""
        body, request_id, version = wire.result(call.dialect, raw)
        head, _, rest = bytes(body).partition(b"\n")
        proof = json.loads(head)
        if proof["id"] != call.id or request_id not in ("", call.id):
            call.problems.append(f"got the reply of {proof['id']} ({request_id})")
        if version and proof.get("version", version) != version:
            call.problems.append(f"says version {version} and comes from {proof['version']}")
        return proof, rest

    def _check_unary(self, call, raw, version, ask):
        head, body = self._proof(call, raw)
        if version and head["version"] != version:
            call.problems.append(f"version {version} was asked for, {head['version']} answered")
        if body != expanded(f"reply to {call.id}", ask["reply_size"]):
            call.problems.append(f"a torn reply of {len(body)} bytes")

    def _check_total(self, call, raw, numbers):
        head, _ = self._proof(call, raw)
        if (head["total"], head["count"]) != (sum(numbers), len(numbers)):
            call.problems.append(f"{head} instead of {sum(numbers)} of {len(numbers)} numbers")


class _written:  # noqa: N801 - a context manager, used as a function
    """Writes down how a call ended."""

    def __init__(self, call):
        self._call = call

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, trace):
        call = self._call
        if call.outcome:
            call.problems.append(f"ended twice: {call.outcome}, then {error}")
        call.end = monotonic()
        if error is None:
            call.outcome = OK
        elif isinstance(error, asyncio.CancelledError) and call.cancelled_at is not None:
            call.outcome = "CANCELLED"
        elif isinstance(error, grpc.RpcError):
            call.outcome, call.message = wire.outcome(error)
        else:
            return False
        return True
