"""The channel between server and worker, with both ends in this process."""

import json
import math
import os
import socket
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from servegrpc.engine.channel import HEADER, INLINE_BYTES, LANES, LEFT, MAX_HEADS_BYTES, PAUSED, Channel, ChannelError, Control, Kind
from servegrpc.reply import Reply

REUSED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
SIZES = st.lists(st.sampled_from([0, 1, 63, 64, 65, 1000, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 300_000]), max_size=5)


@dataclass
class Sent:
    payload: bytes
    dialect: int = 0
    request_id: str = "id"
    headers: tuple = ()
    arrived: float = 0.0
    deadline: float = math.inf
    streamed: bool = False


@pytest.fixture
def ends():
    """The server's and the worker's end."""
    server, descriptors = Channel.pair(4096)
    worker = Channel.from_descriptors([descriptors[0], *map(os.dup, descriptors[1:])])
    yield server, worker
    server.close()
    worker.close()


@pytest.fixture
def raw_ends():
    """The server's end, and the bare socket of a worker."""
    server, descriptors = Channel.pair()
    with socket.socket(fileno=descriptors[0]) as bare:
        yield server, bare
    server.close()


@REUSED
@given(SIZES, st.integers(0, LANES - 1))
def test_batch_of_any_sizes(ends, sizes, lane):
    """A batch of payloads of any sizes is sent → the worker has the same, in order."""
    server, worker = ends
    payloads = [os.urandom(size) for size in sizes]
    server.send_batch(lane, 1, [Sent(payload) for payload in payloads], 0.0)
    batch = worker.receive()
    assert batch.lane == lane
    assert [bytes(item.payload) for item in batch.items] == payloads


@REUSED
@given(st.lists(st.tuples(TEXT, PAIRS, st.integers(0, 255)), max_size=4), st.booleans())
def test_heads(ends, heads, large):
    """Requests have ids, headers and dialects → the worker has the same, whether payloads are inline or not."""
    server, worker = ends
    payload = bytes(INLINE_BYTES + 1 if large else 1)
    server.send_batch(0, 1, [Sent(payload, dialect, name, headers, arrived=1.0) for name, headers, dialect in heads], 1.25)
    items = worker.receive().items
    assert [(item.request_id, item.headers, item.dialect) for item in items] == heads
    assert all(item.queued_microseconds == 250_000 for item in items)


def test_long_wait(ends):
    """A request waited longer than the message can say → it says as long as it can."""
    server, worker = ends
    server.send_batch(0, 1, [Sent(b"")], 1e9)
    assert worker.receive().items[0].queued_microseconds == 2**32 - 1


