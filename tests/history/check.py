"""Holds the history against what may be: each call's status against what was done to it and its model, and the journal against both."""

import json
from collections import Counter, defaultdict

from history.calls import NO_STATUS_SECONDS, OK
from history.faults import FULL, GONE, LOST, STUCK

SLACK_SECONDS = 2.5  # how long after a fault, a deadline or a cancellation its effect may still show, on a busy machine
CANCEL_SECONDS = 0.5  # a cancellation's way to the worker
EXPIRED_SECONDS = 0.01  # between the worker's look at the clock and the handler's
DEADLINE = {"DEADLINE_EXPIRED", "WOULD_MISS_DEADLINE", "DEADLINE_EXCEEDED"}
BY_EFFECT = {
    LOST: {"WORKER_LOST", "POISON_REQUEST", "SEQUENCE_LOST"},
    STUCK: {"RESPONSE_TIMEOUT", "WORKER_LOST", "POISON_REQUEST", "DEADLINE_EXCEEDED"},
    GONE: {"MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "DRAINING", "NO_WORKERS", "NO_WORKER", "UNAVAILABLE"},
    FULL: {"QUEUE_FULL", "NO_WORKER"},
}
RUN_AGAIN = {"deeds", "guest"}  # the models without streams and sequences
NEVER_RUN = {"DEADLINE_EXPIRED", "WOULD_MISS_DEADLINE", "QUEUE_FULL", "NO_WORKERS", "MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "DRAINING"}


def violations(calls, faults, journal):
    """Return a sentence for everything that must not have happened."""
    by_model = defaultdict(list)
    for fault in faults:
        by_model[fault.model].append(fault)
    runs = defaultdict(list)
    for line in journal:
        request_id, at, remaining = json.loads(line)
        runs[request_id].append((at, remaining))
    return [
        f"{_described(call)}: {problem}; {call.message[:200]}"
        for call in calls
        for problem in _problems(call, by_model[call.model], runs[call.id])
    ]


def _described(call):
    return f"{call.kind} {call.id} ({call.dialect}, {call.model}) {call.outcome} after {call.end - call.begin:.2f} s"


def _problems(call, faults, runs):
    yield from call.problems
    if not call.outcome or call.end - call.begin >= NO_STATUS_SECONDS:
        yield "it has no status"
    if call.outcome not in _allowed(call, faults):
        yield "nothing explains this status"
    if call.end > call.begin + call.timeout + SLACK_SECONDS:
        yield f"its deadline was after {call.timeout:.2f} s"
    if call.cancelled_at and call.end > call.cancelled_at + SLACK_SECONDS:
        yield "it went on after it was cancelled"
    lost = any(LOST in fault.effects for fault in _during(call, faults))
    if call.outcome in NEVER_RUN and runs and not lost:  # lost: it was run, and waited for its second time
        yield f"the handler ran it, {len(runs)} times"
    if call.outcome == OK and not runs:
        yield "the handler never saw it"
    for at, remaining in runs:
        if remaining < -EXPIRED_SECONDS:
            yield f"the handler got it {-remaining:.3f} s after its deadline"
        if call.cancelled_at and at > call.cancelled_at + CANCEL_SECONDS and call.outcome == "CANCELLED":
            yield f"the handler got it {at - call.cancelled_at:.2f} s after its caller had left"


def _allowed(call, faults):
    allowed = {OK} if call.kind not in ("poison", "refused") else {"INVALID_INPUT", "INVALID_ARGUMENT"} if call.kind == "refused" else set()
    if call.kind == "poison":
        allowed |= BY_EFFECT[LOST] | BY_EFFECT[STUCK]
    if call.cancelled_at:
        allowed.add("CANCELLED")
    if call.timeout < NO_STATUS_SECONDS:
        allowed |= DEADLINE
    effects = [effect for fault in _during(call, faults) for effect in fault.effects]
    if call.model in RUN_AGAIN and call.timeout == NO_STATUS_SECONDS and effects.count(LOST) == 1 and STUCK not in effects:
        effects.remove(LOST)  # it was run again, alone
    return allowed.union(*(BY_EFFECT[effect] for effect in effects))


def _during(call, faults):
    return [fault for fault in faults if fault.begin <= call.end and call.begin <= fault.end + SLACK_SECONDS]


def summary(calls, faults):
    """Return how often each kind of call ended how, as lines."""
    table = defaultdict(Counter)
    for call in calls:
        table[call.kind][call.outcome] += 1
    rows = [f"{kind:10} " + "  ".join(f"{name} {count}" for name, count in counts.most_common()) for kind, counts in sorted(table.items())]
    return [*rows, "faults     " + "  ".join(f"{what} {count}" for what, count in Counter(fault.what for fault in faults).most_common())]
