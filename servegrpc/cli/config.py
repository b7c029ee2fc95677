"""`servegrpc config convert`: TorchServe's config.properties as a file of ours."""

from __future__ import annotations

from pathlib import Path

import click

from servegrpc.config import environment, load_config
from servegrpc.tsconfig.load import read_config
from servegrpc.tsconfig.toml import write_toml

EXAMPLE = """
\b
Example:
  servegrpc config convert config.properties > servegrpc.toml
  servegrpc serve --config servegrpc.toml
"""


@click.group()
def config() -> None:
    """Work with configuration files."""


@config.command(epilog=EXAMPLE)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def convert(file: Path) -> None:
    """Print the settings of TorchServe's FILE for `servegrpc serve --config`.

    Keys without effect here become comments that say why. Variables are replaced by what they are now.
    """
    translation = read_config(file, {}, environment())
    load_config(None, {}, values=translation.settings)
    click.echo(f"# The settings of TorchServe's {file.name}.")
    for key, reason in translation.without_effect.items():
        click.echo(f"# {key}: without effect here: {reason}.")
    click.echo(write_toml(translation.settings), nl=False)
