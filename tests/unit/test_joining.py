"""Requests joined along their first dimension, and results split back."""

import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2, status_pb2

from servegrpc.engine.channel import LEFT, Item
from servegrpc.errors import Code, InvalidInput
from servegrpc.tensors import Declaration, parse_declaration
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_value
from servegrpc.wire.codecs import CODECS
from servegrpc.worker.answers import Answers
from servegrpc.worker.context import Context
from servegrpc.worker.joining import joined
from servegrpc.worker.runner import Runner


def declare(*names, outputs=("y",), datatype="FP32", shape=(-1, -1), **flags):
    spec = {"datatype": datatype, "shape": list(shape), "batchable": True}
    inputs = [{"name": name, **spec, **flags} for name in names]
    return parse_declaration({"inputs": inputs, "outputs": [{"name": name, **spec} for name in outputs]})


def row(*rows, name="x"):
    return {name: np.array(rows, dtype=np.float32)}


class Handler:
    """Doubles x, and notes what it got: the rows, and the ids and sequences that the context tells."""

    def __init__(self, result=lambda row: {"y": row["x"] * 2}):
        self.calls = []
        self.ids = []
        self.sequences = []
        self.result = result

    def __call__(self, rows, context):
        assert len(rows) == 1
        self.calls.append(rows[0])
        self.ids.append(list(context.request_ids.values()))
        self.sequences.append([context.get_sequence_id(position) for position in context.request_ids])
        return [self.result(rows[0])]


class Outlet:
    """Keeps the replies that were sent while the batch was run; the callers of `left` have left once there are some."""

    def __init__(self, *left):
        self.sent = []
        self.left = left

    def send(self, replies):
        self.sent.append(list(replies))

    def flags(self, index):
        return LEFT if self.sent and index in self.left else 0


def item(index, row, sequence=None):
    request = inference_pb2.PredictRequest(inputs={name: encode_value(value) for name, value in row.items()})
    headers = (("ts_request_sequence_id", sequence),) if sequence else ()
    return Item(0, f"r{index}", headers, 0, memoryview(request.SerializeToString()))


def run(handler, declared, *rows, batch_size=4, isolate=False, outlet=None, sequences=None):
    """Run requests with these inputs; returns what became of each: its result, or the reply that refuses it."""
    context = Context(model_name="m", model_dir="", manifest={}, batch_size=batch_size, gpu=None, model_yaml_config={})
    runner = Runner(joined(handler, declared, batch_size), context, Answers(CODECS, "m", "1", 1, expose_errors=True), isolate=isolate)
    outlet = outlet or Outlet()
    items = [item(index, row, sequences and sequences[index]) for index, row in enumerate(rows)]
    rest = runner.run(items, outlet)
    replies = sorted([reply for sent in outlet.sent for reply in sent] + rest, key=lambda reply: reply.index)
    assert [reply.index for reply in replies] == list(range(len(rows)))
    return [result(reply) for reply in replies]


def result(reply):
    return reply if reply.code else decode_value(inference_pb2.PredictResponse.FromString(reply.body).output)


def reason(reply):
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(reply.body).details[0].Unpack(info)
    return info.reason


def assert_refused(reply, told):
    assert (reply.code, reason(reply)) == (Code.INVALID_ARGUMENT, "INVALID_INPUT")
    assert told in reply.message


def assert_unrun(reply, told):
    assert_refused(reply, told)
    assert reply.unrun


def test_joined_and_split():
    """Requests of different numbers of rows → one call with all rows, and each its own back."""
    handler = Handler()
    results = run(handler, declare("x"), row([1, 1]), row([2, 2], [3, 3]), row([4, 4]))
    assert [call["x"].tolist() for call in handler.calls] == [[[1, 1], [2, 2], [3, 3], [4, 4]]]
    assert [result["y"].tolist() for result in results] == [[[2, 2]], [[4, 4], [6, 6]], [[8, 8]]]


def test_at_most_batch_size():
    """More rows than the batch size → several calls; a request counts with all of its rows and is never torn apart."""
    handler = Handler()
    run(handler, declare("x"), row([1], [1], [1]), row([2], [2]), row([3]), row([4], [4], [4], [4]))
    assert [call["x"].flatten().tolist() for call in handler.calls] == [[1, 1, 1], [2, 2, 3], [4, 4, 4, 4]]


