"""What all envelopes do: unpack the requests into rows, call the handler, pack its results into replies."""

from __future__ import annotations

import base64
import binascii
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, cast

from servegrpc.errors import InvalidHandlerResult, InvalidInput
from servegrpc.handlers.rows import Row, renumbered, row_input

if TYPE_CHECKING:
    from servegrpc.worker.context import Context

HandleFunction = Callable[..., object]


class BaseEnvelope(ABC):
    """Wraps a handler's entry point `handle_fn(rows, context)`; `handle` takes its place."""

    def __init__(self, handle_fn: HandleFunction) -> None:
        self._handle_fn = handle_fn
        self.context: Context = cast("Context", None)  # of the batch in hand
        self._owners: list[int] = []  # for each row of the handler, the request it is of

    def handle(self, data: list[Row], context: Context) -> object:
        """Return one reply for each request; InvalidInput, the handler's too, names the request it is about."""
        self.context = context
        self._owners = list(range(len(data)))
        rows = self.parse_input(data)
        with renumbered(self._owners):
            results = self._handle_fn(rows, context)
        if inspect.isgenerator(results):
            results.close()
            raise InvalidHandlerResult("the handler yields, which an envelope cannot pack; take off serviceEnvelope")
        return self.format_output(cast("list[object]", results))

    @abstractmethod
    def parse_input(self, data: list[Row]) -> list[object]:
        """Return the handler's rows for a batch of requests."""

    @abstractmethod
    def format_output(self, data: list[object]) -> list[object]:
        """Return one reply for each request from the handler's results."""


class JoiningEnvelope(BaseEnvelope):
    """Requests of several items each: the items of the whole batch are the handler's rows, and their results are dealt out again."""

    def parse_input(self, data: list[Row]) -> list[object]:
        """Return the items of all requests, in order."""
        items = [self._items(row, index) for index, row in enumerate(data)]
        self._counts = [len(some) for some in items]
        self._owners = [index for index, count in enumerate(self._counts) for _ in range(count)]
        return [item for some in items for item in some]

    def format_output(self, data: list[object]) -> list[object]:
        """Return one reply for each request, made of its items' results; what the handler returns for one request alone is its reply."""
        if len(self._counts) == 1:
            return [self._reply(data, 0)]
        if len(data) != sum(self._counts):
            raise InvalidHandlerResult(
                f"the handler returned {len(data)} results for the {sum(self._counts)} items of {len(self._counts)} requests; "
                "it must return one for each, or have batchSize: 1"
            )
        bounds = pairwise(accumulate(self._counts, initial=0))
        return [self._reply(data[start:end], index) for index, (start, end) in enumerate(bounds)]

    @abstractmethod
    def _items(self, row: Row, index: int) -> Sequence[object]:
        """Return the items of one request; InvalidInput when it is not of the envelope's format."""

    @abstractmethod
    def _reply(self, results: list[object], index: int) -> object:
        """Return the reply of request `index` to the results of its items."""


def items_of(row: Row, key: str, index: int) -> tuple[Mapping[str, object], list[object]]:
    """Return a request's JSON object and the list under `key` in it.

    The object is the input "data" or "body", as JSON text, bytes or already parsed; or `key` is an input itself.
    """
    body = row if isinstance(row, Mapping) and key in row else _parsed(row, index)
    items = body.get(key) if isinstance(body, Mapping) else None
    if not isinstance(items, list) or not items:
        raise InvalidInput(f'The request is no JSON object with a list "{key}" that is not empty.', field=f"inputs.{key}", row=index)
    return cast("Mapping[str, object]", body), items


def decoded(item: object, index: int) -> object:
    """Return an item with each {"b64": text} in it, or as one of its values, as bytes."""
    if not isinstance(item, Mapping):
        return item
    if item.keys() != {"b64"}:
        return {
            name: decoded(value, index) if isinstance(value, Mapping) and value.keys() == {"b64"} else value for name, value in item.items()
        }
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise InvalidInput('The text in "b64" is no base64.', field="inputs.b64", row=index) from error


def _parsed(row: Row, index: int) -> object:
    name, value = row_input(row, index)
    if not isinstance(value, str | bytes | bytearray | memoryview):
        return value
    try:
        return json.loads(bytes(value) if isinstance(value, memoryview) else value)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f'The input "{name}" is no JSON: {error}.', field=f"inputs.{name}", row=index) from error
