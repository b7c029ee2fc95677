"""What callers are told when a handler refuses, raises, or returns what cannot be sent; the others of the batch are answered."""

import numpy as np
import pytest
import torch
from handler_runs import Outlet, Recorded, details, echo, item, reason, result, run, run_items

from servegrpc.errors import Code, InvalidInput, QueueFull
from servegrpc.wire.codecs import CODECS
from servegrpc.worker import answers
from servegrpc.worker.answers import LONGEST_MESSAGE, Answers
from servegrpc.worker.context import Context
from servegrpc.worker.runner import Runner


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


def test_late_after_a_refused_row():
    """A handler refuses one row, and another one's caller leaves then → that one was run, though it is not run again."""
    outlet = Recorded()

    def handle(rows, context):
        outlet.left = (1,)
        return refuse_bad(rows, context)

    replies = run_items(handle, [item("bad", "a"), item("left", "b"), item("c", "c")], outlet)
    assert [(reply.code, reply.unrun) for reply in replies] == [(3, False), (1, False), (0, False)]


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


def test_result_too_large(monkeypatch):
    """A result is larger than a protobuf message can be → InvalidHandlerResult for its request, the other one is answered."""
    monkeypatch.setattr(answers, "LARGEST_MESSAGE_BYTES", 1000)
    replies = run(echo, b"x" * 1000, b"x")
    assert [(reply.code, reason(reply) if reply.code else result(reply)) for reply in replies] == [
        (13, "INVALID_HANDLER_RESULT"),
        (0, b"x"),
    ]
    assert "and protobuf takes 1,000 at most" in replies[0].message
