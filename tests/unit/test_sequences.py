"""Which sequences are open, when they end, and what their callers are told."""

import math

import pytest
from fakes import ManualTimer

from servegrpc.core.request import Request
from servegrpc.core.sequences import KEPT_ENDINGS, NAMED_IDLE_SECONDS, SequenceTable
from servegrpc.errors import SequenceLimit, SequenceLost, SequenceUnknown


def request():
    return Request(b"", 0, "1", lambda reply: None)


def table(most=10, idle=0.0, total=0.0):
    ended = []
    timer = ManualTimer()
    made = SequenceTable('Model "m" version 1.0', most, idle, total, ended.append, timer)
    made.ended, made.timer = ended, timer
    return made


def test_get():
    """A sequence is started → it is found until it is ended."""
    sequences = table()
    started = sequences.start("a")
    assert sequences.get("a") is started
    sequences.end("a")
    assert sequences.ended == [started]
    with pytest.raises(SequenceUnknown, match="was closed"):
        sequences.get("a")


def test_never_started():
    """A sequence was never started → the error says so."""
    with pytest.raises(SequenceUnknown, match='sequence "a" was never started'):
        table().get("a")


def test_limit():
    """As many are open as may → one more is refused, and may come when another has ended."""
    sequences = table(most=2)
    sequences.start("a")
    sequences.start("b")
    with pytest.raises(SequenceLimit, match="maxNumSequence"):
        sequences.start("c")
    sequences.end("a")
    assert sequences.start("c").id == "c"


def test_start_again():
    """An open sequence is started → the old one ends, whatever the limit."""
    sequences = table(most=1)
    first = sequences.start("a")
    second = sequences.start("a")
    assert sequences.ended == [first]
    assert sequences.get("a") is second


def test_idle():
    """A sequence is not used for the idle time → it is ended, and the error says why; one that is busy is not."""
    sequences = table(idle=10.0)
    idle, busy = sequences.start("idle"), sequences.start("busy")
    busy.head = request()
    assert sequences.expire(idle.used + 9) <= idle.used + 10
    assert sequences.ended == []
    sequences.expire(idle.used + 11)
    assert sequences.ended == [idle]
    with pytest.raises(SequenceUnknown, match="idle for 10 s"):
        sequences.get("idle")
    assert len(sequences) == 1


def test_open_for_too_long():
    """A sequence is open for longer than any may → it is ended, busy or not."""
    sequences = table(total=10.0)
    sequence = sequences.start("a")
    sequence.head = request()
    assert sequences.expire(sequence.started + 9) == sequence.started + 10
    assert sequences.expire(sequence.started + 11) == math.inf
    with pytest.raises(SequenceUnknown, match="open for 10 s"):
        sequences.get("a")


def test_lost():
    """A sequence has lost its worker → its caller is told once, and may start it anew."""
    sequences = table()
    sequences.start("a")
    sequences.end("a", "lost: signal 9 (SIGKILL)")
    assert sequences.has("a")
    with pytest.raises(SequenceLost, match="SIGKILL"):
        sequences.get("a")
    assert not sequences.has("a")
    assert sequences.start("a").id == "a"


def test_endings_are_forgotten():
    """Very many sequences end → only the last endings are remembered."""
    sequences = table()
    for number in range(KEPT_ENDINGS + 1):
        sequences.start(str(number))
        sequences.end(str(number))
    with pytest.raises(SequenceUnknown, match="never started"):
        sequences.get("0")
    with pytest.raises(SequenceUnknown, match="was closed"):
        sequences.get("1")


def test_told_once():
    """A sequence was idle for too long → its caller is told once; then it is as if it had never been."""
    sequences = table(idle=10.0)
    sequences.expire(sequences.start("a").used + 11)
    assert sequences.has("a")
    with pytest.raises(SequenceUnknown, match="idle for 10 s"):
        sequences.get("a")
    assert not sequences.has("a")


def test_named_end_without_a_limit():
    """The model sets no idle time → sequences named by their callers end all the same, those of streams do not."""
    sequences = table()
    named = sequences.start("named", named=True)
    sequences.start("of a stream")
    assert [when for when, _ in sequences.timer.calls] == [named.started + NAMED_IDLE_SECONDS]
    assert sequences.expire(named.used + NAMED_IDLE_SECONDS - 1) <= named.used + NAMED_IDLE_SECONDS
    assert sequences.ended == []
    assert sequences.expire(named.used + NAMED_IDLE_SECONDS + 1) == math.inf
    assert sequences.ended == [named]


def test_model_sets_the_limit_of_named_ones():
    """The model sets an idle time → it holds for sequences named by their callers."""
    sequences = table(idle=3600.0)
    named = sequences.start("named", named=True)
    sequences.expire(named.used + NAMED_IDLE_SECONDS + 1)
    assert sequences.get("named") is named


def test_close_of_an_old_one():
    """A sequence was started anew and the old one is closed → the new one goes on."""
    sequences = table()
    old, new = sequences.start("a"), sequences.start("a")
    sequences.close(old)
    assert sequences.ended == [old]
    assert sequences.get("a") is new


def test_retired():
    """The last request of a sequence is queued → its id is free, whatever the limit, for one that it blocks until it is closed."""
    sequences = table(most=1)
    old = sequences.start("a")
    sequences.retire(old)
    with pytest.raises(SequenceUnknown, match="was closed"):
        sequences.get("a")
    new = sequences.start("a")
    assert (old.next, new.blocked, sequences.ended, len(sequences)) == (new, True, [], 2)
    sequences.close(old)
    assert (sequences.ended, len(sequences)) == ([old], 1)
    assert sequences.get("a") is new


def test_timer_ends_them(monkeypatch):
    """Nobody asks for a sequence that is late → the timer ends it, and looks again for the others."""
    sequences = table(idle=10.0)
    late, other = sequences.start("late"), sequences.start("other")
    other.used += 5
    monkeypatch.setattr("servegrpc.core.sequences.monotonic", lambda: late.used + 11)
    sequences.timer.run()
    assert sequences.ended == [late]
    assert [when for when, _ in sequences.timer.calls] == [other.used + 10]
