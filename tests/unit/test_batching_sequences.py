"""How the requests of sequences wait."""

import pytest
from queues import assign, begun, put, request, with_workers

from servegrpc.core.request import Request
from servegrpc.core.sequences import LiveSequence


def test_sticks_to_its_worker():
    """A sequence began on a worker → its next requests go there, whoever else is idle."""
    queue = with_workers("v", "w")
    sequence = LiveSequence("s")
    worker = begun(queue, sequence)
    for name in "abc":
        put(queue, request(name, sequence))
        assert assign(queue) == [(worker, [name])]
        queue.advance(sequence)
        queue.release(worker)


@pytest.mark.parametrize("slots", [0, 4])
def test_begins_where_there_are_fewest(slots):
    """Sequences begin one after the other, and some end → each begins on the free worker that has the fewest."""
    queue = with_workers("u", "v", "w", slots=slots)
    sequences = [LiveSequence(name) for name in "abcdef"]
    workers = [begun(queue, sequence) for sequence in sequences]
    assert sorted(workers) == ["u", "u", "v", "v", "w", "w"]
    queue.close(sequences[0])
    assert begun(queue, LiveSequence("g")) == workers[0]


def test_waits_for_its_worker():
    """The worker of a sequence is busy and another is idle → the request waits."""
    queue = with_workers("v", "w", batch_size=1)
    sequence = LiveSequence("s")
    worker = begun(queue, sequence)
    put(queue, request("x"), request("y"))
    assign(queue)
    put(queue, request("a", sequence))
    other = "v" if worker == "w" else "w"
    queue.release(other)
    assert assign(queue, prefetch=False) == []
    queue.release(worker)
    assert assign(queue, prefetch=False) == [(worker, ["a"])]


def test_one_at_a_time_in_order():
    """Several requests of a sequence wait → one is handed over at a time, in order."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    put(queue, *(request(name, sequence) for name in "abc"))
    for name in "abc":
        assert assign(queue) == [("w", [name])]
        queue.advance(sequence)
        queue.release("w")
    assert len(queue) == 0


def test_batch_of_different_sequences():
    """Requests of several sequences and of none wait → a batch holds one of each, filled up with the others."""
    queue = with_workers("w", batch_size=4)
    first, second = LiveSequence("1"), LiveSequence("2")
    put(queue, request("a", first), request("b", second), request("c"))
    assert assign(queue) == [("w", ["a", "b", "c"])]
    queue.advance(first)
    queue.advance(second)
    queue.release("w")
    put(queue, request("d"), request("e", first), request("f", second), request("g", first))
    assert assign(queue) == [("w", ["e", "f", "d"])]


def test_delay_counts_for_sequences():
    """A model waits to fill its batches → so does a request of a sequence, no longer than the delay."""
    queue = with_workers("w", batch_size=2, delay=1.0)
    sequence = LiveSequence("s")
    put(queue, request("first", sequence))
    assert assign(queue, 1.0) == [("w", ["first"])]
    queue.advance(sequence)
    queue.release("w")
    put(queue, request("a", sequence))
    assert queue.assign(0.5).next_at == 1.0
    assert assign(queue, 1.0) == [("w", ["a"])]


def test_cancelled_head():
    """The waiting request of a sequence is cancelled → the one behind it takes its place."""
    queue = with_workers()
    sequence = LiveSequence("s")
    first, _ = put(queue, request("a", sequence), request("b", sequence))
    assert queue.cancel(first)
    queue.add_worker("w")
    assert assign(queue) == [("w", ["b"])]


def test_cancelled_behind():
    """A request behind another of its sequence is cancelled → it is skipped, and counts no more."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    _, second, _ = put(queue, *(request(name, sequence) for name in "abc"))
    assign(queue)
    assert queue.cancel(second)
    assert len(queue) == 1
    queue.advance(sequence)
    queue.release("w")
    assert assign(queue) == [("w", ["c"])]


