"""What a pool does with the requests of sequences when workers, callers and the sequences themselves come and go."""

import pytest
from fakes import Caller, ManualTimer, sent

from servegrpc.core.request import Request
from servegrpc.core.worker import WorkerRecord
from servegrpc.errors import SequenceLimit, SequenceLost, SequenceUnknown


def begun(pool, caller, worker, sequence_id="s"):
    """Run the first request of a sequence on the only worker there is."""
    caller.submit("first", sequence=pool.sequence(sequence_id, start=True))
    worker.answer()
    return pool.sequence(sequence_id, start=False)


def test_begins_beside_other_requests(serving):
    """One of a batch's requests begins a sequence → the batch goes to the free worker that has the fewest sequences."""
    pool, _, workers = serving(2, batch_size=2)
    caller = Caller(pool)
    caller.submit("a", sequence=pool.sequence("s", start=True))
    (first,) = [worker for worker in workers if worker.batches]
    first.answer()
    for name, sequence in (("x", None), ("b", pool.sequence("t", start=True))):
        pool.put(Request(b"x", 0, name, lambda reply: None, sequence=sequence))
    pool.pump()
    (other,) = [worker for worker in workers if worker is not first]
    assert sent(other) == [["x", "b"]]


def test_scaled_down_while_first_requests_run(serving):
    """Workers go while they run the first requests of sequences → those are answered, and the next ones are SEQUENCE_LOST."""
    pool, _, workers = serving(3)
    caller = Caller(pool)
    for name in "abc":
        caller.submit(name, sequence=pool.sequence(name, start=True))
    pool.scale(1)
    for worker in workers:
        worker.answer()
    assert [caller[name] for name in "abc"] == [["OK"]] * 3
    for name in "ab":
        with pytest.raises(SequenceLost, match="its worker was stopped"):
            pool.sequence(name, start=False)
    caller.submit("second", sequence=pool.sequence("c", start=False))
    assert sent(workers[0]) == [["second"]]


def test_stopping_worker_is_lost(serving):
    """A worker that was to go ends while it runs the first request of a sequence → that is answered so, and the next one too."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", sequence=pool.sequence("s", start=True))
    pool.scale(0)
    worker.exit("signal 9 (SIGKILL)")
    assert caller["a"] == ["SEQUENCE_LOST"]
    pool.scale(1)
    with pytest.raises(SequenceUnknown, match="never started"):
        pool.sequence("s", start=False)


def test_next_request_while_losses_are_told(serving):
    """A caller told that its sequence is lost sends for another one of that worker, which nobody has been told of → SEQUENCE_LOST too."""
    pool, _, (worker,) = serving(1, batch_size=4)
    caller = Caller(pool)
    one, other = [begun(pool, caller, worker, sequence_id) for sequence_id in "ab"]
    told = []

    def send_next(reply):
        for sequence in (one, other):
            with pytest.raises(SequenceLost) as error:
                pool.put(Request(b"x", 0, "next", lambda reply: None, sequence=sequence))
            told.append((reply.error.reason, error.value.metadata["sequence_id"]))

    for name, sequence in (("c", one), ("d", other)):
        pool.put(Request(b"x", 0, name, send_next, sequence=sequence))
    worker.exit("signal 9 (SIGKILL)")
    assert told == [("SEQUENCE_LOST", "a"), ("SEQUENCE_LOST", "b")] * 2


def test_lost_while_a_first_request_runs(serving):
    """A worker ends while it runs the first request of a sequence, and others wait behind → all are SEQUENCE_LOST."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    sequence = pool.sequence("s", start=True)
    caller.submit("a", "b", sequence=sequence)
    worker.exit("signal 9 (SIGKILL)")
    assert [caller[name] for name in "ab"] == [["SEQUENCE_LOST"]] * 2
    assert len(pool.sequences) == 0


def test_no_handler_got_the_first_request(serving):
    """A worker answers the first request of a sequence without its handler → what waits behind is not run either; one may start it anew."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", "b", sequence=pool.sequence("s", start=True))
    worker.refuse()
    assert (caller["a"], caller["b"]) == (["INVALID_ARGUMENT"], ["SEQUENCE_UNKNOWN"])
    assert list(caller.errors) == ["a", "b"]  # in this order
    with pytest.raises(SequenceUnknown, match="its first request was not run"):
        pool.sequence("s", start=False)
    caller.submit("c", sequence=pool.sequence("s", start=True))
    assert sent(worker) == [["c"]]


@pytest.mark.parametrize("start", [True, None], ids=["a later request", "any may be the first"])
def test_no_handler_got_a_request(serving, start):
    """A worker answers a request of a sequence without its handler, not the first one or where any may be that → the next one runs."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    sequence = begun(pool, caller, worker) if start else pool.sequence("s")
    caller.submit("a", "b", sequence=sequence)
    worker.refuse()
    assert caller["a"] == ["INVALID_ARGUMENT"]
    assert sent(worker) == [["b"]]


