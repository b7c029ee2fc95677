"""The check itself, on forged histories: what must not have happened is told, what may happen is not."""

import json

import pytest

from history.calls import Call
from history.check import violations
from history.faults import FORK_SERVER, FULL, GONE, LOST, STUCK, Fault

BEGIN, END = 100.0, 100.5
FOR_EVER = 1e9
KILL = Fault("SIGKILL", (LOST,), "deeds", 100.1, 100.2)
ANOTHER_KILL = Fault("SIGKILL", (LOST,), "deeds", 100.3, 100.4)
KILL_BEFORE = Fault("SIGKILL", (LOST,), "deeds", 99.8, 99.9)
FREEZE = Fault("SIGSTOP for long", (STUCK,), "deeds", 98.0, 101.0)
FORK_SERVER_KILL = Fault(FORK_SERVER, (LOST,), "deeds", 100.3, 100.4)


def told(outcome, faults=(), runs=(), *, others=(), **about):
    """Return what is said of one call that ended so, and was run at these times."""
    about = {"kind": "small", "dialect": "native", "model": "deeds", **about}
    call = Call(id="x", begin=BEGIN, end=about.pop("end", END), outcome=outcome, **about)
    journal = [json.dumps(["x", at, FOR_EVER]) for at in runs] + [json.dumps(line) for line in others]
    others = [Call(line[0], "native", "deeds", line[0], BEGIN, end=END, outcome="INVALID_INPUT") for line in others]
    return [line for line in violations([call, *others], faults, journal) if line.startswith(f"{call.kind} x ")]


@pytest.mark.parametrize(
    ("outcome", "faults", "runs", "about"),
    [
        ("OK", [], [], {}),
        ("OK", [], [100.1, 100.2], {}),
        ("OK", [KILL_BEFORE], [100.1, 100.2], {}),
        ("OK", [KILL, ANOTHER_KILL], [100.05, 100.15, 100.25, 100.35, 100.45], {}),
        ("OK", [KILL, ANOTHER_KILL], [100.15, 100.25, 100.45], {}),
        ("WORKER_LOST", [KILL], [], {}),
        ("WORKER_LOST", [KILL], [100.15], {}),
        ("WORKER_LOST", [KILL_BEFORE], [100.1], {"model": "parts"}),
        ("WORKER_LOST", [KILL, ANOTHER_KILL], [100.1, 100.3], {}),
        ("WORKER_LOST", [Fault("SIGKILL", (LOST,), "totals", 100.1, 100.2)], [100.15], {"model": "totals", "kind": "session"}),
        ("POISON_REQUEST", [KILL, ANOTHER_KILL], [100.1], {}),
        ("POISON_REQUEST", [KILL], [100.15, 100.2], {}),
        ("POISON_REQUEST", [KILL, FORK_SERVER_KILL], [100.1, 100.3], {}),
        ("RESPONSE_TIMEOUT", [KILL], [100.1], {}),
        ("RESPONSE_TIMEOUT", [Fault("SIGSTOP for long", (STUCK,), "deeds", 98.0, 99.0)], [], {}),
        ("SEQUENCE_LOST", [Fault("SIGKILL", (LOST,), "totals", 95.0, 96.0)], [], {"model": "totals"}),
        ("QUEUE_FULL", [Fault("burst", (FULL,), "deeds", 98.0, 99.9)], [], {}),
        ("QUEUE_FULL", [Fault("burst", (FULL,), "deeds", 98.0, 101.0)], [100.1], {}),
        ("MODEL_NOT_FOUND", [Fault("replace", (GONE,), "guest", 98.0, 99.9)], [], {"model": "guest"}),
        ("WOULD_MISS_DEADLINE", [], [], {"timeout": 10.0}),
        ("DEADLINE_EXPIRED", [], [], {"timeout": 0.8}),
        ("DEADLINE_EXCEEDED", [], [], {}),
        ("DEADLINE_EXCEEDED", [], [], {"timeout": 0.1, "end": 102.0}),
        ("DEADLINE_EXCEEDED", [], [102.0], {"timeout": 0.5}),
        ("CANCELLED", [], [], {}),
        ("CANCELLED", [], [101.0], {"cancelled_at": 100.4}),
        ("OK", [], [100.1], {"problems": ["a torn reply"]}),
        ("OK", [], [100.1], {"kind": "poison"}),
        ("UNKNOWN", [KILL, FREEZE], [100.1], {}),
        ("", [], [100.1], {}),
    ],
)
def test_lies(outcome, faults, runs, about):
    """A status that nothing explains, or a run that must not have been → told."""
    assert told(outcome, faults, runs, **about)


