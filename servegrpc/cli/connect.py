"""What the verbs that call a server share: the options that say which, and one line for each way a call fails."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from functools import partial

import click
import grpc

from servegrpc.client import CallError, Client, Tls
from servegrpc.client.connection import INFERENCE_ADDRESS, MANAGEMENT_ADDRESS


@dataclass(frozen=True)
class Server:
    """The server that a command's options name."""

    address: str
    tls: bool | Tls
    token: str = ""

    @contextmanager
    def connect(self, *, timeout: float | None = 60, attempts: int = 4) -> Iterator[Client]:
        """Yield a client of it; a CallError inside becomes the command's error line."""
        metadata = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        connect = partial(Client, self.address, management_address=self.address, tls=self.tls, metadata=metadata)
        try:
            with connect(timeout=timeout, attempts=attempts) as client:
                yield client
        except CallError as error:
            raise click.ClickException(self._explain(error)) from error

    def _explain(self, error: CallError) -> str:
        if error.reason:
            missing = f"the server at {self.address} takes no call without a valid --token; `servegrpc token` makes one"
            return missing if error.reason == "TOKEN_REFUSED" else str(error)
        if error.code is grpc.StatusCode.UNAVAILABLE and self.tls:
            return f"no server with a trusted certificate answers at {self.address}; give its --root-certificates, or no --tls"
        if error.code is grpc.StatusCode.UNAVAILABLE:
            return f"no server answers at {self.address}; start one with: servegrpc serve, or name another with an option (see --help)"
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer from {self.address} in time; some commands take a longer --timeout"
        if error.code is grpc.StatusCode.UNIMPLEMENTED:
            return f"the server at {self.address} does not offer this; is it the address of another port?"
        return str(error)


def inference_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the inference port; the command gets a `server` instead."""
    return _server_options(command, "--address", INFERENCE_ADDRESS, "SERVEGRPC_ADDRESS", "SERVEGRPC_TOKEN")


def management_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the management port; the command gets a `server` instead."""
    variables = ("SERVEGRPC_MANAGEMENT_ADDRESS", "SERVEGRPC_MANAGEMENT_TOKEN")
    return _server_options(command, "--management-address", MANAGEMENT_ADDRESS, *variables)


def json_text(obj: object, indent: int | None = None) -> str:
    """Return results of the client as JSON: dataclasses as objects, times as ISO 8601."""
    return json.dumps(obj, default=_plain, ensure_ascii=False, indent=indent)


def _server_options(command: Callable[..., None], option: str, default: str, envvar: str, token_envvar: str) -> Callable[..., None]:
    address = click.option(
        option, "address", metavar="HOST:PORT", default=default, show_default=True, envvar=envvar, show_envvar=True, help="The server."
    )
    tls = click.option("--tls", is_flag=True, help="Connect with TLS, trusting the system's certificates.")
    roots = click.option("--root-certificates", metavar="FILE", help="Connect with TLS, trusting those of this PEM file.")

    certificate = click.option("--client-certificate", metavar="FILE", help="PEM certificate to show to a server that asks for one.")
    key = click.option("--client-key", metavar="FILE", help="PEM private key of the client certificate.")
    shown = click.option("--token", metavar="KEY", default="", envvar=token_envvar, show_envvar=True, help="Key of this port, if it asks.")

    @functools.wraps(command)
    def run(
        *,
        address: str,
        tls: bool,
        root_certificates: str | None,
        client_certificate: str | None,
        client_key: str | None,
        token: str,
        **options: object,
    ) -> None:
        given = Tls(root_certificates, client_key, client_certificate)
        command(server=Server(address, tls if given == Tls() else given, token), **options)

    return address(tls(roots(certificate(key(shown(run))))))


def _plain(obj: object) -> object:
    if is_dataclass(obj) and not isinstance(obj, type):
        return asdict(obj)
    if isinstance(obj, datetime):
        return obj.isoformat()
    raise TypeError(f"{type(obj).__name__} is not JSON")