def test_too_many_rows():
    """A request of more rows than the batch size → that one is refused."""
    fine, refused = run(Handler(), declare("x"), row([1]), row(*[[1]] * 5))
    assert fine["y"].tolist() == [[2]]
    assert_unrun(refused, "5 rows; the model takes at most 4")


def test_other_shapes_apart():
    """Requests whose other dimensions differ → not joined with each other."""
    handler = Handler()
    results = run(handler, declare("x"), row([1]), row([1, 2]), row([3]))
    assert [call["x"].tolist() for call in handler.calls] == [[[1], [3]], [[1, 2]]]
    assert [result["y"].tolist() for result in results] == [[[2]], [[2, 4]], [[6]]]


def test_ragged():
    """A ragged input → joined all the same: the handler gets a list of each request's tensor."""
    handler = Handler(lambda row: {"y": [tensor.sum() for tensor in row["x"]]})
    results = run(handler, declare("x", shape=(-1, -1), ragged=True), row([1]), row([1, 2]))
    assert [tensor.tolist() for tensor in handler.calls[0]["x"]] == [[[1]], [[1, 2]]]
    assert [result["y"] for result in results] == [[1], [3]]


def test_texts():
    """BYTES → joined as arrays of bytes objects."""
    handler = Handler(lambda row: row["x"])
    rows = [{"x": np.array([text], dtype=object)} for text in (b"a", b"b")]
    results = run(handler, declare("x", datatype="BYTES", shape=(-1,)), *rows)
    assert handler.calls[0]["x"].tolist() == [b"a", b"b"]
    assert [result.tolist() for result in results] == [[b"a"], [b"b"]]


def test_optional():
    """Requests with and without an optional input → in calls of their own."""
    declared = parse_declaration(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 1], "batchable": True},
                {"name": "w", "datatype": "FP32", "shape": [-1, 1], "batchable": True, "optional": True},
            ]
        }
    )
    handler = Handler(lambda row: row["x"] + row.get("w", 0))
    results = run(handler, declared, row([1]), {**row([1]), **row([5], name="w")}, row([2]))
    assert len(handler.calls) == 2
    assert [result.tolist() for result in results] == [[[1]], [[6]], [[2]]]


@pytest.mark.parametrize("result", [lambda row: (row["x"], row["x"] * 2), lambda row: {"a": row["x"], "b": (row["x"] * 2).numpy()}])
def test_several_outputs(result):
    """Several outputs, by name or by position → each is split."""
    results = run(Handler(result), declare("x", outputs=("a", "b")), row([1]), row([2]))
    assert [(r["a"].tolist(), r["b"].tolist()) for r in results] == [([[1]], [[2]]), ([[2]], [[4]])]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (row([1], name="w"), "input 'x' must be a tensor of FP32"),
        ({"x": b"1"}, "input 'x' must be a tensor of FP32"),
        ({"x": np.array([[1]])}, "input 'x' must be a tensor of FP32"),
        ({"x": np.array([1.0], np.float32)}, "of the shape [-1, -1]"),
    ],
)
def test_not_as_declared(bad, told):
    """A row of any dialect that is not as declared → that request is refused, naming the input."""
    fine, refused = run(Handler(), declare("x"), row([1]), bad)
    assert fine["y"].tolist() == [[2]]
    assert_refused(refused, told)


def test_first_dimensions_differ():
    """Inputs of one request with different numbers of rows → that request is refused."""
    (refused,) = run(Handler(), declare("x", "w"), {**row([1]), **row([1], [2], name="w")})
    assert_unrun(refused, "differ in their first dimension")


def test_handler_refuses():
    """A handler that refuses joined requests → they are run one by one, and only the one it refuses alone is refused."""

    def result(row):
        if (row["x"] < 0).any():
            raise InvalidInput("negative")
        return row["x"]

    first, refused, last = run(Handler(result), declare("x"), row([1]), row([-1]), row([2]))
    assert (first.tolist(), last.tolist()) == ([[1]], [[2]])
    assert_refused(refused, "negative")
    assert not refused.unrun


def test_refusal_that_names_a_row():
    """A handler that refuses its row by index, which is that of all joined requests → they are run one by one all the same."""

    def result(row):
        if (row["x"] < 0).any():
            raise InvalidInput("negative", row=0)
        return row["x"]

    first, refused = run(Handler(result), declare("x"), row([1]), row([-1]))
    assert first.tolist() == [[1]]
    assert_refused(refused, "negative")


