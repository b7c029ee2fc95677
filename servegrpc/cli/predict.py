"""`servegrpc predict`: runs a model on a server, once."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from servegrpc.cli.connect import Server, inference_options
from servegrpc.client import Prediction

_SHOWN_ELEMENTS = 100
_LINE_LENGTH = 100
_NAMED = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


@click.command(
    epilog="""\b
Examples:
  servegrpc predict digits -i @seven.png
  servegrpc predict resnet -i data=@picture.npy --output scores.npy
  servegrpc predict chat -i prompt="Good morning" -i 'options=json:{"max_tokens": 40}' --stream
"""
)
@click.argument("model")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="[NAME=]VALUE",
    help="An input, 'data' when it has no name; may be repeated. @FILE is a file's bytes (a tensor when it ends in .npy), @- is stdin, "
    "json:... a JSON value, text:... or anything else is text.",
)
@click.option("--version", default="", help="Version of the model.  [default: the model's default version]")
@click.option("--timeout", type=float, default=60, show_default=True, metavar="SECONDS", help="Deadline of the call.")
@click.option("--request-id", default="", help="An id to find the request by in the server's log.  [default: the server makes one]")
@click.option("--stream", is_flag=True, help="Print each message of a streamed result as it comes.")
@click.option(
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the result to a file: bytes and text as they are, a tensor as .npy, else JSON.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the whole reply as one line of JSON, with arrays as lists and bytes as base64."
)
@click.option("-v", "--verbose", is_flag=True, help="Tell on stderr which version ran and where the time went.")
@inference_options
def predict(
    *,
    server: Server,
    model: str,
    inputs: tuple[str, ...],
    version: str,
    timeout: float,
    request_id: str,
    stream: bool,
    file: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Run MODEL on a server and print its result.

    The result is printed as JSON, text as it is; long arrays and bytes are only described.
    """
    if stream and file:
        raise click.UsageError("--stream prints messages as they come; leave out --output")
    values = dict(map(_parse_input, inputs))
    with server.connect(timeout=timeout) as client:
        try:
            if stream:
                replies: Iterable[Prediction] = client.stream(model, values, version=version, request_id=request_id)
            else:
                replies = [client.predict(model, values, version=version, request_id=request_id)]
        except (TypeError, ValueError) as error:  # such as a .npy file of complex numbers
            raise click.BadParameter(str(error), param_hint="-i") from error
        for prediction in replies:
            if verbose:
                click.echo(_timing(prediction), err=True)
            if file:
                file.write_bytes(_file_content(prediction.output))
            else:
                click.echo(_whole(prediction) if as_json else _brief(prediction.output))


def _parse_input(argument: str) -> tuple[str, object]:
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


def _timing(prediction: Prediction) -> str:
    timing = prediction.timing
    took = f"waited {timing.queue_seconds * 1000:.1f} ms, ran {timing.handler_seconds * 1000:.1f} ms in a batch of {timing.batch_size}"
    return f"{prediction.model_name} {prediction.model_version}, request {prediction.request_id}: {took}"


def _brief(output: object) -> str:
    """Return what people see: short JSON on one line, long JSON on many."""
    if isinstance(output, str):
        return output
    line = json.dumps(output, default=_described, ensure_ascii=False)
    return line if len(line) <= _LINE_LENGTH else json.dumps(output, default=_described, ensure_ascii=False, indent=2)


def _whole(prediction: Prediction) -> str:
    return json.dumps(asdict(prediction), default=_exact, ensure_ascii=False)


def _described(obj: object) -> object:
    if isinstance(obj, bytes):
        return f"{len(obj)} bytes; --output writes them to a file"
    if isinstance(obj, np.ndarray) and obj.size > _SHOWN_ELEMENTS:
        return f"{obj.dtype} array of shape {list(obj.shape)}; --output writes it to a .npy file"
    return _exact(obj)


def _exact(obj: object) -> object:
    if isinstance(obj, bytes):
        return base64.b64encode(obj).decode()
    if isinstance(obj, np.ndarray):
        return obj.tolist()
    raise TypeError(f"{type(obj).__name__} is not JSON")


def _file_content(output: object) -> bytes:
    if isinstance(output, bytes):
        return output
    if isinstance(output, str):
        return output.encode()
    if isinstance(output, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, output, allow_pickle=output.dtype == object)
        return buffer.getvalue()
    return json.dumps(output, default=_exact, ensure_ascii=False).encode()
