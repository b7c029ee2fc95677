"""One batch through a handler: who gets which reply, whatever goes wrong."""

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from time import monotonic

import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2, status_pb2

from servegrpc.engine.channel import LEFT, PAUSED, Item
from servegrpc.errors import Code, InvalidHandlerResult, InvalidInput, QueueFull, RequestCancelled
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_value
from servegrpc.wire.codecs import CODECS
from servegrpc.worker.answers import LONGEST_MESSAGE, Answers
from servegrpc.worker.batch_call import HOLD_UP_SECONDS
from servegrpc.worker.context import Context
from servegrpc.worker.runner import STALL_SECONDS, Runner

SECONDS = 20  # that a wait may take at most


def item(data, request_id, headers=()):
    message = inference_pb2.PredictRequest(inputs={"data": encode_value(data)} if data is not None else {})
    return Item(0, request_id, headers, 7, memoryview(message.SerializeToString()))


def run(handle, *inputs, expose_errors=False):
    """Run a handler on requests with these inputs, named r0, r1, …; None is a request without inputs."""
    context = Context(model_name="m", model_dir="/", manifest={}, batch_size=8, gpu=None, model_yaml_config={})
    runner = Runner(handle, context, Answers(CODECS, "m", "2.0", 5, expose_errors))
    return runner.run([item(data, f"r{index}", (("key", f"value-{index}"),)) for index, data in enumerate(inputs)], Outlet())


class Outlet:
    """Callers that never leave."""

    def flags(self, index):
        return 0


def echo(rows, context):
    return [row["data"] for row in rows]


def result(reply):
    assert reply.code == Code.OK, reply.message
    return decode_value(inference_pb2.PredictResponse.FromString(reply.body).output)


def reason(reply):
    """Return the reason in a failed reply's details."""
    return details(reply)[0].reason


def details(reply):
    status = status_pb2.Status.FromString(reply.body)
    assert (status.code, status.message) == (reply.code, reply.message)
    kinds = {kind.DESCRIPTOR.full_name: kind for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)}
    unpacked = []
    for packed in status.details:
        detail = kinds[packed.type_url.rpartition("/")[2]]()
        packed.Unpack(detail)
        unpacked.append(detail)
    return unpacked


def test_one_id_twice():
    """Callers of one batch choose the same id → the handler can tell them apart; the replies have theirs."""
    seen = []

    def handle(rows, context):
        seen.extend(context.request_ids.values())
        return [None] * len(rows)

    context = Context(model_name="m", model_dir="/", manifest={}, batch_size=8, gpu=None)
    runner = Runner(handle, context, Answers(CODECS, "m", "2.0", 5, False))
    replies = runner.run([item(b"x", name) for name in ("r", "r-2", "r", "r")], Outlet())
    assert seen == ["r", "r-2", "r-3", "r-4"]
    assert [inference_pb2.PredictResponse.FromString(reply.body).request_id for reply in replies] == ["r", "r-2", "r", "r"]


def test_batch():
    """A batch runs → each request has its own result, id and the batch's timing."""
    replies = run(echo, "a", 2, [3])
    assert [result(reply) for reply in replies] == ["a", 2, [3]]
    bodies = [inference_pb2.PredictResponse.FromString(reply.body) for reply in replies]
    assert [body.request_id for body in bodies] == ["r0", "r1", "r2"]
    assert {(body.model_name, body.model_version, body.timing.batch_size) for body in bodies} == {("m", "2.0", 3)}
    assert bodies[0].timing.queue.ToMicroseconds() == 7


def test_context():
    """A handler asks the context for ids and headers → those of the batch's requests."""
    replies = run(lambda rows, context: [context.get_request_id(i) + context.get_request_header(i, "key") for i in range(len(rows))], 1, 2)
    assert [result(reply) for reply in replies] == ["r0value-0", "r1value-1"]


def test_bad_request_does_not_reach_the_handler():
    """One request has no inputs → it alone gets INVALID_INPUT, and the handler sees the others with their ids."""
    seen = []

    def handle(rows, context):
        seen.append([context.get_request_id(index) for index in range(len(rows))])
        return echo(rows, context)

    first, bad, last = run(handle, "a", None, "c")
    assert (result(first), reason(bad), result(last)) == ("a", "INVALID_INPUT", "c")
    assert seen == [["r0", "r2"]]


def test_all_bad():
    """No request of a batch can be read → the handler is not called."""
    replies = run(lambda rows, context: pytest.fail("called"), None, None)
    assert [reason(reply) for reply in replies] == ["INVALID_INPUT"] * 2


def refuse_bad(rows, context):
    for index, row in enumerate(rows):
        if row["data"] == "bad":
            raise InvalidInput("data is bad.", field="inputs.data", row=index)
    return echo(rows, context)


def test_refused_row():
    """A handler refuses some rows, one at a time → only those get the error; the others are run again."""
    replies = run(refuse_bad, "bad", "b", "bad", "d")
    assert [reply.code for reply in replies] == [3, 0, 3, 0]
    assert [result(replies[1]), result(replies[3])] == ["b", "d"]


