"""Handlers that yield or send messages: callers who leave, fall behind or stall, and threads that are late."""

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from handler_runs import Recorded, item, reason, result, run_items, streamed

from servegrpc.engine.channel import PAUSED
from servegrpc.errors import Code, InvalidHandlerResult, RequestCancelled
from servegrpc.wire.codecs import CODECS
from servegrpc.worker.answers import Answers
from servegrpc.worker.batch_call import HOLD_UP_SECONDS
from servegrpc.worker.context import Context
from servegrpc.worker.runner import STALL_SECONDS, Runner

SECONDS = 20  # that a wait may take at most


def test_caller_leaves_a_handler_that_yields():
    """The caller leaves while a step runs → the handler is closed after that step."""
    outlet, steps = Recorded(), []

    def handle(rows, context):
        for step in range(5):
            outlet.left = (0,) if step == 1 else ()
            steps.append(step)
            yield [step]

    run_items(handle, [streamed("x", "r")], outlet)
    assert steps == [0, 1]
    assert [reply.code for reply in outlet.replies] == [Code.OK, Code.CANCELLED]


def run_sending(*items, left):
    """Run a handler that sends three messages, while the callers at `left` leave; returns how many it sent, and the final replies."""
    outlet, steps = Recorded(), []

    def handle(rows, context):
        outlet.left = left
        for step in range(3):
            steps.append(step)
            context.send_intermediate([step] * len(rows))
        return ["end"] * len(rows)

    replies = run_items(handle, [*items], outlet, isolate=True)
    return len(steps), replies


def test_callers_leave_a_handler_that_sends(capsys):
    """All callers leave a handler that sends from within → it is ended at its next message, which is no error of its."""
    steps, replies = run_sending(streamed("x", "a"), streamed("y", "b"), left=(0, 1))
    assert steps == 1
    assert [reason(reply) for reply in replies] == ["REQUEST_CANCELLED"] * 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("other", [streamed("y", "b"), item("y", "b")])
def test_some_callers_leave_a_handler_that_sends(other):
    """A caller leaves a handler that sends from within, another waits, for messages or the one answer → it goes on for that one."""
    steps, replies = run_sending(streamed("x", "a"), other, left=(0,))
    assert steps == 3
    assert result(replies[1]) == "end"


@pytest.mark.parametrize("named", [True, False])
def test_message_after_its_call(named):
    """A thread of one call sends during the next one, of others → nobody gets that, and the thread is told so."""
    go, told, outlet = threading.Event(), SimpleQueue(), Recorded()

    def send(context, request_ids):
        go.wait(SECONDS)
        try:
            context.send_intermediate(["of another"], request_ids)
        except Exception as error:
            told.put(type(error))

    def handle(rows, context):
        if rows == [{"data": "first"}]:
            threading.Thread(target=send, args=(context, context.request_ids if named else None)).start()
            return ["end"]
        go.set()
        return [told.get(timeout=SECONDS) in (KeyError, InvalidHandlerResult)]

    context = Context(model_name="m", model_dir="/", manifest={}, batch_size=8, gpu=None, model_yaml_config={})
    runner = Runner(handle, context, Answers(CODECS, "m", "2.0", 5, expose_errors=False))
    replies = [reply for name in ("first", "second") for reply in runner.run([streamed(name, name)], outlet)]
    assert [result(reply) for reply in replies] == ["end", True]
    assert outlet.sent == []


def test_message_between_calls():
    """A thread sends when its call is over and none runs → the message is refused."""
    contexts = []

    def handle(rows, context):
        contexts.append(context)
        return ["end"]

    outlet = Recorded()
    run_items(handle, [streamed("x", "r")], outlet)
    with pytest.raises(RequestCancelled, match="after its call was over"):
        contexts[0].send_intermediate(["late"])
    assert outlet.sent == []


def test_thread_sends():
    """A thread that a handler starts sends while its call runs, one from before it by the id of the request → both messages come."""
    outlet = Recorded()

    def handle(rows, context):
        thread = threading.Thread(target=context.send_intermediate, args=(["new"],))
        thread.start()
        thread.join()
        pool.submit(context.send_intermediate, ["old"], context.request_ids).result(SECONDS)
        return ["end"]

    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result(SECONDS)
        replies = run_items(handle, [streamed("x", "r")], outlet)
    assert [result(reply) for reply in [*outlet.replies, *replies]] == ["new", "old", "end"]


class Behind(Recorded):
    """The callers at `paused` do not keep up, until the handler has waited `waits` times for them."""

    def __init__(self, *paused, waits):
        super().__init__()
        self.paused, self.waits = paused, waits
        self.waited = []

    def flags(self, index):
        return PAUSED if index in self.paused and len(self.waited) < self.waits else 0

    def wait(self, index, seconds):
        self.waited.append((index, seconds))


def count_to_two(rows, context):
    for step in (1, 2):
        yield [step] * len(rows)


def test_reader_falls_behind():
    """A caller alone in its batch falls behind, and catches up → the handler waits for it, and it gets everything."""
    outlet = Behind(0, waits=1)
    (end,) = run_items(count_to_two, [streamed("x", "r")], outlet)
    assert outlet.waited == [(0, STALL_SECONDS)]
    assert ([result(reply) for reply in outlet.replies], end.code) == ([1, 2], Code.OK)


def test_reader_stalls():
    """A caller alone in its batch takes nothing for too long → its stream ends with SLOW_READER, and the handler is done."""
    outlet = Behind(0, waits=2)
    assert run_items(count_to_two, [streamed("x", "r")], outlet) == []
    assert [reply.index for reply in outlet.replies] == [0, 0]
    assert reason(outlet.replies[-1]) == "SLOW_READER"


def test_reader_holds_up_others():
    """One caller of a shared batch does not catch up → the others wait for a time, and then its stream alone ends."""
    outlet = Behind(1, waits=2)
    ends = run_items(count_to_two, [streamed("x", "a"), streamed("x", "b")], outlet)
    assert outlet.waited == [(1, HOLD_UP_SECONDS)]
    of_the_slow, of_the_other = ([reply for reply in outlet.replies if reply.index == index] for index in (1, 0))
    assert (result(of_the_slow[0]), reason(of_the_slow[1])) == (1, "SLOW_READER")
    assert [result(reply) for reply in of_the_other] == [1, 2]
    assert [(reply.index, reply.code) for reply in ends] == [(0, Code.OK)]
