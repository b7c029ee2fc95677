"""What becomes of one request, wherever that is decided: in the worker, or in the server when no worker could answer."""

from __future__ import annotations

from dataclasses import dataclass

from servegrpc.errors import Code, ServeError


@dataclass(slots=True)  # not frozen, which would cost a microsecond for each
class Reply:
    """The final answer to one request.

    With code OK, `body` is the encoded reply of the request's dialect. With another code, it is a serialized google.rpc.Status, or empty,
    and `message` is the status message. `trailers` are trailing metadata. When `error` is set, it says all of this instead.
    """

    body: bytes = b""
    code: int = Code.OK
    message: str = ""
    trailers: tuple[tuple[str, str], ...] = ()
    error: ServeError | None = None
