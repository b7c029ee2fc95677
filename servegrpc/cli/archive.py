"""`servegrpc archive`: packs a model, with the flags of `torch-model-archiver`."""

from __future__ import annotations

import json

import click

from servegrpc.cli.progress import byte_progress
from servegrpc.core.archiver import ARCHIVE_SUFFIXES, DEFAULT_HANDLERS, ArchiveSpec, write_archive
from servegrpc.core.manifest import RUNTIMES


@click.command(
    epilog="""\b
Example:
  servegrpc archive --model-name digits --version 1.0 \\
      --serialized-file digits.pt --handler handler.py --export-path store
"""
)
@click.option("--model-name", required=True, help="Name of the model, and of the archive.")
@click.option("--serialized-file", metavar="FILE", help="Weights, such as a .pt, .pth or .onnx file.")
@click.option("--model-file", metavar="FILE", help="Python file with the model's class, for weights that are a state dict.")
@click.option("--handler", required=True, metavar="NAME|FILE[:FUNCTION]", help=f"A Python file, or one of {', '.join(DEFAULT_HANDLERS)}.")
@click.option("--extra-files", metavar="PATH,...", help="Files, globs and folders to add, comma separated; a folder gives its contents.")
@click.option("--runtime", type=click.Choice(RUNTIMES), default="python", show_default=True, help="What runs the handler.")
@click.option("--export-path", default=".", metavar="FOLDER", help="Where the archive goes; created when missing. Default: this folder.")
@click.option(
    "--archive-format",
    type=click.Choice(list(ARCHIVE_SUFFIXES)),
    default="default",
    show_default=True,
    help="default: a compressed .mar; zip-store: a .mar without compression; tgz: a .tar.gz; no-archive: a folder.",
)
@click.option("-f", "--force", is_flag=True, help="Replace an archive of the same name.")
@click.option("-v", "--version", required=True, help="Version of the model.")
@click.option("-r", "--requirements-file", metavar="FILE", help="Python packages that the handler needs, as pip lists them.")
@click.option("-c", "--config-file", metavar="FILE", help="The model-config.yaml: batching, workers, and the handler's own settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the path, name, version and size as JSON.")
def archive(
    *,
    model_name: str,
    serialized_file: str | None,
    model_file: str | None,
    handler: str,
    extra_files: str | None,
    runtime: str,
    export_path: str,
    archive_format: str,
    force: bool,
    version: str,
    requirements_file: str | None,
    config_file: str | None,
    as_json: bool,
) -> None:
    """Pack a model and its handler into an archive, and print its path."""
    spec = ArchiveSpec(
        model_name=model_name,
        handler=handler,
        version=version,
        serialized_file=serialized_file,
        model_file=model_file,
        extra_files=extra_files,
        runtime=runtime,
        export_path=export_path,
        archive_format=archive_format,
        force=force,
        requirements_file=requirements_file,
        config_file=config_file,
    )
    with byte_progress(f"Packing {model_name}") as on_progress:
        path = write_archive(spec, on_progress)
    if as_json:
        size_bytes = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        click.echo(json.dumps({"path": str(path), "model_name": model_name, "version": version, "size_bytes": size_bytes}))
    else:
        click.echo(path)
