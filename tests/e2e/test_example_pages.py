"""Examples whose page is a list of commands: each command is run, and says what the page says."""

import io
import json
import os
import re
import shlex
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from servers import SERVEGRPC, until

from servegrpc.client import CallError

EXAMPLES = Path(__file__).parents[2] / "examples"
EARLIER_PATH = os.environ["PATH"]

pytestmark = pytest.mark.slow


def console(example):
    """Return the page's commands as lists of words, each with the lines that it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (EXAMPLES / example / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append((shlex.split(line[2:]), []))
        else:
            found[-1][1].append(line)
    return found


@pytest.fixture
def follow(client, server, tmp_path):
    """Run an example's page in a folder of its own, its server excepted, which is the shared one; return the commands left out."""
    registered, left_out = [], []

    def run(words):
        environment = {**os.environ, "PATH": f"{SERVEGRPC.parent}:{EARLIER_PATH}", "SERVEGRPC_ADDRESS": server.inference}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return said(done.stdout.splitlines())

    def follow(example):
        (tmp_path / "examples").symlink_to(EXAMPLES)
        (tmp_path / "build").mkdir()
        for words, printed in console(example):
            if words[:2] == ["servegrpc", "serve"]:
                registered.append(client.register(str(tmp_path / words[2])).name)
            elif words[0] in ("python", "servegrpc"):
                assert run(words) == told(printed)
            else:
                left_out.append((words, printed))
        return left_out

    yield follow
    for name in registered:
        client.unregister(name)


def said(lines):
    """Return what a command printed: lines, or the value that they are the JSON of; objects of a list sorted by their names.

    Two things that a model is about as sure of come in either order: what a machine computes differs in the last digits.
    """
    try:
        value = json.loads("\n".join(lines))
    except ValueError:
        return lines
    return sorted(value, key=sorted) if isinstance(value, list) and all(isinstance(one, dict) for one in value) else value


def told(lines):
    """Return what a page says is printed, to compare: numbers of JSON as close as pages are read."""
    return near(said(lines))


def near(value):
    if isinstance(value, dict):
        return {name: near(one) for name, one in value.items()}
    if isinstance(value, list):
        return [near(one) for one in value]
    return pytest.approx(value, abs=2 if value > 1 else 0.1) if isinstance(value, float) else value  # pixels, or probabilities


def test_huggingface(follow):
    """The page of the Hugging Face example, followed command by command → what it says."""
    assert follow("huggingface") == []


def test_sklearn(follow, client):
    """The page of the scikit-learn example → what it says; and three numbers instead of four are refused."""
    assert follow("sklearn") == []
    with pytest.raises(CallError, match='The input "data" must be four numbers'):
        client.predict("irises", [1, 2, 3])


def test_custom_metrics(follow, server):
    """The example of metrics → the page's commands, and on the Prometheus page what the handler counted."""
    ((curl, (line,)),) = follow("custom_metrics")
    assert (curl[0], curl[-1]) == ("curl", "WordsCounted_total")

    def page():
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as answer:
            return answer.read().decode().splitlines()

    until(lambda: line in page())
    names = {text.partition("{")[0] for text in page() if 'model_name="words"' in text}
    assert {"LongestText", "TextLength_bucket", "CountingTime", "EmptyTexts"} <= names


def test_segmentation(follow, client, tmp_path):
    """The page of the segmentation example → what it says; the classes are a tensor with the disc and the square in their places."""
    assert follow("segmentation") == []
    classes = client.predict("segmentation", (tmp_path / "build/segmentation/scene.png").read_bytes()).output["classes"]
    assert (classes.dtype, classes.shape, classes[12, 12], classes[35, 35], classes[0, 47]) == ("uint8", (48, 48), 1, 2, 0)


def test_detection(follow):
    """The page of the detection example → what it says."""
    assert follow("detection") == []


def test_text_classification(follow, client):
    """The page of the text classification example → what it says; and texts sent together get what they get alone."""
    assert follow("text_classification") == []
    texts = ["The team won the final.", "My sister doesn't like the sauce."]
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda text: client.predict("topics", text).output, texts))
    assert [max(result, key=result.get) for result in results] == ["sport", "food"]


def test_micro_batching(follow, client):
    """The page of the micro-batching example → what it says; and forty pictures at once → each its colour, several to a batch."""
    assert follow("micro_batching") == []
    colours = ["red", "green", "blue", "white"] * 10
    with ThreadPoolExecutor(len(colours)) as threads:
        replies = list(threads.map(lambda colour: client.predict("colours", picture(colour)), colours))
    assert [reply.output for reply in replies] == colours
    assert max(reply.timing.batch_size for reply in replies) > 4


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), {"green": "lime"}.get(colour, colour)).save(file, "PNG")
    return file.getvalue()
