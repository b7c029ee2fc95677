"""Errors on the wire stay within what clients accept as trailers."""

import pytest
from google.rpc import status_pb2

from servegrpc.errors import InvalidInput, ModelNotFound
from servegrpc.wire.scan import MAX_NAME_LENGTH, route
from servegrpc.wire.status import encode_status, short


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "ä" * 100_000, "日本" * 100_000, "\ud800" * 100_000], ids=["ascii", "umlaut", "kanji", "surrogate"]
)
def test_long_texts(text):
    """A long message, field and metadata → details small enough for a client, and readable."""
    error = InvalidInput(text, field=text, model_name=text)
    status = encode_status(error)
    as_base64, as_percent = len(status) * 4 / 3, sum(1 if 32 <= byte < 127 else 3 for byte in short(text).encode())
    assert as_base64 + as_percent < 8000
    assert status_pb2.Status.FromString(status).message == short(text)


def test_short_text_is_kept():
    """A message of usual length → unchanged."""
    assert short('There is no model "ä"; models: b.') == 'There is no model "ä"; models: b.'
    assert status_pb2.Status.FromString(encode_status(ModelNotFound("no"))).message == "no"


@pytest.mark.parametrize("field", [1, 2])
def test_long_names(field):
    """A model name or version of thousands of characters → refused before it is looked up or logged."""
    raw = bytes([field << 3 | 2, 0xE8, 0x07]) + b"x" * 1000
    with pytest.raises(InvalidInput, match=str(MAX_NAME_LENGTH)):
        route(raw)