def test_many_requests(ends):
    """A batch has more heads than fit in a message → they go through the slab."""
    server, worker = ends
    names = [f"request-{number:092}" for number in range(MAX_HEADS_BYTES // 100)]
    server.send_batch(1, 1, [Sent(name.encode(), request_id=name) for name in names], 0.0)
    items = worker.receive().items
    assert [item.request_id for item in items] == names
    assert [bytes(item.payload).decode() for item in items] == names


def test_slab_items_are_aligned(ends):
    """Payloads go through the slab → they lie 64 bytes apart, so that equal tensors are one block."""
    server, worker = ends
    server.send_batch(0, 1, [Sent(b"a" * INLINE_BYTES), Sent(b"b" * INLINE_BYTES)], 0.0)
    first, second = (item.payload for item in worker.receive().items)
    assert first.obj is second.obj
    assert bytes(memoryview(first.obj)[: 2 * INLINE_BYTES]) == b"a" * INLINE_BYTES + b"b" * INLINE_BYTES


@REUSED
@given(SIZES, TEXT, PAIRS, st.integers(0, 255))
def test_replies_of_any_sizes(ends, sizes, message, trailers, code):
    """Replies of any sizes, codes, messages and trailers are sent → the server has the same, in order."""
    server, worker = ends
    replies = [Reply(os.urandom(size), code, message, trailers) for size in sizes]
    worker.send_replies(1, replies)
    assert server.receive().replies == replies


def test_messages_of_streams(ends):
    """Replies name tickets and indexes, whether more comes, and whether a handler ran → the server has the same."""
    server, worker = ends
    replies = [Reply(b"a", more=True, ticket=7, index=1), Reply(empty=True, ticket=2**32 - 1, index=4), Reply(code=3, unrun=True)]
    worker.send_replies(0, replies)
    assert server.receive().replies == replies


def test_streamed_requests(ends):
    """A request wants a stream and has a deadline → the worker sees both."""
    server, worker = ends
    server.send_batch(0, 3, [Sent(b"", deadline=5.5, streamed=True), Sent(b"")], 0.0)
    batch = worker.receive()
    assert batch.ticket == 3
    assert [(item.deadline, item.streamed) for item in batch.items] == [(5.5, True), (math.inf, False)]


def test_flags(ends):
    """The server says that callers have left or cannot take more → the worker sees it, and a new batch begins without."""
    server, worker = ends
    server.send_batch(1, 1, [Sent(b""), Sent(b"")], 0.0)
    server.set_flags(1, 1, LEFT | PAUSED)
    assert [worker.flags(1, index) for index in range(2)] == [0, LEFT | PAUSED]
    server.send_batch(1, 2, [Sent(b""), Sent(b"")], 0.0)
    assert worker.flags(1, 1) == 0


def test_wait_for_a_message(ends):
    """Nothing comes in time, then something does → that is told, and it is still there."""
    server, worker = ends
    assert not worker.wait_readable(0.0)
    server.send(Kind.STOP)
    assert worker.wait_readable(math.inf)
    assert worker.receive() == Control(Kind.STOP, {})


def test_long_stream_reuses_the_slab(ends):
    """Large messages of one stream are read as they come → the slab does not grow."""
    server, worker = ends
    for _ in range(20):
        worker.send_replies(0, [Reply(bytes(100_000), more=True)])
        server.receive()
    assert os.fstat(server._replies[0].fd).st_size == 256 * 1024


def test_replies_one_after_the_other(ends):
    """A batch is answered bit by bit before the server reads → earlier replies are not overwritten."""
    server, worker = ends
    replies = [Reply(os.urandom(INLINE_BYTES + 1)), Reply(b"small"), Reply(os.urandom(500_000))]
    for reply in replies:
        worker.send_replies(0, [reply])
    assert [server.receive().replies for _ in replies] == [[reply] for reply in replies]


def test_slab_is_reused(ends):
    """Batch after batch is sent and answered → the slab does not grow."""
    server, worker = ends
    for _ in range(5):
        server.send_batch(0, 1, [Sent(bytes(100_000))], 0.0)
        worker.receive()
        worker.send_replies(0, [Reply(bytes(100_000))])
        server.receive()
    assert {os.fstat(slab.fd).st_size for slab in (server._requests[0], server._replies[0])} == {256 * 1024}


def test_two_lanes(ends):
    """Two batches are in flight → neither overwrites the other."""
    server, worker = ends
    payloads = [os.urandom(50_000), os.urandom(50_000)]
    for lane in range(LANES):
        server.send_batch(lane, 1, [Sent(payloads[lane])], 0.0)
    batches = [worker.receive(), worker.receive()]
    assert [bytes(batch.items[0].payload) for batch in batches] == payloads


def test_long_message(ends):
    """An error message is longer than the channel carries → it is cut, even within a letter."""
    server, worker = ends
    worker.send_replies(0, [Reply(b"", 3, "ä" * 40_000)])
    (reply,) = server.receive().replies
    assert reply.message.startswith("ä" * 32_767)


def test_control(ends):
    """A control message is sent → it arrives with its body."""
    server, worker = ends
    server.send(Kind.LOAD, {"threads": 2})
    worker.send(Kind.LOADED)
    assert worker.receive() == Control(Kind.LOAD, {"threads": 2})
    assert server.receive() == Control(Kind.LOADED, {})


def test_board(ends):
    """The worker notes how far it is → the server sees it, and a new batch begins at none."""
    server, worker = ends
    server.send_batch(1, 1, [Sent(b""), Sent(b"")], 0.0)
    worker.mark_started(1, 2)
    assert (server.started(0), server.started(1)) == (0, 2)
    server.send_batch(1, 1, [Sent(b"")], 0.0)
    assert server.started(1) == 0


def test_other_end_closed(ends):
    """The other end is gone → receive returns None and sending raises OSError."""
    server, descriptors = Channel.pair()
    os.close(descriptors[0])
    assert server.receive() is None
    with pytest.raises(OSError, match="Broken pipe"):
        server.send(Kind.STOP)
    with pytest.raises(OSError, match="Broken pipe"):
        server.send_batch(0, 1, [Sent(b"")], 0.0)
    server.close()


def test_messages_before_the_end(ends):
    """The other end sent something and hung up → it is received first, then None."""
    server, worker = ends
    worker.send(Kind.LOAD_FAILED, {"cause": "x"})
    worker.hang_up()
    assert server.receive() == Control(Kind.LOAD_FAILED, {"cause": "x"})
    assert server.receive() is None


@pytest.mark.slow
@settings(parent=REUSED, max_examples=500)
@given(
    st.binary(min_size=1, max_size=100)
    | st.builds(
        lambda kind, lane, inline, count, ticket, start, heads, rest: HEADER.pack(kind, lane, inline, count, ticket, start, heads) + rest,
        st.integers(0, 12),
        st.integers(0, 3),
        st.integers(0, 1),
        st.integers(0, 4) | st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 200) | st.integers(0, 2**64 - 1),
        st.integers(0, 200) | st.integers(0, 2**64 - 1),
        st.binary(max_size=200),
    )
)
@example(HEADER.pack(Kind.REPLIES, 0, 1, 2**32 - 1, 0, 0, 0))
@example(HEADER.pack(Kind.BATCH, 9, 1, 0, 0, 0, 0))
@example(HEADER.pack(Kind.REPLIES, 0, 0, 1, 0, 2**64 - 1, 2**64 - 1))
@example(HEADER.pack(Kind.LOAD_FAILED, 0, 1, 0, 0, 0, 0) + b"{")
def test_any_message(raw_ends, message):
    """A worker sends any bytes → a message or ChannelError, nothing else."""
    server, bare = raw_ends
    bare.send(message)
    with suppress(ChannelError):
        assert server.receive() is not None


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b"[" * 100_000, b"\xff"], ids=["list", "number", "null", "deep", "no text"])
def test_control_body_is_no_object(body, raw_ends):
    """A control message's body is no JSON object → ChannelError."""
    server, bare = raw_ends
    bare.send(HEADER.pack(Kind.LOAD_FAILED, 0, 1, 0, 0, 0, 0) + body)
    with pytest.raises(ChannelError):
        server.receive()


def test_reads_what_json_says(raw_ends):
    """A control message is JSON → its body is what the JSON says."""
    server, bare = raw_ends
    bare.send(HEADER.pack(Kind.LOAD_FAILED, 0, 1, 0, 0, 0, 0) + json.dumps({"cause": "é"}).encode())
    assert server.receive().body == {"cause": "é"}