def test_all_rows_refused():
    """A handler refuses every row → all get the error, and it is not called with none."""
    assert [reply.code for reply in run(refuse_bad, "bad", "bad")] == [3, 3]


def test_refusal_details():
    """A row is refused → the status names model, request, worker and field."""
    (reply,) = run(refuse_bad, "bad")
    assert reply.message == 'Model "m" version 2.0: data is bad. Request id: r0.'
    info, bad_request = details(reply)
    assert (info.reason, info.domain) == ("INVALID_INPUT", "servegrpc")
    assert dict(info.metadata) == {"model_name": "m", "model_version": "2.0", "worker": "5", "request_id": "r0"}
    assert bad_request.field_violations[0].field == "inputs.data"


@pytest.mark.parametrize("row", [None, -1, 2, "0", 0.0])
def test_refused_batch(row):
    """A handler refuses without saying which row, or one that is not there → the whole batch gets the error, each with its own id."""

    def handle(rows, context):
        raise InvalidInput("no.", row=row)

    replies = run(handle, "a", "b")
    assert [reason(reply) for reply in replies] == ["INVALID_INPUT"] * 2
    assert [reply.message for reply in replies] == [f'Model "m" version 2.0: no. Request id: {name}.' for name in ("r0", "r1")]


class OwnRefusal(InvalidInput):
    """A handler's own error, made from other arguments than ours."""

    def __init__(self, name, value):
        super().__init__(f"{name} is {value}.", row=0)


def test_refusal_of_an_own_class():
    """A handler refuses with its own subclass of InvalidInput → that row is refused in its words."""

    def handle(rows, context):
        if rows[0]["data"] == "bad":
            raise OwnRefusal("size", 0)
        return echo(rows, context)

    bad, good = run(handle, "bad", "good")
    assert (reason(bad), result(good)) == ("INVALID_INPUT", "good")
    assert "size is 0. Request id: r0." in bad.message


def test_run_again_with_fresh_rows():
    """A handler empties its rows and then refuses one → the others are run again as they came."""

    def handle(rows, context):
        values = [row.pop("data") for row in rows]
        if "bad" in values:
            raise InvalidInput("bad.", row=values.index("bad"))
        return values

    good, bad = run(handle, "good", "bad")
    assert (result(good), reason(bad)) == ("good", "INVALID_INPUT")


@pytest.mark.parametrize("said", ["\ud800", ValueError("no text"), 7, None], ids=repr)
def test_refusal_that_is_no_text(said):
    """A handler refuses with something that is no Unicode text → the caller still gets INVALID_INPUT."""

    def handle(rows, context):
        raise InvalidInput(said)

    (reply,) = run(handle, "a")
    assert reason(reply) == "INVALID_INPUT"


def test_long_refusal():
    """A handler refuses with a very long message → the caller sees its beginning."""

    def handle(rows, context):
        raise InvalidInput("x" * 100_000)

    (reply,) = run(handle, "a")
    assert 'Model "m" version 2.0: xxx' in reply.message
    assert len(reply.message) < LONGEST_MESSAGE + 100


def test_exception_is_hidden(capsys):
    """A handler raises → the batch gets HANDLER_ERROR without its words, and the trace with the ids is printed."""

    def handle(rows, context):
        raise ValueError("secret")

    replies = run(handle, "a", "b")
    assert [reason(reply) for reply in replies] == ["HANDLER_ERROR"] * 2
    assert replies[0].code == Code.INTERNAL
    assert "secret" not in replies[0].message
    assert b"secret" not in replies[0].body
    trace = capsys.readouterr().err
    assert "request ids: r0, r1" in trace
    assert "ValueError: secret" in trace


def test_exception_is_exposed():
    """A handler raises and the model exposes errors → callers see the type and a limited part of the message."""

    def handle(rows, context):
        raise ValueError("x" * 5000)

    (reply,) = run(handle, "a", expose_errors=True)
    assert reply.message.startswith('Model "m" version 2.0: the handler raised ValueError: xxx')
    assert len(reply.message) < LONGEST_MESSAGE + 100
    assert details(reply)[0].metadata["exception"] == "ValueError"


class Unspeakable(Exception):
    """An exception whose own __str__ fails."""

    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize("error", [Unspeakable(), ValueError("\ud800")], ids=["raises", "no Unicode"])
def test_exposed_exception_without_words(error):
    """The model exposes errors and the exception's text cannot be had or sent → the batch still gets HANDLER_ERROR with its type."""

    def handle(rows, context):
        raise error

    (reply,) = run(handle, "a", expose_errors=True)
    assert (reason(reply), details(reply)[0].metadata["exception"]) == ("HANDLER_ERROR", type(error).__name__)


