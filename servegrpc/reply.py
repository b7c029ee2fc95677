"""What becomes of one request, wherever that is decided: in the worker, or in the server when no worker could answer."""

from __future__ import annotations

from dataclasses import dataclass

from servegrpc.errors import Code, ServeError


@dataclass(slots=True)  # not frozen, which would cost a microsecond for each
class Reply:
    """The final answer to one request, or with `more` a message of its stream, before the final answer.

    With code OK, `body` is the encoded reply of the request's dialect; with `empty` there is none, and the stream just ends. With another
    code, it is a serialized google.rpc.Status, or empty, and `message` is the status message. `trailers` are trailing metadata. When
    `error` is set, it says all of this instead. `unrun` says that no handler got the request. On the way from a worker, `ticket` and
    `index` say which request of which hand-over it is for.
    """

    body: bytes = b""
    code: int = Code.OK
    message: str = ""
    trailers: tuple[tuple[str, str], ...] = ()
    error: ServeError | None = None
    more: bool = False
    empty: bool = False
    unrun: bool = False
    ticket: int = 0
    index: int = 0