def test_no_worker_took_the_first_request(make):
    """Workers end before one took the first request of a sequence → that is refused at last, and the sequence can go on later."""
    timer = ManualTimer()
    pool, engine = make(timer=timer)
    pool.scale(1)
    engine.workers[0].become_ready()
    caller = Caller(pool)
    caller.submit("x", "y")
    caller.submit("a", sequence=pool.sequence("s"))
    pool.scale(0)
    while engine.live:
        engine.live[0].exit("signal 9 (SIGKILL)")
        pool._crew.restarts.at = 0.0
        pool.reconcile()
    assert caller["a"] == ["MODEL_LOAD_FAILED"]
    timer.run()  # the cool-down is over
    pool.scale(1)
    engine.workers[-1].become_ready()
    caller.submit("b", sequence=pool.sequence("s"))
    assert sent(engine.workers[-1]) == [["b"]]


def test_scaled_down(serving):
    """Two of three workers hold sequences, and two are asked for, then one → first the one without goes, though it is the oldest."""
    pool, engine, workers = serving(3)
    caller = Caller(pool)
    caller.submit("a", sequence=pool.sequence("s", start=True))
    caller.submit("b", sequence=pool.sequence("t", start=True))
    oldest, *holders = workers
    assert not oldest.batches
    for worker in holders:
        worker.answer()
    pool.scale(2)
    assert [worker.stopped for worker in workers] == [True, False, False]
    pool.scale(1)
    assert [worker.stopped for worker in workers] == [True, False, True]
    assert (len(engine.live), len(pool.sequences)) == (3, 1)


def test_end_and_start_on_one_stream(serving):
    """The end of a sequence is followed by a start with its id → what waits runs in order, then the worker is told, then the new one."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    old = pool.sequence("s", start=True)
    caller.submit("a", "b", sequence=old)
    caller.submit("c", sequence=old, ends_sequence=True)
    new = pool.sequence("s", start=True)
    caller.submit("d", "e", sequence=new)
    for name in "abc":
        assert (sent(worker), worker.ended_sequences) == ([[name]], [])
        worker.answer()
    assert worker.ended_sequences == ["s"]
    for name in "de":
        assert sent(worker) == [[name]]
        worker.answer()
    assert all(caller[name] == ["OK"] for name in "abcde")
    assert pool.sequence("s", start=False) is new


def test_start_while_the_end_runs(serving):
    """A sequence is started with the id of one whose last request runs → the new one is not ended with the old one."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    sequence = begun(pool, caller, worker)
    caller.submit("b", sequence=sequence, ends_sequence=True)
    new = pool.sequence("s", start=True)
    worker.answer()
    assert pool.sequence("s", start=False) is new
    caller.submit("c", sequence=new)
    assert sent(worker) == [["c"]]


def test_after_the_end(serving):
    """The last request of a sequence is queued → one more is refused, and the sequence is gone when the last is answered."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", sequence=pool.sequence("s", start=True), ends_sequence=True)
    with pytest.raises(SequenceUnknown, match="was closed"):
        pool.sequence("s", start=False)
    worker.answer()
    assert (worker.ended_sequences, len(pool.sequences)) == (["s"], 0)


def test_caller_of_the_end_leaves(serving):
    """The caller of a sequence's last request leaves while it waits → the sequence ends without it."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    sequence = begun(pool, caller, worker)
    caller.submit("x", "y")
    caller.submit("b", sequence=sequence, ends_sequence=True)
    assert pool.cancel(caller.requests["b"])
    assert (worker.ended_sequences, len(pool.sequences)) == (["s"], 0)


def test_ended_while_its_request_waits(serving):
    """A sequence was open for too long while its next request waits for its worker → that is refused, and never runs."""
    pool, _, (worker,) = serving(1, sequence_timeout_seconds=60.0)
    caller = Caller(pool)
    sequence = begun(pool, caller, worker)
    caller.submit("x", "y")
    caller.submit("b", "c", sequence=sequence)
    pool.sequences.expire(sequence.started + 61)
    assert (caller["b"], caller["c"]) == (["SEQUENCE_UNKNOWN"], ["SEQUENCE_UNKNOWN"])
    worker.answer()
    worker.answer()
    assert sent(worker) == []


def test_callers_that_left_do_not_count(serving):
    """Waiting requests of a sequence are cancelled → others may wait in their place."""
    pool, _, _ = serving(1, max_sequence_queue_size=2)
    caller = Caller(pool)
    sequence = pool.sequence("s", start=True)
    caller.submit("a", "b", "c", sequence=sequence)
    with pytest.raises(SequenceLimit):
        caller.submit("d", sequence=sequence)
    assert pool.cancel(caller.requests["b"])
    caller.submit("e", sequence=sequence)


def test_room_after_the_caller_left(serving):
    """A caller leaves, and then what was buffered for it is gone → its worker still hears that it has left."""
    pool, _, (worker,) = serving(1)
    caller = Caller(pool)
    caller.submit("a", message=lambda reply: None)
    pool.pause(caller.requests["a"], paused=True)
    assert not pool.cancel(caller.requests["a"])
    pool.pause(caller.requests["a"], paused=False)
    assert worker.flags == {caller.requests["a"]: (True, False)}


def test_left_between_decision_and_hand_over(serving, monkeypatch):
    """A caller leaves after its request was given to a worker, and before it is sent → the worker is told."""
    pool, _, (worker,) = serving(1)
    send = WorkerRecord.send

    def leave_first(record, requests, now):
        for one in requests:
            assert not pool.cancel(one)
        return send(record, requests, now)

    monkeypatch.setattr(WorkerRecord, "send", leave_first)
    caller = Caller(pool)
    caller.submit("a")
    assert worker.flags == {caller.requests["a"]: (True, False)}