def test_handler_raises_one_of_our_errors():
    """A handler raises an error of ours → callers get its code and reason."""

    def handle(rows, context):
        raise QueueFull("the camera is busy.")

    (reply,) = run(handle, "a")
    assert (reply.code, reason(reply)) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (["a"], "the handler returned 1 results for 2 requests; it must return one for each"),
        (["a", "b", "c"], "the handler returned 3 results for 2 requests"),
        (None, "the handler returned NoneType; it must return a list"),
        ("ab", "the handler returned str"),
        (("a", "b"), "the handler returned tuple"),
        ({"a": 1, "b": 2}, "the handler returned dict"),
    ],
)
def test_bad_return(returned, problem):
    """A handler returns no list, or one of another length → the batch gets INVALID_HANDLER_RESULT that says so."""
    replies = run(lambda rows, context: returned, "a", "b")
    assert [reason(reply) for reply in replies] == ["INVALID_HANDLER_RESULT"] * 2
    assert problem in replies[0].message


UNSENDABLE = [object(), {1, 2}, np.array([1j]), "\ud800", b"\xff".decode("utf-8", "surrogateescape"), torch.empty(2, device="meta")]


@pytest.mark.parametrize("unsendable", UNSENDABLE)
def test_unsendable_result(unsendable):
    """One result cannot be sent → that request alone gets INVALID_HANDLER_RESULT."""
    first, bad, last = run(lambda rows, context: ["a", unsendable, "c"], 1, 2, 3)
    assert (result(first), reason(bad), result(last)) == ("a", "INVALID_HANDLER_RESULT", "c")


def test_next_batch_is_not_affected():
    """A batch failed → the next one runs as usual."""
    context = Context(model_name="m", model_dir="/", manifest={}, batch_size=8, gpu=None, model_yaml_config={})
    runner = Runner(refuse_bad, context, Answers(CODECS, "m", "2.0", 5, expose_errors=False))
    assert [reply.code for reply in runner.run([item("bad", "a")], Outlet())] == [3]
    assert [result(reply) for reply in runner.run([item("good", "b")], Outlet())] == ["good"]


class OddError(InvalidInput):
    def __init__(self):
        pass  # without the message and all that its base keeps


@pytest.mark.parametrize(
    "error", [InvalidInput("bad", field=5), InvalidInput("bad", field="\ud800"), OddError()], ids=["field", "text", "empty"]
)
def test_error_that_cannot_be_sent(error):
    """A handler raises an error of ours that holds what cannot be sent → INTERNAL or a cleaned text, and no exception."""

    def handle(rows, context):
        raise error

    (reply,) = run(handle, "a")
    assert reply.code in (Code.INTERNAL, Code.INVALID_ARGUMENT)
    assert "Request id: r0" in reply.message


def run_items(handle, items, outlet, *, isolate=False):
    context = Context(model_name="m", model_dir="/", manifest={}, batch_size=8, gpu=None, model_yaml_config={})
    runner = Runner(handle, context, Answers(CODECS, "m", "2.0", 5, expose_errors=False), isolate=isolate)
    return runner.run(items, outlet)


class Recorded(Outlet):
    """Keeps what is sent; the callers of `left` have left."""

    def __init__(self, *left):
        self.left = left
        self.sent = []

    def send(self, replies):
        self.sent.append([reply.index for reply in replies])
        self.replies = [*getattr(self, "replies", []), *replies]

    def flags(self, index):
        return LEFT if index in self.left else 0


def test_isolated_errors():
    """A handler that isolates errors raises on a batch → each request runs alone and is answered at once; only the bad one fails."""
    seen = []

    def handle(rows, context):
        seen.append([row["data"] for row in rows])
        return [1 / row["data"] for row in rows]

    outlet = Recorded()
    assert run_items(handle, [item(data, f"r{data}") for data in (1, 0, 2)], outlet, isolate=True) == []
    assert seen == [[1, 0, 2], [1], [0], [2]]
    assert outlet.sent == [[0], [1], [2]]
    assert (result(outlet.replies[0]), reason(outlet.replies[1]), result(outlet.replies[2])) == (1.0, "HANDLER_ERROR", 0.5)


def test_nobody_waits():
    """The deadline of one request has passed and the caller of another has left when a batch begins → the handler gets the rest."""
    seen = []

    def handle(rows, context):
        seen.extend(row["data"] for row in rows)
        return seen

    items = [item(name, name) for name in ("late", "gone", "here")]
    items[0].deadline = 0.0
    replies = run_items(handle, items, Recorded(1))
    assert seen == ["here"]
    assert [reply.code for reply in replies] == [Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.OK]
    assert [reason(reply) for reply in replies[:2]] == ["DEADLINE_EXPIRED", "REQUEST_CANCELLED"]


def test_deadline_passes_while_others_are_decoded(monkeypatch):
    """To decode one request of a batch takes longer than another has time → the handler does not get that other one."""
    items = [item(name, name) for name in ("short", "large")]
    items[0].deadline = monotonic() + 0.05

    def decode(self, one, *, borrow=False):
        while one is items[1] and monotonic() < items[0].deadline:
            pass
        return {"data": one.request_id}

    monkeypatch.setattr(Answers, "decode", decode)
    replies = run_items(echo, items, Recorded())
    assert (reason(replies[0]), result(replies[1])) == ("DEADLINE_EXPIRED", "large")


def streamed(data, request_id):
    """Return a request whose caller takes a stream."""
    one = item(data, request_id)
    one.streamed = True
    return one


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
