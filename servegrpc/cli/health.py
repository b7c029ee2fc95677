"""`servegrpc health`: one health check, for people and for a container's health probe."""

from __future__ import annotations

import click
import grpc

from servegrpc.cli.connect import Server, inference_options
from servegrpc.client import CallError


@click.command(
    epilog="""\b
Examples:
  servegrpc health
  servegrpc health models/digits
"""
)
@click.argument("service", default="")
@click.option("--timeout", type=float, default=5, show_default=True, metavar="SECONDS", help="How long to wait for an answer.")
@inference_options
def health(*, server: Server, service: str, timeout: float) -> None:
    """Print SERVING when a server takes requests; exit with 1 when it does not.

    SERVICE asks about a part of it: models/NAME or models/NAME/versions/VERSION.
    """
    with server.connect(timeout=timeout, attempts=1) as client:
        try:
            status = client.health(service)
        except CallError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            raise click.ClickException(f'the server knows no "{service}"; see: servegrpc models list') from error
    click.echo(status.name)
    if not status:
        raise click.exceptions.Exit(1)
