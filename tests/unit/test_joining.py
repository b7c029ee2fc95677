"""Requests joined along their first dimension, and results split back."""

import numpy as np
import pytest
import torch

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.tensors import Declaration, parse_declaration
from servegrpc.worker.context import Context
from servegrpc.worker.joining import joined

CONTEXT = Context(model_name="m", model_dir="", manifest={}, batch_size=4, gpu=None, model_yaml_config={})


def declare(*names, outputs=("y",), datatype="FP32", shape=(-1, -1), **flags):
    spec = {"datatype": datatype, "shape": list(shape), "batchable": True}
    inputs = [{"name": name, **spec, **flags} for name in names]
    return parse_declaration({"inputs": inputs, "outputs": [{"name": name, **spec} for name in outputs]})


def row(*rows, name="x"):
    return {name: torch.tensor(rows, dtype=torch.float32)}


class Handler:
    """Doubles x, and notes what it got."""

    def __init__(self, result=lambda row: {"y": row["x"] * 2}):
        self.calls = []
        self.result = result

    def __call__(self, rows, context):
        assert len(rows) == 1
        self.calls.append(rows[0])
        return [self.result(rows[0])]


def run(handler, declared, *rows, batch_size=4):
    return joined(handler, declared, batch_size)(list(rows), CONTEXT)


def assert_refused(result, told):
    assert isinstance(result, InvalidInput)
    assert told in result.message


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
    assert_refused(refused, "5 rows; the model takes at most 4")


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
        ({}, "input 'x' must be a tensor of FP32"),
        ({"x": b"1"}, "input 'x' must be a tensor of FP32"),
        ({"x": torch.tensor([[1]])}, "input 'x' must be a tensor of FP32"),
        ({"x": torch.tensor([1.0])}, "of the shape [-1, -1]"),
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
    assert_refused(refused, "differ in their first dimension")


def test_handler_refuses():
    """A handler that refuses joined requests → they are run one by one, and only the one it refuses alone is refused."""

    def result(row):
        if (row["x"] < 0).any():
            raise InvalidInput("negative")
        return row["x"]

    first, refused, last = run(Handler(result), declare("x"), row([1]), row([-1]), row([2]))
    assert (first.tolist(), last.tolist()) == ([[1]], [[2]])
    assert_refused(refused, "negative")


def test_one_call_fails():
    """One of several calls fails → its requests end with the error, the others have their results."""

    def result(row):
        if row["x"].shape[1] == 2:
            raise KeyError("x")
        return row["x"]

    first, failed, last = run(Handler(result), declare("x"), row([1]), row([1, 2]), row([3]))
    assert (first.tolist(), last.tolist()) == ([[1]], [[3]])
    assert isinstance(failed, KeyError)


def test_the_only_call_fails():
    """The only call fails → as without joining, so that the log has one trace."""
    with pytest.raises(ZeroDivisionError):
        run(Handler(lambda row: 1 / 0), declare("x"), row([1]), row([2]))


@pytest.mark.parametrize("result", [lambda row: {"y": row["x"][:1]}, lambda row: {"y": 3}, lambda row: torch.tensor(1.0)])
def test_wrong_number_of_rows(result):
    """A result with another number of rows than the inputs → an error of the handler that names the output."""
    with pytest.raises(InvalidHandlerResult, match=r"output 'y' has .* for inputs of 2"):
        run(Handler(result), declare("x"), row([1]), row([2]))


def test_no_list():
    """A handler that returns no list → an error of the handler."""
    with pytest.raises(InvalidHandlerResult, match="a list with one result"):
        joined(lambda rows, context: {"y": 1}, declare("x"), 4)([row([1])], CONTEXT)


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
