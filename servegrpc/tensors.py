"""The tensors that a model declares: the keys `inputs` and `outputs` of its model-config.yaml.

The server answers metadata from them, the workers check requests and results against them and join requests into batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from servegrpc.values import BY_NAME, MAX_DIMENSIONS, ElementType

KEYS = ("name", "datatype", "shape", "batchable", "optional", "ragged")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One declared tensor. -1 in `shape` is a dimension of any size; the first one of a `batchable` tensor counts rows.

    A request may leave an `optional` input out. Requests whose `ragged` input differs in shape may be in one batch: the handler then
    gets a list of that input's tensors, one per request.
    """

    name: str
    element: ElementType
    shape: tuple[int, ...]
    batchable: bool = False
    optional: bool = False
    ragged: bool = False

    def admits(self, shape: Sequence[int]) -> bool:
        """Return whether a tensor of that shape is one of these."""
        return len(shape) == len(self.shape) and all(own in (-1, other) for own, other in zip(self.shape, shape, strict=True))


@dataclass(frozen=True, slots=True)
class Declaration:
    """All that a model declares; empty for one that declares nothing. Either all of its tensors are batchable or none."""

    inputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    outputs: Mapping[str, TensorSpec] = field(default_factory=dict)

    @property
    def batchable(self) -> bool:
        """Whether requests may be joined along the first dimension."""
        return any(spec.batchable for spec in self.inputs.values())


def parse_declaration(config: Mapping[str, object]) -> Declaration:
    """Return what the parsed model-config.yaml declares. Raises ValueError with a sentence that names the key and says what is wrong."""
    inputs, outputs = _parse_key(config, "inputs"), _parse_key(config, "outputs")
    specs = [*inputs.values(), *outputs.values()]
    if len({spec.batchable for spec in specs}) > 1:
        raise ValueError("inputs and outputs must all be batchable or none of them")
    if any(spec.optional or spec.ragged for spec in outputs.values()):
        raise ValueError("outputs can be neither optional nor ragged")
    return Declaration(inputs, outputs)


def declaration_or_none(config: Mapping[str, object]) -> Declaration:
    """Return what the file declares; nothing when that cannot be read, of which the server has warned."""
    try:
        return parse_declaration(config)
    except ValueError:
        return Declaration()


def _parse_key(config: Mapping[str, object], key: str) -> dict[str, TensorSpec]:
    items = config.get(key, [])
    if not isinstance(items, list):
        raise ValueError(f"{key} must be a list of tensors, as in [{{name: x, datatype: FP32, shape: [-1, 4]}}]")
    specs = [_parse_tensor(item, f"{key}[{index}]") for index, item in enumerate(items)]
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) < len(specs):
        raise ValueError(f"{key} names a tensor twice")
    return by_name


def _parse_tensor(item: object, where: str) -> TensorSpec:
    if not isinstance(item, dict) or not {"name", "datatype", "shape"} <= item.keys() or set(item) - set(KEYS):
        raise ValueError(f"{where} must have name, datatype and shape, and may have batchable, optional and ragged")
    name, element, shape = item["name"], BY_NAME.get(str(item["datatype"])), item["shape"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: name must be a text")
    if element is None:
        raise ValueError(f"{where}: datatype must be one of {', '.join(BY_NAME)}, not {item['datatype']!r}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(type(size) is int and size >= -1 for size in shape):
        raise ValueError(f"{where}: shape must be a list of at most {MAX_DIMENSIONS} whole numbers, -1 for any size, not {shape!r}")
    flags = {flag: item.get(flag, False) for flag in KEYS[3:]}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise ValueError(f"{where}: batchable, optional and ragged must be true or false")
    if flags["batchable"] and (not shape or shape[0] != -1):
        raise ValueError(f"{where}: the shape of a batchable tensor begins with -1")
    if flags["ragged"] and not flags["batchable"]:
        raise ValueError(f"{where}: only a batchable tensor can be ragged")
    return TensorSpec(name, element, tuple(shape), **flags)
