"""The loops of live workers, each on a thread, with the server's end of the channel in the test."""

import asyncio
import math
import os
import threading
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from google.rpc import error_details_pb2, status_pb2
from servers import until

from servegrpc.engine.channel import LEFT, PAUSED, Channel, Kind, Replies
from servegrpc.errors import Code, InvalidHandlerResult, InvalidInput, ServeError
from servegrpc.handlers.stepping import StepHandler
from servegrpc.handlers.streaming import NOTHING, Last
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_value
from servegrpc.wire.codecs import CODECS
from servegrpc.worker.answers import Answers
from servegrpc.worker.async_loop import AsyncLoop
from servegrpc.worker.context import Context
from servegrpc.worker.step_loop import CalledSteps, StepLoop

SECONDS = 20  # that a message may take at most
ANSWERS = Answers(CODECS, "m", "1.0", 1, True)


class Server:
    """The server's end. Each request is a hand-over of its own; `ask` returns its ticket."""

    def __init__(self, loop, *args):
        self.channel, descriptors = Channel.pair(8)
        self._worker = Channel.from_descriptors([descriptors[0], *map(os.dup, descriptors[1:])])
        self._tickets = 0
        self._replies = []
        self.loop = loop(self._worker, *args)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with suppress(ConnectionError):  # the test is over
            self.loop.serve()

    def ask(self, data, *, streamed=True, headers=(), request_id="r"):
        payload = inference_pb2.PredictRequest(inputs={"data": encode_value(data)}).SerializeToString()
        return self.ask_raw(payload, streamed, headers, request_id)

    def ask_raw(self, payload, streamed=False, headers=(), request_id="r"):
        self._tickets += 1
        request = SimpleNamespace(
            payload=payload, dialect=0, request_id=request_id, headers=headers, arrived=0.0, deadline=math.inf, streamed=streamed
        )
        self.channel.send_batch(0, self._tickets, [request], 0.0)
        return self._tickets

    def flag(self, ticket, flags):
        self.channel.send(Kind.FLAG, {"ticket": ticket, "index": 0, "flags": flags})

    def message(self):
        """Return the replies of the next message that is not of metrics."""
        while self.channel.wait_readable(SECONDS):
            if isinstance(received := self.channel.receive(), Replies):
                return received.replies
        raise AssertionError("it sent nothing")

    def reply(self, ticket, *, more=False):
        """Return the next reply to a request."""
        while True:
            for reply in self._replies:
                if reply.ticket == ticket and reply.more == more:
                    self._replies.remove(reply)
                    return reply
            self._replies += self.message()

    def close(self):
        """Close both ends; the loop and its inbox have ended, or do so now, since nobody is there any more."""
        self._thread.join()
        self.channel.close()
        self._worker.close()


@pytest.fixture
def serve():
    """Start a loop for a handler."""
    servers = []

    def serve(handler, response_timeout=math.inf, *, continuous=False):
        if continuous:
            context = Context("m", "/", {}, 8, None)
            servers.append(Server(StepLoop, CalledSteps(handler, context), ANSWERS, context))
        elif isinstance(handler, StepHandler):
            servers.append(Server(StepLoop, handler, ANSWERS, Context("m", "/", {}, 8, None), response_timeout))
        else:
            servers.append(Server(AsyncLoop, handler, ANSWERS, Context("m", "/", {}, 8, None), response_timeout))
        return servers[-1]

    yield serve
    for server in servers:
        server.channel.hang_up()
    for thread in threading.enumerate():
        if thread.name == "inbox":  # it may outlive its loop, and must not read what is closed
            thread.join()
    for server in servers:
        server.close()


def value(reply):
    assert reply.code == Code.OK, reply.message
    return decode_value(inference_pb2.PredictResponse.FromString(reply.body).output)


def reason(reply):
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(reply.body).details[0].Unpack(info)
    return info.reason


class Steps(StepHandler):
    """Gives each request what it asks for, until `done`."""

    done = False

    def start(self, request):
        request.state = request.data["data"]

    def step(self, active):
        return [Last("done") if self.done else NOTHING if request.state == "nothing" else request.state for request in active]


async def ticking(data, context):
    """Stream without end, or be silent for ever."""
    while data[0]["data"] != "nothing":
        yield [data[0]["data"]]
        await asyncio.sleep(0)
    await asyncio.Event().wait()


class Refusing(StepHandler):
    """Takes no request."""

    def start(self, request):
        raise InvalidInput("no.")

    def step(self, active):
        raise AssertionError


async def refuse(data, context):
    raise InvalidInput("no.")