def test_refused_in_sequences():
    """A handler refuses joined requests, one of a sequence → it is not called again, since it has state: all are refused."""

    def result(row):
        raise InvalidInput("negative")

    handler = Handler(result)
    for refused in run(handler, declare("x"), row([1]), row([-1]), sequences=[None, "s"]):
        assert_refused(refused, "negative")
    assert len(handler.calls) == 1


def test_context_of_each_call():
    """Several calls, and one request refused before → each call sees the ids and headers of its own requests."""
    handler = Handler()
    run(handler, declare("x"), row(*[[1]] * 5), row([1]), row([1, 2]), row([3]), sequences=["a", "b", "c", "d"])
    assert handler.ids == [["r1", "r3"], ["r2"]]
    assert handler.sequences == [["b", "d"], ["c"]]


def test_answered_by_call():
    """Several calls → the requests of each are answered when it is done: the time-out counts from one to the next."""
    outlet, seen = Outlet(), []

    def result(row):
        seen.append([[reply.index for reply in sent] for sent in outlet.sent])
        return row["x"]

    run(Handler(result), declare("x"), row(*[[1]] * 3), row(*[[1]] * 3), row([1]), outlet=outlet)
    assert seen == [[], [[0]]]


def test_left_between_calls():
    """A caller leaves while the requests before its own are run → its own is not."""
    handler = Handler()
    first, second = run(handler, declare("x"), row(*[[1]] * 3), row(*[[2]] * 3), outlet=Outlet(1))
    assert len(handler.calls) == 1
    assert first["y"].shape == (3, 1)
    assert (second.code, reason(second)) == (Code.CANCELLED, "REQUEST_CANCELLED")


def fails_on_two(row):
    if (row["x"] == 2).any():
        raise KeyError("x")
    return row["x"]


def test_one_call_fails():
    """One of several calls fails → its requests end with the error, the others have their results."""
    first, failed, last = run(Handler(fails_on_two), declare("x"), row([1]), row([1, 2]), row([3]))
    assert (first.tolist(), last.tolist()) == ([[1]], [[3]])
    assert reason(failed) == "HANDLER_ERROR"


def test_isolated_errors():
    """A handler that isolates errors fails on one of several calls → its requests run alone, and only the bad one fails."""
    handler = Handler(fails_on_two)
    first, failed, other, last = run(handler, declare("x"), row([1]), row([2]), row([1, 1]), row([3]), isolate=True)
    assert (first.tolist(), other.tolist(), last.tolist()) == ([[1]], [[1, 1]], [[3]])
    assert reason(failed) == "HANDLER_ERROR"
    assert handler.ids == [["r0", "r1", "r3"], ["r0"], ["r1"], ["r3"], ["r2"]]


def test_sequences_are_not_isolated():
    """A handler that isolates errors fails on requests of which one is of a sequence → it has state, and is not called again."""
    handler = Handler(fails_on_two)
    replies = run(handler, declare("x"), row([1]), row([2]), isolate=True, sequences=[None, "s"])
    assert [reason(reply) for reply in replies] == ["HANDLER_ERROR"] * 2
    assert len(handler.calls) == 1


def test_the_only_call_fails():
    """The only call fails → all of its requests end with the error."""
    assert [reason(reply) for reply in run(Handler(lambda row: 1 / 0), declare("x"), row([1]), row([2]))] == ["HANDLER_ERROR"] * 2


@pytest.mark.parametrize("result", [lambda row: {"y": row["x"][:1]}, lambda row: {"y": 3}, lambda row: torch.tensor(1.0)])
def test_wrong_number_of_rows(result):
    """A result with another number of rows than the inputs → an error of the handler that names the output."""
    for reply in run(Handler(result), declare("x"), row([1]), row([2])):
        assert reason(reply) == "INVALID_HANDLER_RESULT"
        assert "output 'y' has" in reply.message
        assert "for inputs of 2" in reply.message


def test_no_list():
    """A handler that returns no list → an error of the handler."""
    (reply,) = run(lambda rows, context: {"y": 1}, declare("x"), row([1]))
    assert "a list with one result" in reply.message


def test_not_batchable():
    """A model whose tensors are not batchable → the handler is called as it is."""
    handler = Handler()
    assert joined(handler, Declaration(), 4) is handler


def test_borrowing():
    """A handler that borrows its inputs → still does when joined."""

    def handle(rows, context):
        return rows

    assert not joined(handle, declare("x"), 4).borrow_inputs
    handle.borrow_inputs = True
    assert joined(handle, declare("x"), 4).borrow_inputs
