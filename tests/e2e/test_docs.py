"""The documentation says what the code does, as far as a program can tell: links, commands, and the tables of names."""

import ast
import inspect
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from servegrpc.cli import main
from servegrpc.config import ServerConfig
from servegrpc.core import model_config
from servegrpc.v1.errors_pb2 import ErrorReason

REPOSITORY = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SHELL_WORDS = re.compile(r"\s(?:\||&&|;|#|>)\s.*")


def pages():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(listed.stdout.split())


def text_of(page):
    return (REPOSITORY / page).read_text()


def anchors(page):
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page):
    """The `servegrpc …` lines of a page: after a prompt, or alone in a block or between backquotes, when they name a verb."""
    text = text_of(page).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in text.splitlines()]
    inline = re.findall(r"`(servegrpc [^`]*)`", FENCE.sub("", text))
    return [SHELL_WORDS.sub("", line) for line in (*lines, *inline) if re.match(r"servegrpc (-|[a-z]+( |$))", line) and "`" not in line]


def table(page, heading):
    """The words in the first column of the tables below a heading."""
    section = text_of(page).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"[A-Za-z_]\w*", cell)}


def parse(words):
    """Parse a command line as click would, without converting values or running it; an UPPER-CASE word may stand for a verb."""
    command, context = main, click.Context(main)
    while isinstance(command, click.Group) and words and not words[0].startswith("-") and not words[0].isupper():
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no {words[0]}"
        command, context, words = found, click.Context(found, parent=context), words[1:]
    _, left, _ = command.make_parser(context).parse_args(list(words))
    assert isinstance(command, click.Group) or not left, f"too many arguments: {left}"


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    """A relative link of a page → a file or folder of the repository, and a heading of it when it names one."""
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert target.exists(), f"{page}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(REPOSITORY)), f"{page}: {link} names no heading"


@pytest.mark.parametrize("page", pages())
def test_commands_are_those_there_are(page):
    """A `servegrpc …` line of a page → a verb, its arguments, and options that it has."""
    for line in commands(page):
        try:
            parse(shlex.split(line)[1:])
        except (AssertionError, click.UsageError) as error:
            pytest.fail(f"{page}: {line}\n{error}")


def test_commands_are_found():
    """The page for operators → at least ten lines for the test above to parse."""
    assert len(commands("docs/operating.md")) >= 10


def test_errors_are_listed():
    """The reasons of errors.proto → those in the table of errors."""
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}
    assert table("docs/operating.md", "Errors") - {"reason"} == reasons


def test_settings_are_listed():
    """The fields of ServerConfig → those in the table of settings."""
    assert table("docs/operating.md", "Settings") - {"key"} == set(ServerConfig.model_fields)


def test_options_of_serve_are_listed():
    """The options of `servegrpc serve` → those in the table of settings, and --config."""
    section = text_of("docs/operating.md").split("\n## Settings\n")[1].split("\n## ")[0]
    serve = main.get_command(click.Context(main), "serve")
    options = {option for parameter in serve.params if isinstance(parameter, click.Option) for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z-]+)", section)) == options - {"--help"}


def test_model_config_keys_are_listed():
    """The keys that the parser of model-config.yaml reads → rows of the table of keys."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(model_config))) if isinstance(node, ast.Call)]
    readers = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in ("whole", "flag", "choice", "get")]
    keys = {call.args[0].value for call in readers if isinstance(call.args[0], ast.Constant)}
    assert {"batchSize", "deviceIds", "exposeErrors"} <= keys
    assert keys <= table("docs/handlers.md", "model-config.yaml")