@pytest.mark.parametrize("handler", [Refusing(), refuse], ids=["steps", "async"])
def test_refused_by_the_handler_or_before(serve, handler):
    """A request cannot be read, another one the handler refuses → the server hears that the first was not run."""
    server = serve(handler)
    for ticket, unrun in ((server.ask_raw(b""), True), (server.ask(1, streamed=False), False)):
        reply = server.reply(ticket)
        assert (reply.code, reply.unrun) == (Code.INVALID_ARGUMENT, unrun)


def test_requests_come_during_steps(serve):
    """A request is sent during each step → it joins the next one, however late the inbox's thread gets the interpreter."""
    sizes = []

    class Asking(Steps):
        def step(self, active):
            sizes.append(len(active))
            if len(sizes) == 200:
                return [Last("done")] * len(active)
            server.ask("leaves", streamed=False)
            return [Last("done") if request.state == "leaves" else request.state for request in active]

    server = serve(Asking())
    assert value(server.reply(server.ask("stays"))) == "done"
    assert sizes == [1] + [2] * 199


@pytest.mark.parametrize("continuous", [False, True])
def test_caller_left_before_its_first_step(serve, continuous):
    """A request's caller leaves while the step before its first one runs → it counts as run only if the handler has started it."""
    stepping, go_on = threading.Event(), threading.Event()

    def handle(data, context):
        stepping.set()
        assert go_on.wait(SECONDS)
        return ["step"] * len(data)

    class Waiting(StepHandler):
        def start(self, request):
            pass

        def step(self, active):
            return [Last(value) for value in handle(active, None)]

    server = serve(handle if continuous else Waiting(), continuous=continuous)
    server.ask("first")
    assert stepping.wait(SECONDS)
    left = server.ask("left")
    server.flag(left, LEFT)
    until(lambda: server.loop._messages.qsize() == 2)
    go_on.set()
    reply = server.reply(left)
    assert (reply.code, reply.unrun) == (Code.CANCELLED, continuous)


# --- signs of life


@pytest.mark.parametrize("streamed", [True, False])
def test_silent_steps(serve, streamed):
    """Steps give a request nothing → the server hears by empty messages that they go on."""
    server = serve(Steps(), 0.01)
    server.ask("nothing", streamed=streamed)
    assert [server.message() for _ in range(30)] == [[]] * 30


def test_silent_async_stream(serve):
    """A stream of an asynchronous handler is silent for longer than the response timeout → it goes on, and the server hears so."""
    server = serve(ticking, 0.01)
    server.ask("nothing")
    assert [server.message() for _ in range(30)] == [[]] * 30


def test_late_async_call(serve):
    """An asynchronous handler takes longer than the response timeout for a single answer → it gets RESPONSE_TIMEOUT; others go on."""
    ended = []

    async def handle(data, context):
        try:
            if data[0]["data"] == "late":
                await asyncio.Event().wait()
            return ["in time"]
        finally:
            ended.append(data[0]["data"])

    server = serve(handle, 0.05)
    late = server.reply(server.ask("late", streamed=False))
    assert (late.code, reason(late)) == (Code.DEADLINE_EXCEEDED, "RESPONSE_TIMEOUT")
    assert value(server.reply(server.ask("next", streamed=False))) == "in time"
    assert ended == ["late", "next"]


# --- callers who leave, and readers who fall behind


def test_caller_leaves_during_a_step(serve):
    """The caller leaves while a step runs → it gets no further step, and the handler lets go of it once."""
    entered, go, seen = threading.Semaphore(0), threading.Semaphore(0), []

    class Held(Steps):
        def step(self, active):
            seen.append("step")
            entered.release()
            go.acquire()
            return super().step(active)

        def finish(self, request):
            seen.append("finish")

    server = serve(Held())
    ticket = server.ask("x")
    entered.acquire()
    server.flag(ticket, LEFT)
    until(lambda: server.loop.call.has_left(0))
    go.release()
    assert reason(server.reply(ticket)) == "REQUEST_CANCELLED"
    assert seen == ["step", "finish"]


@pytest.mark.parametrize("handler", [Steps(), ticking])
def test_paused(serve, handler):
    """A caller does not keep up → nothing more is made for it, others get theirs, and it goes on when it has caught up."""
    server = serve(handler)
    slow, other = server.ask("slow"), server.ask("other")
    assert (value(server.reply(slow, more=True)), value(server.reply(other, more=True))) == ("slow", "other")
    server.flag(slow, PAUSED)
    told = ({reply.ticket for reply in server.message()} for _ in range(10_000))  # the first may be from before it knew
    assert any(all(tickets == {other} for tickets in fifty) for fifty in iter(lambda: list(islice(told, 50)), []))
    server.flag(slow, 0)
    assert value(server.reply(slow, more=True)) == "slow"


