"""Examples whose page is a list of commands: each command is run, and says what the page says."""

import json
import os
import re
import shlex
import subprocess
import urllib.request
from pathlib import Path

import pytest
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
        return done.stdout.splitlines()

    def follow(example):
        (tmp_path / "examples").symlink_to(EXAMPLES)
        (tmp_path / "build").mkdir()
        for words, printed in console(example):
            if words[:2] == ["servegrpc", "serve"]:
                registered.append(client.register(str(tmp_path / words[2])).name)
            elif words[0] in ("python", "servegrpc"):
                assert [as_told(line) for line in run(words)] == [as_told(line) for line in printed]
            else:
                left_out.append((words, printed))
        return left_out

    yield follow
    for name in registered:
        client.unregister(name)


def as_told(line):
    """Return a line to compare: JSON with its numbers as close as pages are read."""
    try:
        value = json.loads(line)
    except ValueError:
        return line
    return {k: pytest.approx(v, abs=0.05) if isinstance(v, float) else v for k, v in value.items()} if isinstance(value, dict) else value


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
