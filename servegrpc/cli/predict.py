"""`servegrpc predict`: runs a model on a server, once."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from servegrpc.cli.connect import Server, inference_options
from servegrpc.cli.values import INPUT_HELP, brief, exact, parse_input
from servegrpc.client import Prediction


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
    help=INPUT_HELP,
)
@click.option("--version", default="", help="Version of the model.  [default: the model's default version]")
@click.option("--timeout", type=float, default=60, show_default=True, metavar="SECONDS", help="Deadline of the call.")
@click.option("--request-id", default="", help="An id to find the request by in the server's log.  [default: the server makes one]")
@click.option("--stream", is_flag=True, help="Print each message of a streamed result as it comes; texts in one line.")
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
    values = dict(map(parse_input, inputs))
    prediction = None
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
            elif stream and isinstance(prediction.output, str) and not as_json:
                click.echo(prediction.output, nl=False)  # text in pieces
            else:
                click.echo(_whole(prediction) if as_json else brief(prediction.output))
        if stream and not as_json and prediction and isinstance(prediction.output, str):
            click.echo()


def _timing(prediction: Prediction) -> str:
    timing = prediction.timing
    took = f"waited {timing.queue_seconds * 1000:.1f} ms, ran {timing.handler_seconds * 1000:.1f} ms in a batch of {timing.batch_size}"
    return f"{prediction.model_name} {prediction.model_version}, request {prediction.request_id}: {took}"


def _whole(prediction: Prediction) -> str:
    return json.dumps(asdict(prediction), default=exact, ensure_ascii=False)


def _file_content(output: object) -> bytes:
    if isinstance(output, bytes):
        return output
    if isinstance(output, str):
        return output.encode()
    if isinstance(output, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, output, allow_pickle=output.dtype == object)
        return buffer.getvalue()
    return json.dumps(output, default=exact, ensure_ascii=False).encode()
