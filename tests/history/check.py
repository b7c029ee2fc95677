"""Holds the history against what may be: each call's status against what was done to it and its model, and the journal against both."""

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict

from history.calls import NO_STATUS_SECONDS, OK
from history.faults import FORK_SERVER, FULL, GONE, LOST, STUCK

CANCEL_SECONDS = 0.5  # a cancellation's way to the worker
CALLER_SECONDS = 1.0  # how late a caller on a busy machine sees its own deadline or cancellation
ARRIVAL_SECONDS = 0.5  # a call's way to the server, which counts its deadline from there
CLOCK_SECONDS = 0.05  # how early a deadline of gRPC's may end
SERVICE_SECONDS = 0.5  # more than any answer takes that a deadline is set for
EXPIRED_SECONDS = 0.05  # between the worker's look at the clock and the handler's
NEXT_CALL_SECONDS = 1.0  # between the loss of a sequence's worker and the sequence's next call, which is told
BATCH = 4  # calls in one batch at most
RUNS = 2  # of a call at most: a lost worker's is run once more
DEADLINE = {"DEADLINE_EXPIRED", "WOULD_MISS_DEADLINE", "DEADLINE_EXCEEDED"}
BY_EFFECT = {
    GONE: {"MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "DRAINING", "NO_WORKERS", "NO_WORKER", "UNAVAILABLE"},
    FULL: {"QUEUE_FULL", "NO_WORKER"},
}
RUN_AGAIN = {"deeds", "guest"}  # the models without streams and sequences
SEQUENCES = {"totals"}
LIVE = {"tokens", "awaits"}  # whose workers take requests at any time: of those lost with one nobody knows which had begun
NEVER_RUN = {"DEADLINE_EXPIRED", "WOULD_MISS_DEADLINE", "QUEUE_FULL", "NO_WORKERS", "MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "DRAINING"}


def violations(calls, faults, journal):
    """Return a sentence for everything that must not have happened."""
    by_model = defaultdict(list)
    for fault in faults:
        by_model[fault.model].append(fault)
    runs, batches = defaultdict(list), defaultdict(list)
    for line in journal:
        request_id, at, remaining = json.loads(line)
        runs[request_id].append((at, remaining))
        batches[at].append(request_id)
    kinds = {call.id: call.kind for call in calls}
    repeated = {at for at, ids in batches.items() if _is_refused([kinds.get(one) for one in ids])}
    near = {model: Near(of_model) for model, of_model in by_model.items()}
    problems = [
        (call, problem)
        for call in calls
        for problem in _problems(call, near[call.model].to(call, runs[call.id]) if call.model in near else [], runs[call.id], repeated)
    ]
    problems += _unnoted(calls, by_model, runs)
    return [f"{_described(call)}: {problem}; {call.message[:200]}" for call, problem in problems]


class Near:
    """Finds the few faults of a model that a call may have met, among those of half an hour."""

    def __init__(self, faults):
        self._lasting = [fault for fault in faults if fault.end == math.inf]
        self._faults = sorted((fault for fault in faults if fault.end < math.inf), key=lambda fault: fault.begin)
        self._begins = [fault.begin for fault in self._faults]
        self._longest = max((fault.end - fault.begin for fault in self._faults), default=0.0)

    def to(self, call, runs):
        """Return the faults that were there while a call was, or while its handler ran it, or within `NEXT_CALL_SECONDS` before."""
        first = bisect_left(self._begins, call.begin - NEXT_CALL_SECONDS - self._longest)
        last = bisect_right(self._begins, max([call.end, *(at for at, _ in runs)]))
        return self._lasting + self._faults[first:last]


def _is_refused(kinds):
    """Whether a handler refuses one of a batch before it comes to one that it does not survive: then the worker runs the others again."""
    return next((kind for kind in kinds if kind in ("refused", "poison")), "") == "refused"


def _unnoted(calls, by_model, runs):
    """Find calls that a stuck worker began and did not note: those of the batch that it was just about to run, and no more."""
    counts = Counter()
    for call in calls:
        if call.outcome == "RESPONSE_TIMEOUT" and not runs[call.id] and call.model not in LIVE:
            stuck = [
                fault for fault in by_model[call.model] if STUCK in fault.effects and fault.begin <= call.end and call.begin <= fault.end
            ]
            fault = next((fault for fault in stuck if counts[id(fault)] < BATCH), None)
            if fault is None and stuck:
                yield call, "the handler ran it 0 times, and more than a batch of such calls have this status"
            counts[id(fault)] += 1


def _described(call):
    return f"{call.kind} {call.id} ({call.dialect}, {call.model}) {call.outcome} after {call.end - call.begin:.2f} s"


def _problems(call, faults, runs, repeated):
    times = [at for at, _ in runs if at not in repeated]
    yield from call.problems
    yield from _late(call)
    if not call.outcome or call.end - call.begin >= NO_STATUS_SECONDS:
        yield "it has no status"
    if call.outcome not in _allowed(call, faults, times or [at for at, _ in runs]):
        yield f"nothing explains this status; the handler ran it {len(runs)} times"
    if call.outcome in NEVER_RUN and not _all_lost(call, faults, times):  # else it waited for its second time
        yield f"the handler ran it, {len(runs)} times"
    if call.outcome == OK and not runs:
        yield "the handler never saw it"
    if call.kind != "session" and (len(times) > (1 if call.model in SEQUENCES else RUNS) or not _all_lost(call, faults, times[:-1])):
        yield f"the handler ran it {len(times)} times"
    for at, remaining in runs:
        if remaining < -EXPIRED_SECONDS or at > call.begin + call.timeout + ARRIVAL_SECONDS:
            yield f"the handler got it {max(-remaining, at - call.begin - call.timeout):.3f} s after its deadline"
        if call.cancelled_at and at > call.cancelled_at + CANCEL_SECONDS and call.outcome == "CANCELLED":
            yield f"the handler got it {at - call.cancelled_at:.2f} s after its caller had left"


def _late(call):
    """Say when a call ended too late, or too early for its deadline to be why."""
    left = call.begin + call.timeout - call.end
    if left < -CALLER_SECONDS:
        yield f"its deadline was after {call.timeout:.2f} s"
    if call.cancelled_at and call.end > call.cancelled_at + CALLER_SECONDS:
        yield "it went on after it was cancelled"
    if call.outcome in DEADLINE and left > (SERVICE_SECONDS if call.outcome == "WOULD_MISS_DEADLINE" else CLOCK_SECONDS):
        yield f"{left:.2f} s were left"


def _allowed(call, faults, times):
    allowed = {OK}
    if call.kind in ("poison", "refused"):
        allowed = {"INVALID_INPUT", "INVALID_ARGUMENT"} if call.kind == "refused" else set()
    if call.cancelled_at:
        allowed.add("CANCELLED")
    if call.timeout < NO_STATUS_SECONDS:
        allowed |= DEADLINE
    for fault in faults:
        if fault.begin <= call.end and call.begin <= fault.end:
            allowed = allowed.union(*(BY_EFFECT.get(effect, ()) for effect in fault.effects))
    return allowed | (_of_a_sequence(call, faults) if call.model in SEQUENCES else _of_lost_workers(call, faults, times))


def _of_a_sequence(call, faults):
    """Return what a call of a sequence may be told of its worker, which may have ended since the call before it."""
    lost = any(LOST in fault.effects and fault.begin <= call.end and call.begin <= fault.end + NEXT_CALL_SECONDS for fault in faults)
    return {"SEQUENCE_LOST"} if lost else set()


def _of_lost_workers(call, faults, times):
    """Return what a call may be told of the workers that ran it at these times: each must have ended, and after it began."""
    told = set()
    noted, times = bool(times), times or [call.begin]
    if any(STUCK in fault.effects and fault.begin <= call.end and times[-1] <= fault.end for fault in faults):
        told.add("RESPONSE_TIMEOUT")
    if (noted or call.model in LIVE) and _all_lost(call, faults, times):
        blameless = any(fault.what == FORK_SERVER and fault.begin <= call.end and call.begin <= fault.end for fault in faults)
        if blameless or call.model not in RUN_AGAIN or call.timeout < NO_STATUS_SECONDS or call.cancelled_at:
            told.add("WORKER_LOST")
        if len(times) == RUNS and _all_lost(call, [fault for fault in faults if fault.what != FORK_SERVER], times):
            told.add("POISON_REQUEST")
    return told | {"WORKER_LOST"} if told and call.dialect == "torchserve" else told  # it has one text for all


def _all_lost(call, faults, times):
    """Whether a worker ended for each of a call's runs, each another one, before the next of them or the call's end."""
    losses = sorted((fault for fault in faults if LOST in fault.effects), key=lambda fault: fault.end)
    if call.kind == "poison":
        losses *= RUNS  # it does that each time it is run
    for at, following in zip(times, [*times[1:], call.end], strict=False):
        loss = next((fault for fault in losses if at <= fault.end and fault.begin <= following), None)
        if loss is None:
            return False
        losses.remove(loss)
    return True


def summary(calls, faults):
    """Return how often each kind of call ended how, as lines."""
    table = defaultdict(Counter)
    for call in calls:
        table[call.kind][call.outcome] += 1
    rows = [f"{kind:10} " + "  ".join(f"{name} {count}" for name, count in counts.most_common()) for kind, counts in sorted(table.items())]
    return [*rows, "faults     " + "  ".join(f"{what} {count}" for what, count in Counter(fault.what for fault in faults).most_common())]
