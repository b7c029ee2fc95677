"""The character-level model through a real server: streams of text, whose callers join and leave."""

from pathlib import Path

import grpc
import pytest
from servers import until

from servegrpc.client import CallError
from servegrpc.core.archiver import ArchiveSpec, write_archive

EXAMPLE = Path(__file__).parents[2] / "examples" / "charlm"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def charlm(client, tmp_path_factory):
    """The example, with two places instead of eight."""
    spec = ArchiveSpec(
        "charlm",
        str(EXAMPLE / "handler.py"),
        "1.0",
        serialized_file=str(EXAMPLE / "charlm.pt"),
        model_file=str(EXAMPLE / "model.py"),
        config_file=str(EXAMPLE / "model-config.yaml"),
        export_path=str(tmp_path_factory.mktemp("charlm")),
    )
    client.register(str(write_archive(spec)), batch_size=2)
    yield "charlm"
    client.unregister("charlm")


def ask(client, prompt, count):
    return client.stream("charlm", {"prompt": prompt, "max_new_tokens": count})


def text(stream):
    return "".join(piece.output for piece in stream)


def test_text(client, charlm):
    """A prompt → English words, character by character."""
    pieces = [piece.output for piece in ask(client, "The Rays of ", 60)]
    assert len(pieces) == 60
    assert {"the", "of"} & set("".join(pieces).split())


def test_unary_call(client, charlm):
    """A unary call → the whole text that a stream of the same request brings in pieces."""
    whole = client.predict("charlm", {"prompt": "The Rays ", "max_new_tokens": 20}).output
    assert whole == text(ask(client, "The Rays ", 20))


def test_joining_and_leaving(client, charlm):
    """A caller joins while another's text is written, and leaves before it → both texts are those of callers who are alone."""
    alone = [text(ask(client, "The Rays of ", 200)), text(ask(client, "In this Experiment ", 30))]
    long = ask(client, "The Rays of ", 200)
    first = next(long).output
    short = text(ask(client, "In this Experiment ", 30))
    assert [first + text(long), short] == alone


def test_leaving_frees_the_place(client, charlm):
    """Both places are taken by long texts, and one caller breaks off → a third caller is served before the other ends."""
    texts = [ask(client, "The Rays of ", 900), ask(client, "If the Sun's Light ", 900)]
    for stream in texts:
        next(stream)
    texts[0].close()
    assert len(text(ask(client, "And ", 5))) == 5
    assert len(text(texts[1])) == 899


def test_wrong_field(client, charlm):
    """A field that is wrong → refused by its name; the model serves on."""
    with pytest.raises(CallError, match='"temperature" must be a number from 0 to 100') as refused:
        text(client.stream("charlm", {"prompt": "x", "temperature": "hot"}))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert until(lambda: len(text(ask(client, "The ", 3))) == 3)
