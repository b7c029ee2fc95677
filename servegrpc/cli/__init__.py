"""The `servegrpc` command: a table of verbs, each imported only when it is used.

A verb is a click command in a module of its own. Exit codes: 0 ok, 1 failed, 2 wrong usage, 130 interrupted; an error is one line on
stderr. This file imports nothing but click and our errors, so that `servegrpc --help` is quick.
"""

from __future__ import annotations

import importlib
import sys

import click

from servegrpc import __version__
from servegrpc.errors import ServeError

_VERBS = {
    "serve": ("servegrpc.cli.serve:serve", "Serve models over gRPC."),
    "archive": ("servegrpc.cli.archive:archive", "Pack a model and its handler into an archive."),
    "check": ("servegrpc.cli.check:check", "Try an archive on this machine, without a server."),
    "predict": ("servegrpc.cli.predict:predict", "Run a model on a server."),
    "models": ("servegrpc.cli.models:models", "List, register, scale and watch the models of a server."),
    "config": ("servegrpc.cli.config:config", "Make a configuration of TorchServe's."),
    "token": ("servegrpc.cli.token:token", "Make a new key for a server that asks for tokens."),
    "health": ("servegrpc.cli.health:health", "Ask a server whether it, or a model, is ready."),
}
_SERVER_PACKAGES = (  # those of the server extra
    *("PIL", "grpc_health", "grpc_reflection", "prometheus_client", "psutil", "pydantic", "pynvml", "safetensors", "structlog"),
    *("torch", "yaml"),
)


class _Failure(click.ClickException):
    """A failure shown as one line."""

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        click.echo(f"error: {self.message}", err=True)


class _Verbs(click.Group):
    """Imports a verb when it is called, and turns what it raises into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _VERBS:
            return None
        module, _, attribute = _VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in _VERBS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError:
            raise
        except click.ClickException as error:
            raise _Failure(error.format_message()) from error
        except ServeError as error:
            raise _Failure(error.message) from error
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _SERVER_PACKAGES:
                raise
            raise _Failure("this command needs the server extra: pip install 'servegrpc[server]'") from error
        except BrokenPipeError:  # the reader of our output has left; click ends quietly
            raise
        except OSError as error:
            raise _Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=_Verbs, epilog="Each command has its own --help, with an example.")
@click.version_option(__version__, prog_name="servegrpc", message="%(prog)s %(version)s")
def main() -> None:
    """Serve packaged PyTorch models over gRPC."""
