"""Reads `model-config.yaml`: how a model batches, scales and waits, in TorchServe's keys and units.

`core.archive` calls it. A value of the wrong type or range is not fatal: it is ignored, with a warning that names its line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeGuard

from servegrpc.errors import InvalidArchive

_LARGEST = 2**31 - 1  # the API carries these numbers as int32


@dataclass(frozen=True)
class ModelConfig:
    """The settings of one archive; None (or "" or ()) where the file says nothing.

    `raw` is the whole file as handlers see it (`context.model_yaml_config`); `warnings` are whole sentences for the log.
    """

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_seconds: float | None = None
    response_timeout_seconds: float | None = None
    startup_timeout_seconds: float | None = None
    max_queue_size: int | None = None
    device_type: str = ""
    device_ids: tuple[int, ...] = ()
    expose_errors: bool = False
    trusted_pickle: bool = False
    raw: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse_model_config(text: str, *, name: str = "model-config.yaml") -> ModelConfig:
    """Parse the text of a model-config.yaml; `name` is what messages call it.

    Unknown keys pass: they are the handler's. Raises InvalidArchive when the text is not a YAML mapping.
    """
    raw, lines = _load(text, name)
    read = _Reader(raw, lines, name)
    min_workers, max_workers = read.workers()
    delay_milliseconds = read.whole("maxBatchDelay", at_least=0)
    return ModelConfig(
        min_workers=min_workers,
        max_workers=max_workers,
        batch_size=read.whole("batchSize", at_least=1),
        max_batch_delay_seconds=None if delay_milliseconds is None else delay_milliseconds / 1000,
        response_timeout_seconds=read.whole("responseTimeout", at_least=1),
        startup_timeout_seconds=read.whole("startupTimeout", at_least=1),
        max_queue_size=read.whole("jobQueueSize", at_least=1),
        device_type=read.device_type(),
        device_ids=read.device_ids(),
        expose_errors=read.flag("exposeErrors"),
        trusted_pickle=read.flag("trusted_pickle"),
        raw=raw,
        warnings=tuple(read.warnings),
    )


class _Reader:
    """Takes values by key, collecting a warning for each that cannot be used."""

    def __init__(self, raw: dict[str, object], lines: dict[str, int], name: str) -> None:
        self.warnings: list[str] = []
        self._raw = raw
        self._lines = lines
        self._name = name

    def whole(self, key: str, *, at_least: int) -> int | None:
        if key not in self._raw:
            return None
        value = self._raw[key]
        if _is_whole(value) and at_least <= value <= _LARGEST:
            return value
        self._ignore(key, f"a whole number of at least {at_least}" + (f" and at most {_LARGEST}" if _is_whole(value) else ""))
        return None

    def workers(self) -> tuple[int | None, int | None]:
        low, high = self.whole("minWorkers", at_least=0), self.whole("maxWorkers", at_least=0)
        if low is not None and high is not None and high < low:
            self._ignore("maxWorkers", f"at least minWorkers ({low})", ignored="both ignored")
            return None, None
        return low, high

    def flag(self, key: str) -> bool:
        value = self._raw.get(key, False)
        if isinstance(value, bool):
            return value
        self._ignore(key, "true or false")
        return False

    def device_type(self) -> str:
        value = self._raw.get("deviceType", "")
        if isinstance(value, str) and value in ("", "cpu", "gpu"):
            return value
        self._ignore("deviceType", "'cpu' or 'gpu'")
        return ""

    def device_ids(self) -> tuple[int, ...]:
        value = self._raw.get("deviceIds", [])
        if isinstance(value, list) and all(_is_whole(item) and item >= 0 for item in value):
            return tuple(value)
        self._ignore("deviceIds", "a list of whole numbers of at least 0")
        return ()

    def _ignore(self, key: str, expected: str, ignored: str = "ignored") -> None:
        line = self._lines.get(key, 1)
        self.warnings.append(f"{self._name}, line {line}: {key} must be {expected}, not {self._raw[key]!r}; {ignored}")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _load(text: str, name: str) -> tuple[dict[str, object], dict[str, int]]:
    """Return the mapping and, for each key, its line."""
    import yaml  # only servers need it: the archiver runs without

    try:
        raw = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidArchive(f"{name}, line {line}: not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bad characters, impossible dates, endless nesting
        raise InvalidArchive(f"{name}: not valid YAML: {str(error).splitlines()[0]}.") from error
    if raw is None:
        return {}, {}
    if not isinstance(raw, dict) or not isinstance(node, yaml.MappingNode):
        raise InvalidArchive(f"{name}, line 1: must be a mapping of keys to values, not a {type(raw).__name__}.")
    return raw, {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
