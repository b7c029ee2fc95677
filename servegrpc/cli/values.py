"""Inputs given on the command line, and results shown there."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path

import click
import numpy as np

INPUT_HELP = (
    "An input, 'data' when it has no name; may be repeated. @FILE is a file's bytes (a tensor when it ends in .npy), @- is stdin, "
    "json:... a JSON value, text:... or anything else is text."
)
_SHOWN_ELEMENTS = 100
_LINE_LENGTH = 100
_NAMED = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


def parse_input(argument: str) -> tuple[str, object]:
    """Return the name and value of one -i."""
    named = _NAMED.fullmatch(argument)
    name, text = (named[1], named[2]) if named else ("data", argument)
    try:
        return name, _parse_value(text)
    except (ValueError, EOFError) as error:
        raise click.BadParameter(f"{text[:40]}: {error}", param_hint="-i") from error


def _parse_value(text: str) -> object:
    if text == "@-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        return np.load(text[1:], allow_pickle=False) if text.endswith(".npy") else Path(text[1:]).read_bytes()
    if text.startswith("json:"):
        return json.loads(text.removeprefix("json:"))
    return text.removeprefix("text:")


def brief(output: object) -> str:
    """Return what people see: short JSON on one line, long JSON on many."""
    if isinstance(output, str):
        return output
    line = json.dumps(output, default=_described, ensure_ascii=False)
    return line if len(line) <= _LINE_LENGTH else json.dumps(output, default=_described, ensure_ascii=False, indent=2)


def _described(obj: object) -> object:
    if isinstance(obj, bytes):
        return f"{len(obj)} bytes; --output writes them to a file"
    if isinstance(obj, np.ndarray) and obj.size > _SHOWN_ELEMENTS:
        return f"{obj.dtype} array of shape {list(obj.shape)}; --output writes it to a .npy file"
    return exact(obj)


def exact(obj: object) -> object:
    """Return what JSON lacks as what it has: bytes as base64, arrays as lists."""
    if isinstance(obj, bytes):
        return base64.b64encode(obj).decode()
    if isinstance(obj, np.ndarray):
        return obj.tolist()
    raise TypeError(f"{type(obj).__name__} is not JSON")
