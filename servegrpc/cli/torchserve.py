"""The options of `torchserve`, as `servegrpc serve` takes them: any of them, or TS_CONFIG_FILE, asks for TorchServe's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from servegrpc.tsconfig.load import CONFIG_VARIABLE, find_config, read_config

log = structlog.get_logger()

Command = TypeVar("Command", bound=Callable[..., Any])

_WITHOUT_EFFECT = {
    "log_config": "logs go to standard error; see --log-level and --log-format",
    "cpp_log_config": "only Python handlers are run",
    "workflow_store": "workflows are not served",
    "plugins_path": "plugins are Java programs",
}
_OPTIONS = (
    click.option("--ts-config", type=click.Path(dir_okay=False, path_type=Path), help="TorchServe's config.properties, or a snapshot."),
    click.option("--models", "ts_models", multiple=True, metavar="all | [NAME=]ARCHIVE,...", help="As for torchserve; more may follow."),
    click.option("--ncs", "--no-config-snapshots", "no_snapshots", is_flag=True, help="Read no snapshot of TorchServe."),
    click.option("--disable-token-auth", "--dt", is_flag=True, help="Ask for no tokens."),
    click.option("--enable-model-api", is_flag=True, help="Let calls register and unregister models."),
    click.option("--log-config", help="Without effect."),
    click.option("--cpp-log-config", help="Without effect."),
    click.option("--workflow-store", help="Without effect."),
    click.option("--plugins-path", "--ppath", help="Without effect."),
    click.option("--start", is_flag=True, help="Nothing else is ever done."),
    click.option("--foreground", is_flag=True, help="Nothing else is ever done."),
    click.option("--stop", is_flag=True, help="Refused: send the server SIGTERM, or press Ctrl-C."),
)
NAMES = (
    *("ts_config", "ts_models", "no_snapshots", "disable_token_auth", "enable_model_api"),
    *(*_WITHOUT_EFFECT, "start", "foreground", "stop"),
)


def torchserve_options(command: Command) -> Command:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class TorchServeOptions:
    """What was given of them."""

    def __init__(self, given: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        if given["stop"]:
            raise click.UsageError("--stop: the server runs in the foreground; send it SIGTERM, or press Ctrl-C.")
        self._given = given
        self._environment = environment
        self.asked_for = any(given[name] for name in NAMES)

    def asks(self, config_file: Path | None) -> bool:
        """Whether TorchServe's configuration shall be read. Raises UsageError when ours is given besides."""
        if config_file and self.asked_for:
            raise click.UsageError("--config goes without TorchServe's options; `servegrpc config convert` makes one file of both.")
        return self.asked_for or (config_file is None and bool(self._environment.get(CONFIG_VARIABLE)))

    def settings(self, models: tuple[str, ...], model_store: object) -> tuple[Mapping[str, object], Callable[[], None]]:
        """Return what the configuration says, and a function that tells the log, which is not set up yet, what has no effect.

        `models` are the arguments of the command: with `--models` those that follow it, else the models instead of the file's.
        """
        file = find_config(self._given["ts_config"], self._environment, snapshots=not self._given["no_snapshots"], folder=Path.cwd())
        options = {}
        if words := (*self._given["ts_models"], *models):
            options["load_models"] = ",".join(words)
        if model_store:
            options["model_store"] = str(model_store)
        flags = {"disable_token_authorization": "disable_token_auth", "enable_model_api": "enable_model_api"}
        options |= {key: "true" for key, name in flags.items() if self._given[name]}
        translation = read_config(file, options, self._environment)
        without_effect = {name: reason for name, reason in _WITHOUT_EFFECT.items() if self._given[name]} | translation.without_effect

        def tell() -> None:
            log.info("TorchServe's configuration", file=str(file) if file else "none")
            if without_effect:
                log.warning("settings without effect", settings="; ".join(f"{key}: {why}" for key, why in without_effect.items()))

        return translation.settings, tell
