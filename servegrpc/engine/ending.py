"""How a worker has ended, in words."""

from __future__ import annotations

import signal

from servegrpc.engine.forkserver import UNTOLD

OUT_OF_MEMORY = ": out of memory, by the kernel's count of such kills"
LOAD_FAILED, UNREADABLE, FORK_FAILED = 3, 4, 6  # exit codes of ours, as long as no handler's code can have ended the worker


def describe_end(status: int | None, *, out_of_memory: bool, loaded: bool, unreadable: bool, forked: bool) -> str:
    """Return the cause that an exit status tells: None is that of the fork server, -N that of signal N.

    What else is known says whether a code that is ours is by us: `loaded`, the handler had been loaded; `unreadable`, the worker had got a
    message and was not in its handler; `forked`, there was a process.
    """
    if status is None:
        return "the fork server ended"
    if status == UNTOLD:
        return "it ended, and the fork server does not say how"
    if status < 0:
        return f"signal {-status} ({_name(-status)})" + (OUT_OF_MEMORY if out_of_memory else "")
    known = ""
    if status == 0:
        known = ": it ended by itself"
    elif status == LOAD_FAILED and not loaded:
        known = ": its handler failed to load"
    elif unreadable:
        known = ": it got a message it could not read"
    elif status == FORK_FAILED and not forked:
        known = ": it could not be forked"
    return f"exit code {status}{known}"


def _name(number: int) -> str:
    """Return a signal's name; the real-time ones have none of their own, but for the first and the last."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN{number - signal.SIGRTMIN:+d}"
