"""The channel between the server and one worker: control messages on a SEQPACKET socket, large payloads in slabs.

    server ── LOAD, BATCH, FLAG, SEQUENCE_ENDED, STOP ──────────► worker
           ◄── LOADED, LOAD_FAILED, REPLIES, TAKEN, METRICS ──

Every hand-over has a ticket, a number of the server's; a reply names its request by ticket and index. A channel has two lanes, each with
a slab for requests and one for replies, so that one batch is copied while another is computed. One more memfd, the board, says for each
lane how many of its requests have reached the handler, so that after a crash the server knows which may be run elsewhere, and which
callers have left or cannot take more messages now.

A lane's request slab belongs to the server until it sends a batch on it, and then to the worker until it has sent the last reply of that
batch, or TAKEN. In its reply slab the worker appends, and begins anew when the server has copied out all there was, which the board tells
too. Both processes use this module; it imports nothing of ours but `reply` and `slab`.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from struct import Struct
from typing import Protocol

from servegrpc.engine.slab import Slab, SlabError, offsets
from servegrpc.reply import Reply
from servegrpc.wire.dialect import About

LANES = 2
INLINE_BYTES = 16 * 1024  # a batch of so many payload bytes lies in the control message; at 16 to 48 KiB both ways cost the same
SOCKET_BUFFER_BYTES = 1024 * 1024
MAX_MESSAGE_BYTES = 512 * 1024

MAX_HEADS_BYTES = 256 * 1024  # heads (ids, lengths, headers) longer than this lie in the slab too, before the payloads

HEADER = Struct("<BBHIIxxxxQQ")  # kind, lane, payloads inline, items, ticket, start in the slab, bytes of heads that lie in the slab
ITEM = Struct("<BBHIIdQ")  # dialect, wants a stream, bytes of id, bytes of headers, microseconds queued, deadline, bytes of payload
ANSWER = Struct("<BBHIIIQ")  # code, flags, bytes of message, bytes of trailers, ticket, index, bytes of body
COUNT = Struct("<I")
STARTED_AT, COPIED_AT, FLAGS_AT = 0, COUNT.size * LANES, 2 * COUNT.size * LANES  # on the board: two counts a lane, then a byte a request
MORE, EMPTY, UNRUN = 1, 2, 4  # flags of a reply
NO_BYTES = memoryview(b"")
NO_PAIRS: tuple[tuple[str, str], ...] = ()
LEFT, PAUSED = 1, 2  # flags of a request: its caller has left; its caller cannot take more now


class Kind(IntEnum):
    """What a control message is."""

    LOAD = 1
    LOADED = 2
    LOAD_FAILED = 3
    BATCH = 4
    REPLIES = 5
    STOP = 6
    FLAG = 7
    TAKEN = 8
    METRICS = 9
    SEQUENCE_ENDED = 10


class ChannelError(Exception):
    """The other process sent something that is no message of ours; the worker cannot be used any more."""


class Waiting(Protocol):
    """What `send_batch` needs of a request."""

    payload: bytes
    dialect: int
    request_id: str
    headers: tuple[tuple[str, str], ...]
    arrived: float
    deadline: float

    @property
    def streamed(self) -> bool:
        """Whether its caller takes more than one message."""


@dataclass(slots=True)  # not frozen, which would cost a microsecond for each
class Item:
    """One request as the worker gets it. `payload` is a view on the slab, valid until the batch is answered.

    `deadline` is in monotonic seconds, which all processes of a machine share; inf for none.
    """

    dialect: int
    request_id: str
    headers: tuple[tuple[str, str], ...]
    queued_microseconds: int
    payload: memoryview
    deadline: float = math.inf
    streamed: bool = False
    about: About | None = None  # what its replies tell, from the first one on


@dataclass(frozen=True, slots=True)
class Batch:
    """What the worker receives as BATCH."""

    lane: int
    ticket: int
    items: list[Item]
    inline: bool = True  # the payloads lie in the message, not in the slab


@dataclass(frozen=True, slots=True)
class Replies:
    """What the server receives as REPLIES, each with its ticket and index."""

    replies: list[Reply]


@dataclass(frozen=True, slots=True)
class Control:
    """Any other message, with its JSON body."""

    kind: Kind
    body: dict[str, object]


class Channel:
    """One end of a worker's channel. Only one thread at a time sends on a lane, and only one receives, on each end."""

    def __init__(self, connection: socket.socket, slabs: Sequence[Slab]) -> None:
        self._socket = connection
        self._requests = slabs[:LANES]
        self._replies = slabs[LANES : 2 * LANES]
        self._board_slab = slabs[-1]
        board_bytes = os.fstat(slabs[-1].fd).st_size
        self._board = slabs[-1].read(board_bytes)
        each = (board_bytes - FLAGS_AT) // LANES
        self._flags = [self._board[at : at + each] for at in range(FLAGS_AT, board_bytes, each)]
        self._reply_ends = [0] * LANES
        self._reply_writes = [0] * LANES  # messages whose bodies lie in the slab
        self._buffer = bytearray(MAX_MESSAGE_BYTES)

    @staticmethod
    def pair(largest_batch: int = 1) -> tuple[Channel, list[int]]:
        """Make a channel; returns the server's end, and the descriptors that the worker's end is made from by `from_descriptors`.

        `largest_batch` is how many requests a hand-over may have. The caller owns the first descriptor, the socket of the worker, and
        closes it once the worker has it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        slabs = [*(Slab.create() for _ in range(2 * LANES)), Slab.create(smallest_bytes=1)]
        slabs[-1].write(0, [bytes(FLAGS_AT + LANES * largest_batch)])
        return Channel(ours, slabs), [theirs.detach(), *(slab.fd for slab in slabs)]

    @staticmethod
    def from_descriptors(descriptors: Sequence[int]) -> Channel:
        """Make the worker's end from what it inherited."""
        return Channel(socket.socket(fileno=descriptors[0]), [Slab(fd) for fd in descriptors[1:]])

    def close(self) -> None:
        """Give up this end."""
        self._socket.close()
        self._board, self._flags = memoryview(b""), []
        self._buffer = bytearray()  # who still knows this end, a timer for one, shall not keep it
        for slab in (*self._requests, *self._replies, self._board_slab):
            slab.close()

    def hang_up(self) -> None:
        """End the conversation for both ends; a thread that waits in `receive` gets None."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, kind: Kind, body: dict[str, object] | None = None, *, wait: bool = True) -> None:
        """Send a control message. Raises OSError when the other end is gone, ChannelError for one that is too long.

        Without `wait`, OSError also when the socket is full.
        """
        message = HEADER.pack(kind, 0, 1, 0, 0, 0, 0) + json.dumps(body or {}, default=str).encode()
        if len(message) > MAX_MESSAGE_BYTES:
            raise ChannelError(f"{kind.name} has {len(message)} bytes; {MAX_MESSAGE_BYTES} is the most")
        self._socket.send(message, 0 if wait else socket.MSG_DONTWAIT)

    def send_batch(self, lane: int, ticket: int, requests: Sequence[Waiting], now: float) -> bool:
        """Send a batch on a free lane; copies every payload once. Returns whether it lies in the slab.

        Never blocks. Raises BlockingIOError when the socket is full, another OSError when the other end is gone.
        """
        heads, texts = [], []
        for request in requests:
            identity = request.request_id.encode()
            headers = _join(request.headers)
            queued = max(0, min(int((now - request.arrived) * 1e6), 0xFFFFFFFF))
            payload = request.payload
            heads.append(ITEM.pack(request.dialect, request.streamed, len(identity), len(headers), queued, request.deadline, len(payload)))
            texts += [identity, headers]
        COUNT.pack_into(self._board, STARTED_AT + lane * COUNT.size, 0)
        self._flags[lane][: len(requests)] = bytes(len(requests))
        payloads = [request.payload for request in requests]
        return self._send_items(Kind.BATCH, lane, ticket, heads + texts, payloads, self._requests[lane], 0, socket.MSG_DONTWAIT) > 0

    def send_replies(self, lane: int, replies: Sequence[Reply]) -> None:
        """Send replies by way of a lane's slab. Raises OSError when the other end is gone."""
        heads, texts = [], []
        for reply in replies:
            message = trailers = b""
            if reply.message or reply.trailers:
                message, trailers = reply.message.encode()[:0xFFFF], _join(reply.trailers)
                texts += [message, trailers]
            flags = reply.more * MORE | reply.empty * EMPTY | reply.unrun * UNRUN
            heads.append(ANSWER.pack(reply.code, flags, len(message), len(trailers), reply.ticket, reply.index, len(reply.body)))
        start = 0 if self._count(COPIED_AT, lane) == self._reply_writes[lane] else self._reply_ends[lane]
        bodies = [reply.body for reply in replies]
        end = self._send_items(Kind.REPLIES, lane, 0, heads + texts, bodies, self._replies[lane], start)
        if end != start:
            self._reply_ends[lane] = end
            self._reply_writes[lane] = (self._reply_writes[lane] + 1) & 0xFFFFFFFF

    def mark_started(self, lane: int, count: int) -> None:
        """Note, in the worker, that the first `count` requests of the lane's batch have reached the handler."""
        COUNT.pack_into(self._board, STARTED_AT + lane * COUNT.size, count)

    def started(self, lane: int) -> int:
        """Return how many requests of the lane's batch have reached the handler; known even when the worker is dead."""
        return self._count(STARTED_AT, lane)

    def set_flags(self, lane: int, index: int, flags: int) -> None:
        """Tell a worker that computes the lane's batch about one of its callers: LEFT, PAUSED or 0."""
        self._flags[lane][index] = flags

    def flags(self, lane: int, index: int) -> int:
        """Return, in the worker, what the server said last about a caller."""
        return self._flags[lane][index]

    def _count(self, at: int, lane: int) -> int:
        (count,) = COUNT.unpack_from(self._board, at + lane * COUNT.size)
        return int(count)

    def wait_readable(self, seconds: float) -> bool:
        """Wait until `receive` would not block; False when the time is over before. `math.inf` waits for ever."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(None if seconds == math.inf else max(0.0, seconds) * 1000))

    def receive(self, *, wait: bool = True) -> Batch | Replies | Control | None:
        """Wait for the next message; None when the other end is gone. Raises ChannelError for what is no message of ours.

        Without `wait`, BlockingIOError when there is none.
        """
        try:
            size = self._socket.recv_into(self._buffer, 0, 0 if wait else socket.MSG_DONTWAIT)
        except ConnectionError:
            return None
        if size == 0:
            return None
        message = memoryview(self._buffer)[:size]
        try:
            kind, lane, inline, count, ticket, start, heads_length = HEADER.unpack_from(message)
            if kind == Kind.BATCH:
                return Batch(lane, ticket, self._read_items(message, self._requests[lane], inline, count, heads_length), bool(inline))
            if kind == Kind.REPLIES:
                replies = self._read_replies(message, self._replies[lane], inline, count, start, heads_length)
                if not inline:
                    COUNT.pack_into(self._board, COPIED_AT + lane * COUNT.size, (self._count(COPIED_AT, lane) + 1) & 0xFFFFFFFF)
                return Replies(replies)
            body = json.loads(bytes(message[HEADER.size :]))
            if not isinstance(body, dict):
                raise TypeError("its body is no object")
            return Control(Kind(kind), body)
        except (ValueError, TypeError, IndexError, RecursionError, struct.error, SlabError) as error:
            raise ChannelError(f"a control message of {size} bytes cannot be read: {error}") from error

    def renew_buffer(self) -> None:
        """Keep what was received last valid, whatever is received next: in the middle of a batch."""
        self._buffer = bytearray(MAX_MESSAGE_BYTES)

    def _send_items(
        self, kind: Kind, lane: int, ticket: int, heads: list[bytes], payloads: list[bytes], slab: Slab, start: int, flags: int = 0
    ) -> int:
        """Send one message; returns where the next items of the lane would begin in the slab."""
        joined = b"".join(heads)
        heads_in_slab = len(joined) > MAX_HEADS_BYTES
        if not heads_in_slab and sum(map(len, payloads)) <= INLINE_BYTES:
            self._socket.send(b"".join((HEADER.pack(kind, lane, 1, len(payloads), ticket, start, 0), joined, *payloads)), flags)
            return start
        end = slab.write(start, [joined, *payloads] if heads_in_slab else payloads)
        header = HEADER.pack(kind, lane, 0, len(payloads), ticket, start, len(joined) if heads_in_slab else 0)
        self._socket.send(header if heads_in_slab else header + joined, flags)
        return end

    def _read_items(self, message: memoryview, slab: Slab, inline: int, count: int, heads_length: int) -> list[Item]:
        heads, start = self._heads(message, slab, 0, heads_length)
        position = count * ITEM.size
        items, lengths = [], []
        for dialect, streamed, id_length, headers_length, queued, deadline, length in ITEM.iter_unpack(heads[:position]):
            request_id, position = str(heads[position : position + id_length], "utf-8"), position + id_length
            headers = NO_PAIRS
            if headers_length:
                headers, position = _split(heads[position : position + headers_length]), position + headers_length
            items.append(Item(dialect, request_id, headers, queued, NO_BYTES, deadline, streamed != 0))
            lengths.append(length)
        if len(items) != count:
            raise ValueError("it has fewer items than it says")
        for item, view in zip(items, self._payloads(heads[position:], slab, start, inline, lengths), strict=True):
            item.payload = view
        return items

    def _read_replies(self, message: memoryview, slab: Slab, inline: int, count: int, start: int, heads_length: int) -> list[Reply]:
        heads, start = self._heads(message, slab, start, heads_length)
        position = count * ANSWER.size
        replies, lengths = [], []
        for code, flags, message_length, trailers_length, ticket, index, length in ANSWER.iter_unpack(heads[:position]):
            text, trailers = "", NO_PAIRS
            if message_length:
                text, position = str(heads[position : position + message_length], "utf-8", "replace"), position + message_length
            if trailers_length:
                trailers, position = _split(heads[position : position + trailers_length]), position + trailers_length
            replies.append(Reply(b"", code, text, trailers, None, flags & MORE != 0, flags & EMPTY != 0, flags & UNRUN != 0, ticket, index))
            lengths.append(length)
        if len(replies) != count:
            raise ValueError("it has fewer replies than it says")
        for reply, view in zip(replies, self._payloads(heads[position:], slab, start, inline, lengths), strict=True):
            reply.body = bytes(view)
        return replies

    def _heads(self, message: memoryview, slab: Slab, start: int, heads_length: int) -> tuple[memoryview, int]:
        """Return the heads, and where the payloads begin in the slab."""
        if not heads_length:
            return message[HEADER.size :], start
        (place,), end = offsets(start, [heads_length])
        return slab.read(end)[place : place + heads_length], end

    def _payloads(self, rest: memoryview, slab: Slab, start: int, inline: int, lengths: Sequence[int]) -> list[memoryview]:
        if inline:
            area, places = rest, [0, *accumulate(lengths)][: len(lengths)]
            if sum(lengths) > len(rest):
                raise ValueError("it ends before its payloads do")
        else:
            places, end = offsets(start, lengths)
            area = slab.read(end)
        return [area[place : place + length] for place, length in zip(places, lengths, strict=True)]


def _join(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Join texts by NUL; one that is in a text, which a caller may choose, becomes the replacement character."""
    if not pairs:
        return b""
    joined = "\0".join(text for pair in pairs for text in pair)
    if joined.count("\0") != 2 * len(pairs) - 1:
        joined = "\0".join(text.replace("\0", "\ufffd") for pair in pairs for text in pair)
    return joined.encode()


def _split(joined: memoryview) -> tuple[tuple[str, str], ...]:
    if not joined:
        return ()
    texts = str(joined, "utf-8").split("\0")
    return tuple(zip(texts[::2], texts[1::2], strict=True))