def test_expired_head():
    """The deadline of a sequence's request passes → it is dropped, and the next one is handed over."""
    queue = with_workers()
    sequence = LiveSequence("s")
    put(queue, request("a", sequence, deadline=1.0), request("b", sequence))
    queue.add_worker("w")
    assignment = queue.assign(2.0)
    assert [one.request_id for one in assignment.dropped] == ["a"]
    assert [[one.request_id for one in batch] for _, batch in assignment.batches] + [names for _, names in assign(queue, 2.0)] == [["b"]]


def test_worker_is_forgotten():
    """The worker of a begun sequence is gone → what waits of it is given back, and nothing more can be queued for it."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    begun(queue, sequence)
    waiting = put(queue, request("a", sequence), request("b", sequence))
    queue.forget_worker("w")
    assert queue.take_lost() == [(sequence, list(waiting))]
    assert len(queue) == 0
    with pytest.raises(LookupError):
        queue.put(request("c", sequence))


def test_worker_is_forgotten_before_it_began():
    """The worker of a sequence is gone before it answered anything → the sequence begins on another."""
    queue = with_workers("v")
    sequence = LiveSequence("s")
    (first,) = put(queue, request("a", sequence))
    assign(queue)
    queue.forget_worker("v")
    queue.put_back([first])
    queue.add_worker("w")
    assert queue.take_lost() == []
    assert assign(queue) == [("w", ["a"])]


def test_worker_is_forgotten_after_a_request_it_did_not_run():
    """A worker did not run the first request of a sequence, any of which may be that, and is gone then → the next one begins on another."""
    queue = with_workers("v")
    sequence = LiveSequence("s")
    put(queue, request("a", sequence), request("b", sequence))
    assign(queue)
    queue.advance(sequence, ran=False)
    queue.release("v")
    queue.forget_worker("v")
    queue.add_worker("w")
    assert queue.take_lost() == []
    assert assign(queue) == [("w", ["b"])]


def test_close():
    """A sequence is closed while one of its requests runs → those behind are given back."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    _, second = put(queue, request("a", sequence), request("b", sequence))
    assign(queue)
    assert queue.close(sequence) == [second]
    assert len(queue) == 0


def test_clear():
    """Everything is given up → also what waits in sequences, wherever it waits."""
    queue = with_workers("w")
    running, waiting = LiveSequence("1"), LiveSequence("2")
    put(queue, request("a", running))
    assign(queue)
    put(queue, request("b", running), request("c", waiting), request("d", waiting), request("e"))
    assert sorted(one.request_id for one in queue.clear()) == ["b", "c", "d", "e"]
    assert len(queue) == 0


def test_has_pinned():
    """Only one worker can run what waits → it is known, until that is taken."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    begun(queue, sequence)
    assert not queue.has_pinned("w")
    put(queue, request("a", sequence))
    assert queue.has_pinned("w")
    assign(queue)
    assert not queue.has_pinned("w")


def test_removed_while_it_runs_a_first_request():
    """A worker has to go while it runs the first request of a sequence → the sequence is lost, and begins on no other."""
    queue = with_workers("v", "w")
    sequence = LiveSequence("s")
    put(queue, request("a", sequence))
    ((worker, _),) = assign(queue)
    (waiting,) = put(queue, request("b", sequence))
    queue.remove_worker(worker)
    assert queue.take_lost() == [(sequence, [waiting])]
    with pytest.raises(LookupError):
        queue.put(request("c", sequence))


def test_lost_while_it_runs_a_first_request():
    """A worker ended that ran the first request of a sequence → the sequence is lost, once, also when its worker was to go."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    put(queue, request("a", sequence))
    assign(queue)
    queue.lose(sequence)
    queue.forget_worker("w")
    queue.lose(sequence)
    assert queue.take_lost() == [(sequence, [])]
    assert not sequence.busy


def test_clear_leaves_nothing_busy():
    """Everything is given up → a sequence may be used again, also one that waits for another to end."""
    queue = with_workers()
    sequence, following = LiveSequence("s"), LiveSequence("s", blocked=True)
    sequence.next = following
    put(queue, request("a", sequence), request("b", sequence), request("c", following))
    assert len(queue.clear()) == 3
    assert not sequence.busy
    assert not following.busy
    queue.add_worker("w")
    put(queue, request("d", sequence))
    assert assign(queue) == [("w", ["d"])]


