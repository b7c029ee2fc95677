"""`servegrpc check`: open an archive, load its handler in a worker, and run it on a sample, without a server."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from queue import SimpleQueue

import click
from google.rpc import status_pb2

from servegrpc.cli.progress import busy
from servegrpc.cli.values import INPUT_HELP, brief, parse_input
from servegrpc.config import ServerConfig
from servegrpc.core.manager import ModelManager
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.registration import Defaults, Registration
from servegrpc.core.registry import ModelVersion
from servegrpc.core.request import Request
from servegrpc.core.requirements import PackageCache
from servegrpc.core.timer import Timer
from servegrpc.engine.process import ProcessEngine
from servegrpc.errors import ServeError
from servegrpc.logs import configure_logs
from servegrpc.reply import Reply
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_into
from servegrpc.wire.dialect import Dialect

EXAMPLE = """
\b
Examples:
  servegrpc check digits.mar
  servegrpc check digits.mar -i @seven.png
"""


@click.command(epilog=EXAMPLE)
@click.argument("archive", type=click.Path(exists=True, path_type=Path))
@click.option("-i", "--input", "inputs", multiple=True, metavar="[NAME=]VALUE", help=INPUT_HELP)
@click.option("--handler", default="", help="Handler to use instead of the manifest's, as file.py or file.py:function.")
@click.option("--model-name", default="", help="Name, for an archive without a manifest.")
@click.option("--install-requirements", is_flag=True, help="Install the packages that it asks for, where `serve` would keep them.")
@click.option("--strict", is_flag=True, help="Fail on warnings too, such as a setting of the wrong type in model-config.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON object.")
@click.option("--verbose", "-v", is_flag=True, help="Show the worker's log.")
def check(
    *,
    archive: Path,
    inputs: tuple[str, ...],
    handler: str,
    model_name: str,
    install_requirements: bool,
    strict: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Verify ARCHIVE: open it, load its handler in a worker, and run it once on the inputs given."""
    configure_logs("info" if verbose else "error", "text")  # warnings are printed below
    say = (lambda _: None) if as_json else click.echo
    with tempfile.TemporaryDirectory() as folder:
        timer = Timer()
        manager = ModelManager(
            engine=ProcessEngine(timer),
            timer=timer,
            slots=DeviceSlots(0, 1),
            model_store=None,
            unpack_root=Path(folder),
            packages=PackageCache(ServerConfig().package_root()) if install_requirements else None,
            defaults=Defaults(model_config={"exposeErrors": True}),
        )
        try:
            with busy(f"Opening {archive.name}"):
                version = manager.register(
                    Registration(str(archive.resolve()), model_name=model_name, handler=handler, workers=1, wait=False)
                )
            say(f'opened   model "{version.name}" version {version.version}, handler {version.pool.spec.handler}')
            warnings = list(version.archive.config.warnings)
            if version.archive.requirements and not install_requirements:
                warnings.append(f"{version.archive.requirements.name} was not installed; see --install-requirements")
            for warning in warnings:
                click.echo(f"warning: {warning}", err=True)
            if strict and warnings:
                raise click.ClickException(f"{len(warnings)} warnings, and --strict was given")
            manager.scale(version.name, version.version, 1)
            say("loaded   the handler is ready")
            found: dict[str, object] = {"model_name": version.name, "model_version": version.version, "warnings": warnings}
            if inputs:
                found["output"] = _run(version, dict(map(parse_input, inputs)))
                say(f"ran      {brief(found['output'])}")
            if as_json:
                click.echo(json.dumps(found, default=str))
        finally:
            manager.close()


def _run(version: ModelVersion, inputs: dict[str, object]) -> object:
    message = inference_pb2.PredictRequest(model_name=version.name)
    for name, value in inputs.items():
        encode_into(message.inputs[name], value)
    replies: SimpleQueue[Reply] = SimpleQueue()
    version.pool.submit(Request(message.SerializeToString(), Dialect.NATIVE, "check", replies.put))
    reply = replies.get()
    if reply.error:
        raise reply.error
    if reply.code:
        raise ServeError(status_pb2.Status.FromString(reply.body).message)
    return decode_value(inference_pb2.PredictResponse.FromString(reply.body).output)