@pytest.mark.parametrize(
    ("outcome", "faults", "runs", "about"),
    [
        ("OK", [], [100.1], {}),
        ("OK", [KILL], [100.15, 100.3], {}),
        ("OK", [KILL], [100.15], {}),
        ("WORKER_LOST", [KILL], [100.1], {"model": "parts"}),
        ("WORKER_LOST", [KILL, FORK_SERVER_KILL], [100.1, 100.3], {}),
        ("WORKER_LOST", [KILL, ANOTHER_KILL], [100.1, 100.3], {"dialect": "torchserve"}),
        ("POISON_REQUEST", [KILL, ANOTHER_KILL], [100.1, 100.3], {}),
        ("POISON_REQUEST", [Fault("exit", (LOST,), "deeds", 99.9, 100.6)], [100.1, 100.3], {"kind": "poison"}),
        ("RESPONSE_TIMEOUT", [FREEZE], [100.1], {}),
        ("RESPONSE_TIMEOUT", [FREEZE], [], {}),
        ("SEQUENCE_LOST", [Fault("SIGKILL", (LOST,), "totals", 98.0, 99.9)], [], {"model": "totals"}),
        ("QUEUE_FULL", [Fault("burst", (FULL,), "deeds", 98.0, 101.0)], [], {}),
        ("MODEL_NOT_FOUND", [Fault("replace", (GONE,), "guest", 98.0, 101.0)], [], {"model": "guest"}),
        ("WOULD_MISS_DEADLINE", [], [], {"timeout": 0.6}),
        ("DEADLINE_EXPIRED", [], [], {"timeout": 0.5}),
        ("DEADLINE_EXPIRED", [KILL], [100.1], {"timeout": 0.5}),
        ("CANCELLED", [], [100.1], {"cancelled_at": 100.4}),
        ("INVALID_INPUT", [], [100.1], {"kind": "refused"}),
    ],
)
def test_truths(outcome, faults, runs, about):
    """A status that what was done to the call and its model explains → nothing is told."""
    faults = [Fault(fault.what, fault.effects, about.get("model", "deeds"), fault.begin, fault.end) for fault in faults]
    assert told(outcome, faults, runs, **about) == []


def test_batches_with_a_refused_request():
    """A call was run three times, twice in a batch of which the handler refused another → the worker ran it again, which is right."""
    assert told("OK", [], [100.1, 100.2, 100.3], others=[["refused", 100.1, FOR_EVER], ["refused", 100.2, FOR_EVER]]) == []
    assert told("OK", [], [100.1, 100.2, 100.3], others=[["refused", 100.1, FOR_EVER]])


def test_batch_that_ends_its_worker():
    """A request that ends its worker stands before one that would be refused → the batch is one of its two runs; else it is not."""
    exits = [Fault("exit", (LOST,), "deeds", 99.9, 100.6)]

    def told_of(*journal):
        calls = [
            Call("poison", "native", "deeds", "x", BEGIN, end=END, outcome="POISON_REQUEST"),
            Call("refused", "native", "deeds", "y", BEGIN, end=END, outcome="INVALID_INPUT"),
        ]
        return violations(calls, exits, [json.dumps([name, at, FOR_EVER]) for name, at in journal])

    assert told_of(("y", 100.1), ("x", 100.1), ("x", 100.2), ("y", 100.2), ("x", 100.3)) == []
    assert told_of(("y", 100.1), ("x", 100.1), ("y", 100.2), ("x", 100.2), ("x", 100.3))


def test_batch_that_was_not_noted():
    """A worker is stopped before its handler has noted a batch → as many calls as a batch has may be told so, and no more."""

    def told_of(count):
        calls = [Call("small", "native", "deeds", str(n), BEGIN, end=END, outcome="RESPONSE_TIMEOUT") for n in range(count)]
        return violations(calls, [FREEZE], [])

    assert told_of(4) == []
    assert len(told_of(5)) == 1