@pytest.mark.parametrize("flags", [PAUSED, LEFT])
@pytest.mark.parametrize("stubborn", [True, False])
def test_async_handler_sends_to_a_slow_reader(serve, stubborn, flags):
    """An asynchronous handler sends from within to a caller who has fallen behind or left → that call ends, whatever it does."""

    async def handle(data, context):
        while data[0]["data"] == "forever":
            await asyncio.sleep(0)
            try:
                context.send_intermediate(["message"])
            except ServeError:
                if stubborn:
                    break
                raise
        return ["end"]

    server = serve(handle)
    slow = server.ask("forever")
    assert value(server.reply(slow, more=True)) == "message"
    server.flag(slow, flags)
    assert reason(server.reply(slow)) == ("SLOW_READER" if flags == PAUSED else "REQUEST_CANCELLED")
    assert value(server.reply(server.ask("next"))) == "end"


# --- continuousBatching, in TorchServe's words


def ends_at(number):
    return lambda result: result == number


def test_what_continuous_handlers_set(serve):
    """A continuous batch sets a status for one response and a header for another → each reaches its own caller."""

    def handle(data, context):
        context.stopping_criteria = [ends_at(1)] * len(data)
        for position, row in enumerate(data):
            if row["data"] == "bad":
                context.set_response_status(507, "too big", position)
            context.set_response_header(position, "x-for", row["data"])
        return [1] * len(data)

    server = serve(handle, continuous=True)
    bad, good = server.reply(server.ask("bad")), server.reply(server.ask("good"))
    assert (bad.code, "too big" in bad.message) == (Code.INTERNAL, True)
    assert (value(good), good.trailers) == (1, (("x-for", "good"),))


def test_continuous_handler_sends_and_asks(serve):
    """A continuous batch sends messages from within a step, and asks for its callers → they come, and it hears who has left."""

    def handle(data, context):
        step = 0
        while not context.is_cancelled(0):
            step += 1
            context.send_intermediate([step] * len(data))
        context.stopping_criteria = None
        return [f"{context.time_remaining(0)}"] * len(data)

    server = serve(handle, continuous=True)
    ticket = server.ask("x")
    assert [value(server.reply(ticket, more=True)) for _ in range(3)] == [1, 2, 3]
    server.flag(ticket, LEFT)
    assert value(server.reply(ticket)) == "inf"


def test_last_message_from_within_a_step(serve):
    """A continuous batch sends the last message of a stream from within → the stream has ended, and the result of the step is not sent."""

    def handle(data, context):
        context.send_intermediate([Last("last")] * len(data))
        return ["too late"] * len(data)

    server = serve(handle, continuous=True)
    assert value(server.reply(server.ask("x"))) == "last"
    assert value(server.reply(server.ask("y", streamed=False))) == "too late"


@pytest.mark.parametrize("named", [True, False])
def test_message_after_its_step(serve, named):
    """A thread of one step sends in a later step, to others → nobody gets that, and the thread is told so."""
    go, told = threading.Event(), SimpleQueue()

    def send(context, request_ids):
        go.wait(SECONDS)
        try:
            context.send_intermediate(["of another"], request_ids)
        except Exception as error:
            told.put(type(error))

    def handle(data, context):
        context.stopping_criteria = None
        if data[0]["data"] == "first":
            threading.Thread(target=send, args=(context, context.request_ids if named else None)).start()
            return ["end"]
        go.set()
        return [told.get(timeout=SECONDS) in (KeyError, InvalidHandlerResult)]

    server = serve(handle, continuous=True)
    assert value(server.reply(server.ask("first", request_id="a"))) == "end"
    server.ask("second", request_id="b")
    assert [(reply.more, value(reply)) for reply in server.message() or server.message()] == [(False, True)]  # perhaps after a sign of life


def test_threads_send_in_a_step(serve):
    """Threads of a step send at once while it runs → each message comes once."""

    def handle(data, context):
        context.stopping_criteria = None
        threads = [threading.Thread(target=lambda: [context.send_intermediate([1]) for _ in range(200)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ["end"]

    server = serve(handle, continuous=True)
    ticket = server.ask("x")
    assert [value(server.reply(ticket, more=True)) for _ in range(800)] == [1] * 800
    assert value(server.reply(ticket)) == "end"
