"""`servegrpc token`: give a port of a server with token authorization a new key, and print it."""

from __future__ import annotations

from pathlib import Path

import click

from servegrpc.frontend.tokens import renew_token

EXAMPLE = """
\b
Examples:
  servegrpc token inference
  servegrpc token management --key-file /srv/key_file.json --lifetime-seconds 86400
"""


@click.command(epilog=EXAMPLE)
@click.argument("port", type=click.Choice(["inference", "management"]))
@click.option(
    "--key-file", type=click.Path(dir_okay=False, path_type=Path), default="key_file.json", show_default=True, help="The server's key file."
)
@click.option("--lifetime-seconds", type=click.FloatRange(0, 3e9), default=3600.0, show_default=True, help="How long the key is good for.")
def token(port: str, key_file: Path, lifetime_seconds: float) -> None:
    """Put a new key for PORT into the key file, and print it; the old key ends.

    A running server takes it at once. It must run as the same user, since the file is for its owner alone.
    """
    click.echo(renew_token(key_file, port, lifetime_seconds).key)
