"""The text of a config.properties."""

import pytest

from servegrpc.errors import InvalidInput
from servegrpc.tsconfig.properties import parse_properties, replace_variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1\nb = 2\nc:3\nd 4\n  e\t=\t5  \n", {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5  "}),
        ("# a=1\n! b=2\n\n   # c=3\nd=#4\n", {"d": "#4"}),
        ("a=1\na=2", {"a": "2"}),
        ("a\nb=\n", {"a": "", "b": ""}),
        ('models={\\\n  "m": {\\\n    "1.0": {}\\\n  }\\\n}\nb=2', {"models": '{"m": {"1.0": {}}}', "b": "2"}),
        ("a=one\\\n", {"a": "one"}),
        ("a=back\\\\\nb=2", {"a": "back\\", "b": "2"}),
        ("a=\\u00e9\\t\\n\\=x\nb\\=c=d\nhttp\\://x=1", {"a": "é\t\n=x", "b=c": "d", "http://x": "1"}),
        ("url=https://x/?a=b#c\r\nb=2\r\n", {"url": "https://x/?a=b#c", "b": "2"}),
        ("a=1\\\n# not a comment", {"a": "1# not a comment"}),
        ("", {}),
    ],
    ids=["separators", "comments", "twice", "no value", "lines", "end", "backslash", "escapes", "url", "joined comment", "empty"],
)
def test_parse(text, expected):
    """A text as Java reads it → the same keys and values."""
    assert parse_properties(text) == expected


def test_variables():
    """Values name variables between two dollars each → their values are put in, wherever they stand."""
    values = {"model_store": "$$HOME_DIR$$/models", "b": "$$A$$,$$A$$", "c": "$A $$", "d": ""}
    assert replace_variables(values, {"HOME_DIR": "/home/me", "A": "x"}) == {
        "model_store": "/home/me/models",
        "b": "x,x",
        "c": "$A $$",
        "d": "",
    }


def test_missing_variable():
    """A variable is not set → InvalidInput in TorchServe's words, naming it and its key."""
    with pytest.raises(InvalidInput, match="Invalid Environment Variable NONE: it stands in model_store"):
        replace_variables({"model_store": "$$NONE$$"}, {})