def test_close_takes_what_is_queued():
    """A sequence ends while a request of it waits for its worker, or for any → that request is given back, and never runs."""
    queue = with_workers("w", batch_size=1)
    pinned, new = LiveSequence("1"), LiveSequence("2")
    begun(queue, pinned)
    first, second = put(queue, request("a", pinned), request("b", new))
    assert queue.close(pinned) == [first]
    assert queue.close(new) == [second]
    assert (assign(queue), len(queue)) == ([], 0)


def test_cancelled_behind_is_forgotten():
    """Requests behind another of their sequence are cancelled → nothing of them is left."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    requests = put(queue, *(request(name, sequence) for name in "abc"))
    assert queue.cancel(requests[1])
    assert sequence.waiting == [requests[2]]


def test_blocked():
    """A sequence waits for another of its id to end → its requests are handed over after that, in order."""
    queue = with_workers("w")
    sequence = LiveSequence("s", blocked=True)
    put(queue, request("a", sequence), request("b", sequence))
    assert assign(queue) == []
    queue.unblock(sequence)
    assert assign(queue) == [("w", ["a"])]


def test_caller_left_before_it_was_put_back():
    """Requests that a worker had not begun are put back → not those whose caller has left; their sequence goes on without them."""
    queue = with_workers("w")
    sequence = LiveSequence("s")
    first, second, _ = put(queue, request("a", sequence), request("x"), request("b", sequence))
    assign(queue)
    assert not queue.cancel(first)
    queue.forget_worker("w")
    assert queue.put_back([first, second]) == [first]
    queue.add_worker("v")
    assert sorted(assign(queue)[0][1]) == ["b", "x"]


# --- neither kind holds up the other


class Busy:
    """Sequences that send their next request as soon as one is answered, and requests without one, through one worker."""

    def __init__(self, *, batch_size=1, slots=0, sequences=3):
        self.queue = with_workers("w", batch_size=batch_size, slots=slots)
        self.slots = slots
        self.now = 0.0
        self.running = []
        self.done = []
        for number in range(sequences):
            self.put(str(number), LiveSequence(str(number)))

    def put(self, name, sequence=None):
        self.queue.put(Request(b"", 0, name, lambda reply: None, arrived=self.now, sequence=sequence))

    def step(self, *, send_plain=False):
        """Answer the oldest hand-over, after which what was answered is sent again."""
        self.now += 1
        self.running += [
            one for _, batch in self.queue.assign(self.now).batches for one in ([[r] for r in batch] if self.slots else [batch])
        ]
        answered = self.running.pop(0)
        self.done += [one.request_id for one in answered]
        for one in answered:
            if one.sequence:
                self.queue.advance(one.sequence)
                self.put(one.request_id, one.sequence)
            elif send_plain:
                self.put("plain")
        self.queue.release("w")


@pytest.mark.parametrize("how", [{"batch_size": 1}, {"batch_size": 2}, {"slots": 2}])
def test_plain_request_beside_busy_sequences(how):
    """Sequences keep a worker busy → a request without one waits for those that came before it, no longer."""
    busy = Busy(**how, sequences=4)
    for _ in range(20):
        busy.step()
    busy.put("plain")
    for _ in range(8):
        busy.step()
    assert "plain" in busy.done


@pytest.mark.parametrize("how", [{"batch_size": 1}, {"batch_size": 2}, {"slots": 2}])
def test_sequences_beside_plain_requests(how):
    """Requests without a sequence keep a worker busy, which always has its next batch → a sequence's request has its turn."""
    busy = Busy(**how, sequences=1)
    busy.step()
    for _ in range(8):
        busy.put("plain")
    for _ in range(60):
        busy.step(send_plain=True)
    assert busy.done.count("0") > 3


# --- live workers
