"""docs/torchserve-conformance.md has all that is here and is refused, and what it has can be imported, or cannot, in a real worker."""

import re
from pathlib import Path

import pytest

from servegrpc.client import CallError
from servegrpc.compat_api.names import MODEL_ARCHIVER
from servegrpc.worker.ts_names import MODULES, REFUSED

PAGE = Path(__file__).parents[2] / "docs" / "torchserve-conformance.md"
IMPORTS_ALL = """
{imports}

def handle(data, context):
    return None if data is None else [len(globals())] * len(data)
"""
TRIES = """
import importlib

def attempt(path):
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
        return f"found {getattr(found, name)!r}" if name else f"found {found!r}"
    except (ImportError, AttributeError) as error:
        return str(error)

def handle(data, context):
    return None if data is None else [[attempt(path) for path in row["data"]] for row in data]
"""


def table(heading):
    """The rows of the table below a heading: the words between backquotes, column by column, and the last column as text."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [([re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:-1]], line.split("|")[-2].strip()) for line in lines]


@pytest.fixture
def answer(client, register):
    """What a handler of this code answers."""
    return lambda code, data=None: client.predict(register(code=code), data, timeout=60).output


def public(modules):
    """The names of a table of modules that are ours, by module; the page leaves out what other packages' modules hand on."""
    ours = {module: sorted(name for name, target in names.items() if target.startswith("servegrpc.")) for module, names in modules.items()}
    return {module: names for module, names in ours.items() if names}


def test_page_has_all():
    """The tables of what there is, and of what is refused → the page has the same, no more and no less."""
    rows = [row for heading in ("ts", "model_archiver") for row, _ in table(heading)]
    assert {module: names for [module], names, _ in rows} == public(MODULES) | public(MODEL_ARCHIVER)
    names = {f"{module}.{name}" for [module], _, refused in rows for name in refused}
    modules = {module for [[module], _], _ in table("Modules that are not here")}
    assert names | modules == set(REFUSED)


def test_all_is_here(answer):
    """A handler imports every name of the page → it serves."""
    imports = "\n".join(f"from {module} import {', '.join(names)}" for ([[module], names, _], _) in table("ts"))
    assert imports.count("\n") > 40
    assert answer(IMPORTS_ALL.format(imports=imports), "x") > 80


def test_refused_names(answer):
    """A handler imports a name that the page says is not here → the page's reason."""
    refused = [(module, name, text) for ([[module], _, names], text) in table("ts") for name in names]
    said = answer(TRIES, {"data": [f"{module}:{name}" for module, name, _ in refused]})
    for (module, name, text), error in zip(refused, said, strict=True):
        assert error.startswith(f"{module}.{name}: ")
        assert error.removeprefix(f"{module}.{name}: ").split(";")[0] in text


def test_refused_modules(answer):
    """A handler imports a module that the page says is not here → the page's reason."""
    refused = [(module, text) for ([[module], _], text) in table("Modules that are not here")]
    said = answer(TRIES, {"data": [module for module, _ in refused]})
    assert said == [f"{module}: {text}; docs/torchserve-conformance.md lists what there is." for module, text in refused]


def test_cause_of_failure(register):
    """A handler imports what is not here when it loads → the registration says which name, and why."""
    with pytest.raises(CallError, match=r"handler\.py, line 1: ImportError: ts\.utils\.util\.nothing: servegrpc has no such name"):
        register(code="from ts.utils.util import nothing")
