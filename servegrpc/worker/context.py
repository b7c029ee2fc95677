"""What a handler knows besides its input: TorchServe's `Context` and `RequestProcessor`, with the same public names.

One Context lives as long as its worker; handlers keep attributes of their own on it. The runner calls `begin_batch` before each call of
the handler; what a handler sets in `responses` reaches the callers as status and trailing metadata. Per-request objects are made only
when a handler asks for one: most never do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from time import monotonic
from typing import Protocol, TypedDict

from servegrpc.handlers.streaming import NOTHING
from servegrpc.worker.handler_metrics import HandlerMetrics


class SystemProperties(TypedDict):
    """The facts of the worker, under the keys handlers read."""

    model_dir: str
    gpu_id: int | None
    batch_size: int
    server_name: str
    server_version: str
    limit_max_image_pixels: bool


class Callers(Protocol):
    """What the runner knows of the callers of a batch, by position."""

    def has_left(self, position: int) -> bool:
        """Whether the caller waits no more."""

    def deadline(self, position: int) -> float:
        """Return when the caller will leave, in monotonic seconds, inf for never."""

    def send(self, results: object, *, named: bool) -> None:
        """Send each caller that takes a stream a message; `named` when the handler has said by ids whose they are."""


def distinct(request_id: str, taken: Container[str]) -> str:
    """Return the id by which a handler knows a request: its own, with a number after it while another at work has the same.

    Callers choose ids, and may choose alike; handlers keep by them what is one caller's alone.
    """
    name, number = request_id, 2
    while name in taken:
        name, number = f"{request_id}-{number}", number + 1
    return name


def all_distinct(request_ids: Sequence[str]) -> Sequence[str]:
    """Return the ids by which a handler knows the requests of a batch."""
    if len(set(request_ids)) == len(request_ids):
        return request_ids
    names: list[str] = []
    for request_id in request_ids:
        names.append(distinct(request_id, names))
    return names


class RequestProcessor:
    """One request's headers, and the status and headers its response will have."""

    def __init__(self, request_header: Mapping[str, str]) -> None:
        self._request_header = request_header
        self._response_header: dict[str, str] = {}
        self._status_code = 200
        self._reason_phrase: str | None = None

    def get_request_property(self, key: str) -> str | None:
        """Return a header of the request, None when it is absent."""
        return self._request_header.get(key)

    def get_request_properties(self) -> Mapping[str, str]:
        """Return all headers of the request."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the response's status, an HTTP code."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        """Return the response's status, 200 unless set."""
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        """Return the phrase set with the status."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the response."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """Return the headers set on the response."""
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        """Return a header of the response, None when it is not set."""
        return self._response_header.get(key)


class Context:
    """The handler's view of its worker and of the batch in hand. Indexes are positions in the batch."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, object],
        batch_size: int,
        gpu: int | None,
        mms_version: str = "0.12.0",
        limit_max_image_pixels: bool = True,
        metrics: HandlerMetrics | None = None,
        model_yaml_config: dict[str, object] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.model_yaml_config = model_yaml_config or {}
        self.metrics = self._metrics = metrics or HandlerMetrics(model_name)  # private in TorchServe too, and read by handlers all the same
        self.request_ids: dict[int, str] | None = None
        self.stopping_criteria: Sequence[Callable[..., object] | None] | Mapping[str, Callable[..., object] | None] | None = None
        self.cl_socket: object = None
        self.header_key_sequence_id = "ts_request_sequence_id"
        self.header_key_sequence_start = "ts_request_sequence_start"
        self.header_key_sequence_end = "ts_request_sequence_end"
        self._limit_max_image_pixels = limit_max_image_pixels  # as `_metrics`
        self._headers: Sequence[Mapping[str, str]] = ()
        self._callers: Callers | None = None
        self._request_processor: list[RequestProcessor] | None = None
        self._system_properties = SystemProperties(
            model_dir=model_dir,
            gpu_id=gpu,
            batch_size=batch_size,
            server_name="MMS",  # handlers written for TorchServe may check both
            server_version=mms_version,
            limit_max_image_pixels=limit_max_image_pixels,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = object.__hash__

    def begin_batch(self, request_ids: Sequence[str], headers: Sequence[Mapping[str, str]], callers: Callers | None = None) -> None:
        """Start a batch: one id and one header mapping per request. What the last batch's responses were is forgotten."""
        self.request_ids = dict(enumerate(request_ids))
        self.metrics.request_ids = self.request_ids
        self._headers = headers
        self._callers = callers  # after the ids, see `send_intermediate`
        self._request_processor = None

    def is_cancelled(self, idx: int = 0) -> bool:
        """Return whether a request's caller has left, by itself or at its deadline: nobody waits for the result."""
        return self._callers is not None and self._callers.has_left(idx)

    def time_remaining(self, idx: int = 0) -> float:
        """Return the seconds until a request's caller leaves, inf when it set no deadline."""
        return self._callers.deadline(idx) - monotonic() if self._callers else math.inf

    def send_intermediate(self, results: Sequence[object], request_ids: Mapping[int, str] | None = None) -> None:
        """Send one message now to each caller that takes a stream; what `handle` returns later is the last one.

        For handlers in TorchServe's style; others yield. With `request_ids`, `results[index]` goes to the request of the id at `index`.
        Any thread may send while the call runs; one that began before it must give ids, since it may be late.

        Raises InvalidHandlerResult unless there is one result for each request of the batch, KeyError for an id that is not in it,
        RequestCancelled when the call is over or its callers have left.
        """
        callers = self._callers  # before the ids: those of a batch that begins meanwhile are then sent to by a call that is over
        if callers and request_ids is not None:
            positions = {request_id: position for position, request_id in (self.request_ids or {}).items()}
            entries: list[object] = [NOTHING] * len(positions)
            for index, request_id in request_ids.items():
                entries[positions[request_id]] = results[index]
            results = entries
        if callers:
            callers.send(results, named=request_ids is not None)

    def responses(self) -> list[RequestProcessor]:
        """Return the request processors by position, or an empty list when the handler touched none (all 200, no headers)."""
        return self._request_processor or []

    @property
    def system_properties(self) -> SystemProperties:
        """The facts of the worker."""
        return self._system_properties

    @property
    def request_processor(self) -> list[RequestProcessor]:
        """One processor per request of the batch."""
        if self._request_processor is None:
            self._request_processor = [RequestProcessor(header) for header in self._headers]
        return self._request_processor

    @request_processor.setter
    def request_processor(self, request_processor: list[RequestProcessor]) -> None:
        self._request_processor = request_processor

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return a request's id, None outside a batch."""
        return self.request_ids.get(idx) if self.request_ids is not None else None

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a header of a request, None when it is absent."""
        return self.get_all_request_header(idx).get(key)

    def get_all_request_header(self, idx: int) -> Mapping[str, str]:
        """Return all headers of a request."""
        if self._request_processor is None:
            return self._headers[idx]
        return self._request_processor[idx].get_request_properties()

    def get_sequence_id(self, idx: int) -> str | None:
        """Return the sequence a request belongs to, None when it has none."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Return a response's status code and phrase."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set one response's status, an HTTP code."""
        self.request_processor[idx].report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of every response of the batch."""
        for processor in self.request_processor:
            processor.report_status(code, reason_phrase=phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return the headers set on a response."""
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of one response."""
        self.request_processor[idx].add_response_property(key, value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return a response's content type, None when it is not set."""
        return self.get_response_headers(idx).get("content-type")

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set a response's content type."""
        self.set_response_header(idx, "content-type", value)
