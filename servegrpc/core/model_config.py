"""Reads `model-config.yaml`: how a model batches, scales and waits, in TorchServe's keys and units.

`core.archive` calls it. A value of the wrong type or range is not fatal: it is ignored, with a warning that names its line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeGuard

from servegrpc.errors import InvalidArchive
from servegrpc.tensors import Declaration, parse_declaration

LARGEST = 2**31 - 1  # the API carries these numbers as int32
_WITHOUT_EFFECT = {
    ("torchrun", "parallelType", "parallelLevel"): "a worker is one process with one device",
    ("clientTimeoutInMills",): "requests are dropped at their callers' deadlines",
}


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
    max_retry_timeout_seconds: float | None = None
    client_timeout_seconds: float | None = None
    use_job_ticket: bool = False
    sequence_batching: bool = False
    sequence_max_idle_seconds: float | None = None
    sequence_timeout_seconds: float | None = None
    max_sequence_queue_size: int | None = None
    max_sequences: int | None = None
    continuous_batching: bool = False
    async_communication: bool = False
    use_venv: bool = False
    parallel_type: str = ""
    parallel_level: int | None = None
    on_slow_reader: str | None = None
    stream_buffer_bytes: int | None = None
    max_queue_bytes: int | None = None
    on_worker_loss: str | None = None
    isolate_errors: bool = False
    refuse_hopeless: bool = True
    cool_down_seconds: float | None = None
    tensors: Declaration = field(default_factory=Declaration)
    raw: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse_model_config(text: str, *, name: str = "model-config.yaml") -> ModelConfig:
    """Parse the text of a model-config.yaml; `name` is what messages call it.

    Unknown keys pass: they are the handler's. Raises InvalidArchive when the text is not a YAML mapping.
    """
    raw, lines = _load(text, name)
    read = _Reader(raw, lines, name)
    min_workers, max_workers = read.workers()
    return ModelConfig(
        min_workers=min_workers,
        max_workers=max_workers,
        batch_size=read.whole("batchSize", at_least=1),
        max_batch_delay_seconds=_seconds(read.whole("maxBatchDelay", at_least=0)),
        response_timeout_seconds=read.whole("responseTimeout", at_least=1),
        startup_timeout_seconds=read.whole("startupTimeout", at_least=1),
        max_queue_size=read.whole("jobQueueSize", at_least=1),
        device_type=read.choice("deviceType", "cpu", "gpu"),
        device_ids=read.device_ids(),
        expose_errors=read.flag("exposeErrors"),
        trusted_pickle=read.flag("trusted_pickle"),
        max_retry_timeout_seconds=read.whole("maxRetryTimeoutInSec", at_least=0),
        client_timeout_seconds=_unless_zero(_seconds(read.whole("clientTimeoutInMills", at_least=0))),
        use_job_ticket=read.flag("useJobTicket"),
        sequence_batching=read.flag("sequenceBatching"),
        sequence_max_idle_seconds=_unless_zero(_seconds(read.whole("sequenceMaxIdleMSec", at_least=0))),
        sequence_timeout_seconds=_unless_zero(_seconds(read.whole("sequenceTimeoutMSec", at_least=0))),
        max_sequence_queue_size=read.whole("maxSequenceJobQueueSize", at_least=1),
        max_sequences=read.most_sequences(),
        continuous_batching=read.flag("continuousBatching"),
        async_communication=read.flag("asyncCommunication"),
        use_venv=read.flag("useVenv"),
        parallel_type=read.choice("parallelType", "pp", "tp", "pptp", "custom"),
        parallel_level=read.whole("parallelLevel", at_least=0),
        on_slow_reader=read.choice("onSlowReader", "pause", "end") or None,
        stream_buffer_bytes=read.whole("streamBufferBytes", at_least=1),
        max_queue_bytes=read.whole("jobQueueBytes", at_least=1, at_most=2**63 - 1),
        on_worker_loss=read.choice("onWorkerLoss", "retry", "fail") or None,
        isolate_errors=read.flag("isolateErrors"),
        refuse_hopeless=read.flag("refuseHopeless", default=True),
        cool_down_seconds=read.whole("coolDown", at_least=0),
        tensors=read.tensors(),
        raw=raw,
        warnings=(*read.warnings, *read.without_effect()),
    )


class _Reader:
    """Takes values by key, collecting a warning for each that cannot be used."""

    def __init__(self, raw: dict[str, object], lines: dict[str, int], name: str) -> None:
        self.warnings: list[str] = []
        self._wrong: set[str] = set()
        self._raw = raw
        self._lines = lines
        self._name = name

    def whole(self, key: str, *, at_least: int, at_most: int = LARGEST) -> int | None:
        if key not in self._raw:
            return None
        value = self._raw[key]
        if _is_whole(value) and at_least <= value <= at_most:
            return value
        self._ignore(key, f"a whole number of at least {at_least}" + (f" and at most {at_most}" if _is_whole(value) else ""))
        return None

    def workers(self) -> tuple[int | None, int | None]:
        """Return the least and the most; 0 counts as not given (TorchServe `ModelConfig.java`): no archive is made to refuse every call."""
        low, high = self.whole("minWorkers", at_least=1), self.whole("maxWorkers", at_least=1)
        if low is not None and high is not None and high < low:
            self._ignore("maxWorkers", f"at least minWorkers ({low})", ignored="both ignored")
            return None, None
        return low, high

    def tensors(self) -> Declaration:
        """Return the declared tensors: the keys `inputs` and `outputs`."""
        try:
            return parse_declaration(self._raw)
        except ValueError as error:
            line = next(self._lines[key] for key in ("inputs", "outputs") if key in self._raw)
            self.warnings.append(f"{self._name}, line {line}: {error}; inputs and outputs are ignored")
            return Declaration()

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self._raw.get(key, default)
        if isinstance(value, bool):
            return value
        self._ignore(key, "true or false")
        return default

    def choice(self, key: str, *words: str) -> str:
        value = self._raw.get(key, "")
        if isinstance(value, str) and value in ("", *words):
            return value
        self._ignore(key, " or ".join(map(repr, words)))
        return ""

    def device_ids(self) -> tuple[int, ...]:
        value = self._raw.get("deviceIds", [])
        if isinstance(value, list) and all(_is_whole(item) and item >= 0 for item in value):
            return tuple(value)
        self._ignore("deviceIds", "a list of whole numbers of at least 0")
        return ()

    def most_sequences(self) -> int | None:
        """Return maxNumSequence, but never less than all workers take at once (TorchServe)."""
        most = self.whole("maxNumSequence", at_least=1)
        counts = (self._raw.get("batchSize", 1), self._raw.get("maxWorkers", 1))
        return most and max(most, math.prod(count for count in counts if _is_whole(count)))

    def without_effect(self) -> list[str]:
        """Return a warning for keys that change nothing here, unless they ask for nothing: false, 0 or ""."""
        found = {reason: [key for key in keys if self._raw.get(key) and key not in self._wrong] for keys, reason in _WITHOUT_EFFECT.items()}
        return [f"{self._where(keys[0])}: {', '.join(keys)}: no effect; {reason}" for reason, keys in found.items() if keys]

    def _ignore(self, key: str, expected: str, ignored: str = "ignored") -> None:
        self._wrong.add(key)
        self.warnings.append(f"{self._where(key)}: {key} must be {expected}, not {self._raw[key]!r}; {ignored}")

    def _where(self, key: str) -> str:
        return f"{self._name}, line {self._lines.get(key, 1)}"


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _unless_zero(seconds: float | None) -> float | None:
    """Zero is how TorchServe's files switch a time-out off."""
    return seconds or None


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
