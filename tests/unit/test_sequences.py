"""Which sequences are open, when they end, and what their callers are told."""

import math

import pytest

from servegrpc.core.sequences import KEPT_ENDINGS, SequenceTable
from servegrpc.errors import SequenceLimit, SequenceLost, SequenceUnknown


def table(most=10, idle=0.0, total=0.0):
    ended = []
    made = SequenceTable('Model "m" version 1.0', most, idle, total, ended.append)
    made.ended = ended
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
    busy.busy = True
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
    sequence.busy = True
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
