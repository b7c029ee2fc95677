"""What to register, and the numbers that come of it: the caller's word goes before the archive's, and that before the server's.

The manager calls it. Key by key: a caller who gives one number leaves the others to the archive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from servegrpc.core.model import ModelSettings
from servegrpc.core.model_config import LARGEST, ModelConfig
from servegrpc.errors import InvalidInput

MAX_WORKERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSettings:
    """Settings of a version as far as someone gave them; None: not given."""

    workers: int | None = None
    max_workers: int | None = None  # more than `workers`: their number follows the load
    batch_size: int | None = None
    max_batch_delay_seconds: float | None = None
    response_timeout_seconds: float | None = None
    startup_timeout_seconds: float | None = None
    max_queue_size: int | None = None


@dataclass(frozen=True, slots=True)
class Registration(GivenSettings):
    """What to register. What is not given comes from the archive, else from the server's defaults."""

    archive: str
    model_name: str = ""
    handler: str = ""
    fallback_name: str = ""  # for an archive that names no model
    make_default: bool = False
    fallback_workers: int | None = None  # where the archive says nothing; in place of what the server says
    any_url: bool = False  # the archive may be downloaded from anywhere: the operator has named it
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Defaults:
    """The server's word: for one version of a model, then for all."""

    everywhere: GivenSettings = field(default_factory=GivenSettings)
    versions: Mapping[tuple[str, str], GivenSettings] = field(default_factory=dict)
    handler: str = ""
    model_config: Mapping[str, object] = field(default_factory=dict)  # keys of model-config.yaml, where an archive's has them not

    def of(self, name: str, version: str) -> Iterator[GivenSettings]:
        """Return what goes first, first."""
        if (name, version) in self.versions:
            yield self.versions[name, version]
        yield self.everywhere


def settings_of(registration: Registration, config: ModelConfig, defaults: Iterator[GivenSettings]) -> ModelSettings:
    """Return how a version batches and waits (TorchServe's order, but key by key)."""
    sources = (registration, config, *defaults)
    values: dict[str, object] = {}
    for name in ModelSettings.__dataclass_fields__:
        given = [value for source in sources if (value := getattr(source, name, None)) is not None]
        if given:
            values[name] = given[0]
    return ModelSettings(**values)  # type: ignore[arg-type]  # by name, checked by check_numbers and the parser


def worker_bounds(registration: Registration, config: ModelConfig, defaults: Iterator[GivenSettings], default: int) -> tuple[int, int]:
    """Return how many workers a version has at least and at most.

    Who says the least says the most too; one who says only the most bounds the number that another gives.
    """
    pairs = [(registration.workers, registration.max_workers), (config.min_workers, config.max_workers)]
    if registration.fallback_workers is None:
        pairs += [(given.workers, given.max_workers) for given in defaults]
    high: int | None = None
    for least, most in (*pairs, (default, None)):
        high = most if high is None else high
        if least is not None:
            break
    else:
        raise AssertionError  # the default is a number
    return (least, least) if high is None else (min(least, high), high)


def check_workers(workers: int, max_workers: int | None = None) -> None:
    """Raise InvalidInput for numbers that no version may have."""
    for field_name, number in (("workers", workers), ("max_workers", max_workers)):
        if number is not None and not 0 <= number <= MAX_WORKERS:
            raise InvalidInput(f"{field_name} must be 0 to {MAX_WORKERS}, not {number}.", field=field_name)
    if max_workers is not None and max_workers < workers:
        raise InvalidInput(f"max_workers must not be less than workers ({workers}), and is {max_workers}.", field="max_workers")


def check_numbers(given: GivenSettings) -> None:
    """Raise InvalidInput naming the field that is out of its range."""
    check_workers(given.workers or 0, given.max_workers)
    limits: dict[str, tuple[float | None, float, float]] = {
        "settings.batch_size": (given.batch_size, 1, 65536),
        "settings.max_batch_delay": (given.max_batch_delay_seconds, 0, 3600),
        "settings.response_timeout": (given.response_timeout_seconds, 0.001, LARGEST),
        "settings.startup_timeout": (given.startup_timeout_seconds, 0.001, LARGEST),
        "settings.max_queue_size": (given.max_queue_size, 1, LARGEST),
    }
    for name, (value, least, most) in limits.items():
        if value is not None and not least <= value <= most:
            raise InvalidInput(f"{name} must be {least:g} to {most:.15g}, not {value:g}.", field=name)
