"""One batch through a handler: who gets which reply."""

from time import monotonic

import pytest
from handler_runs import Outlet, Recorded, echo, item, reason, result, run, run_items

from servegrpc.errors import Code
from servegrpc.v1 import inference_pb2
from servegrpc.wire.codecs import CODECS
from servegrpc.worker.answers import Answers
from servegrpc.worker.context import Context
from servegrpc.worker.runner import Runner


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
    assert [reply.unrun for reply in replies] == [True, True, False]


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
