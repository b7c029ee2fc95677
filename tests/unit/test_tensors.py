"""The tensors that a model declares in its model-config.yaml."""

import pytest
import yaml

from servegrpc.core.model_config import parse_model_config
from servegrpc.tensors import Declaration, parse_declaration
from servegrpc.values import BY_NAME


def parse(text):
    return parse_declaration(yaml.safe_load(text))


def test_declared():
    """Inputs and outputs with all keys → specs by name, in order."""
    declared = parse(
        "inputs: [{name: a, datatype: FP32, shape: [-1, 3], batchable: true}, "
        "{name: b, datatype: BYTES, shape: [-1, 1], batchable: true, optional: true, ragged: true}]\n"
        "outputs: [{name: c, datatype: INT64, shape: [-1], batchable: true}]"
    )
    assert list(declared.inputs) == ["a", "b"]
    assert declared.inputs["a"].element is BY_NAME["FP32"]
    assert declared.inputs["b"].optional
    assert declared.inputs["b"].ragged
    assert declared.outputs["c"].shape == (-1,)
    assert declared.batchable


def test_nothing_declared():
    """Neither key → an empty declaration that joins nothing."""
    assert parse("minWorkers: 1") == Declaration()
    assert not Declaration().batchable


@pytest.mark.parametrize(("shape", "admitted"), [((2, 3), True), ((0, 3), True), ((2, 4), False), ((2,), False), ((), False)])
def test_shapes(shape, admitted):
    """A shape of a request → admitted when it has the declared dimensions, of any size where -1 is."""
    assert parse("inputs: [{name: a, datatype: FP32, shape: [-1, 3]}]").inputs["a"].admits(shape) is admitted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("inputs: {a: FP32}", "inputs must be a list"),
        ("outputs: [a]", "outputs[0] must have name, datatype and shape"),
        ("inputs: [{name: a, datatype: FP32}]", "inputs[0] must have name"),
        ("inputs: [{name: a, datatype: FP32, shape: [1], dtype: x}]", "inputs[0] must have name"),
        ("inputs: [{name: 1, datatype: FP32, shape: [1]}]", "name must be a text"),
        ("inputs: [{name: a, datatype: float, shape: [1]}]", "datatype must be one of BOOL"),
        ("inputs: [{name: a, datatype: FP32, shape: [-2]}]", "shape must be a list"),
        ("inputs: [{name: a, datatype: FP32, shape: 3}]", "shape must be a list"),
        ("inputs: [{name: a, datatype: FP32, shape: [true]}]", "shape must be a list"),
        ("inputs: [{name: a, datatype: FP32, shape: [1], batchable: 1}]", "must be true or false"),
        ("inputs: [{name: a, datatype: FP32, shape: [1], batchable: true}]", "begins with -1"),
        ("inputs: [{name: a, datatype: FP32, shape: [-1], ragged: true}]", "only a batchable tensor"),
        ("inputs: [{name: a, datatype: FP32, shape: [1]}, {name: a, datatype: FP32, shape: [1]}]", "names a tensor twice"),
        ("inputs: [{name: a, datatype: FP32, shape: [-1], batchable: true}]\noutputs: [{name: b, datatype: FP32, shape: [-1]}]", "all be"),
        ("outputs: [{name: a, datatype: FP32, shape: [-1], optional: true}]", "outputs can be neither"),
    ],
)
def test_wrong(text, told):
    """A declaration that cannot be → an error that says where and what."""
    with pytest.raises(ValueError, match=r".") as raised:
        parse(text)
    assert told in str(raised.value)


def test_wrong_in_file():
    """A model-config.yaml whose declaration cannot be → a warning with its line, and nothing declared."""
    config = parse_model_config("minWorkers: 1\noutputs: 3\n")
    assert config.tensors == Declaration()
    assert len(config.warnings) == 1
    assert config.warnings[0].startswith("model-config.yaml, line 2: outputs must be a list of tensors, as in [{name: x,")
    assert config.warnings[0].endswith("; inputs and outputs are ignored")
