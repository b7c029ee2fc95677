"""Workers as child processes on this machine, one per slot, forked from the fork server.

start ─► fork server forks ─► LOAD ─► LOADED → ready      (reader thread)
send  ─► BATCH ─► REPLIES → answered                      (reader thread)
         what a full socket does not take is tried again soon; no call blocks
end of the process (fork server) + end of the channel → exited, once
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import cast

import structlog
import yaml

from servegrpc.core.engine import LoadedHandler, UnknownRequestError, WorkerEvents, WorkerExit, WorkerSpec
from servegrpc.core.pace import MAX_CALLS
from servegrpc.core.request import Request
from servegrpc.core.timer import Timer
from servegrpc.engine.channel import LANES, LEFT, PAUSED, Channel, ChannelError, Control, Kind, Replies
from servegrpc.engine.ending import UNREADABLE, describe_end
from servegrpc.engine.forkserver import Fork, ForkServer
from servegrpc.engine.oom import OomKills
from servegrpc.engine.output import OutputPump

log = structlog.get_logger()

KEPT_OUTPUT_LINES = 20
ENDED_AT_ONCE = 500  # ids of sequences in one message
KILL_AFTER_TERM_SECONDS = 5.0
ROOM_SECONDS = 0.01  # until a socket that was full is tried again


class ProcessEngine:
    """Starts workers as processes. The fork server is started at once, so that it is warm when the first model comes."""

    def __init__(self, timer: Timer, oom_kills: OomKills | None = None) -> None:
        self._timer = timer
        self._output = OutputPump()
        self._oom_kills = oom_kills or OomKills()
        self._fork_server = ForkServer(self._output, timer)
        self._workers: set[ProcessWorker] = set()
        self._closed = False
        self._lock = threading.Lock()

    def start(self, spec: WorkerSpec, events: WorkerEvents) -> ProcessWorker:
        """Start a worker; returns at once. Raises RuntimeError when the engine is closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if not self._fork_server.alive:
                log.warning("fork server has ended; starting another")
                self._fork_server = ForkServer(self._output, self._timer)
            worker = ProcessWorker(spec, events, self._timer, self._oom_kills, self._forget)
            worker.start(self._fork_server, self._output)
            self._workers.add(worker)
        return worker

    def close(self) -> None:
        """End all workers that are left, and wait for them."""
        with self._lock:
            self._closed = True
        self._fork_server.close()
        for worker in list(self._workers):
            worker.join()
        self._output.close()

    def _forget(self, worker: ProcessWorker) -> None:
        self._workers.discard(worker)


@dataclass(slots=True)
class SentBatch:
    """A hand-over that is not wholly answered."""

    lane: int
    size: int
    unanswered: int
    given_up: bool = False  # it was not handed over whole, and must not be tried again
    paused: set[int] = field(default_factory=set)


class ProcessWorker:
    """One child process. `send` is called under the pool's lock for this worker, so never twice at a time."""

    def __init__(
        self, spec: WorkerSpec, events: WorkerEvents, timer: Timer, oom_kills: OomKills, on_gone: Callable[[ProcessWorker], None]
    ) -> None:
        self.pid = 0
        self.started = math.inf
        self._spec = spec
        self._events = events
        self._timer = timer
        self._oom_kills = oom_kills
        self._on_gone = on_gone
        self._channel, self._inherited = Channel.pair(spec.batch_size * MAX_CALLS)
        self._live = self._loaded = False
        self._free_lanes = deque(range(LANES))
        self._sent: dict[int, SentBatch] = {}  # by ticket
        self._ended_sequences: list[str] = []  # that it has not been told of
        self._unsent: deque[tuple[int, Sequence[Request]]] = deque()  # until a lane is free and the socket has room
        self._untold: dict[tuple[int, int], int] = {}  # flags by ticket and index, that it must be told
        self._stopping = False  # it must be told to end, after all that
        self._retrying = False  # all that will be tried again
        self._pidfd: int | None = None
        self._lock = threading.Lock()  # guards _pidfd against signals to a process that is gone
        self._sending = threading.Lock()  # guards the channel against use after it is closed
        self._closed = False
        self._known = threading.Event()  # its pid is, or it has ended
        self._ended = threading.Event()
        self._status: int | None = None
        self._cause = ""
        self._load_error = ""
        self._output_lines: deque[str] = deque(maxlen=KEPT_OUTPUT_LINES)
        handler = spec.handler
        self._log = log.bind(model=handler.model_name, version=handler.model_version, worker=spec.worker_id)
        self._thread = threading.Thread(target=self._read, name=f"worker-{spec.worker_id}", daemon=True)

    def start(self, fork_server: ForkServer, output: OutputPump) -> None:
        """Send what to load, and ask for the fork. Raises when there is no descriptor left, or the configuration is too long."""
        spec = {**dataclasses.asdict(self._spec.handler), "worker_id": self._spec.worker_id, "batch_size": self._spec.batch_size}
        spec["model_config"] = yaml.safe_dump(self._spec.handler.model_config, sort_keys=False)  # JSON has no keys but text, and no dates
        own = {"gpu": self._spec.device.gpu, "threads": self._spec.threads, "response_timeout": self._spec.response_timeout_seconds}
        try:
            self._channel.send(Kind.LOAD, {**spec, **own})  # it lies in the socket until the worker is there
            read_end, write_end = os.pipe()
        except Exception:
            self._channel.close()
            os.close(self._inherited[0])
            raise
        output.add(read_end, self._take_output)
        descriptors = [*self._inherited, write_end]
        if not fork_server.fork(self._spec.worker_id, descriptors, Fork(self._forked, self._process_ended)):
            self._process_ended(None)
        for descriptor in (self._inherited[0], write_end):
            os.close(descriptor)
        self._thread.start()

    def send(self, ticket: int, batch: Sequence[Request]) -> bool:
        """Hand over a batch; returns False when the worker has ended."""
        with self._sending:
            if self._closed:
                return False
            if self._unsent or not self._send(ticket, batch):
                self._unsent.append((ticket, batch))
            return True

    def _tell(self, kind: Kind, body: dict[str, object] | None = None) -> bool:
        """Send a control message; returns False when there is no room for it now. Needs the lock."""
        try:
            self._channel.send(kind, body, wait=False)
        except BlockingIOError:
            self._wait_for_room()
            return False
        except OSError:
            pass  # it has just ended
        return True

    def _wait_for_room(self) -> None:
        """Try again soon: the worker may make room without a word. Needs the lock."""
        if not self._retrying:
            self._retrying = True
            self._timer.call_at(monotonic() + ROOM_SECONDS, self._retry)

    def _retry(self) -> None:
        with self._sending:
            self._retrying = False
            self._send_waiting()

    def _send(self, ticket: int, batch: Sequence[Request]) -> bool:
        """Hand over a batch; returns False when there is no room for it now. Needs the lock."""
        self._tell_ended()
        if self._ended_sequences or not self._free_lanes:
            return False
        lane = self._free_lanes.popleft()
        sent = self._sent[ticket] = SentBatch(lane, len(batch), len(batch))
        try:
            in_slab = self._channel.send_batch(lane, ticket, batch, monotonic())
            if self._live and not in_slab:
                self._free_lanes.appendleft(lane)
        except BlockingIOError:
            del self._sent[ticket]
            self._free_lanes.appendleft(lane)
            self._wait_for_room()
            return False
        except ConnectionError:
            pass  # it has just ended; its exit says what becomes of the batch
        except Exception as error:  # noqa: BLE001 - out of memory for the slab, say: the batch must not go around for ever
            self._log.exception("batch cannot be handed over")
            sent.given_up = True
            self.kill(f"a batch could not be handed over: {error}")
        return True

    def _send_waiting(self) -> None:
        """Hand over, and tell, what had to wait, as far as there is room now; needs the lock."""
        if self._closed:
            return
        while self._unsent and self._send(*self._unsent[0]):
            self._unsent.popleft()
        unsent = {ticket for ticket, _ in self._unsent} if self._untold else ()
        for (ticket, index), flags in [*self._untold.items()]:
            if ticket not in unsent and self._tell_flags(ticket, index, flags):
                del self._untold[ticket, index]
        if self._live or not self._sent:  # a busy one would not look for long
            self._tell_ended()
        if self._stopping and not self._unsent:
            self._stopping = not self._tell(Kind.STOP)

    def set_flags(self, ticket: int, index: int, *, left: bool = False, paused: bool = False) -> None:
        """Tell the worker about the caller of a request; a live one by a message, another by the board, since it is busy."""
        with self._sending:
            self._untold[ticket, index] = left * LEFT | paused * PAUSED
            self._send_waiting()

    def _tell_flags(self, ticket: int, index: int, flags: int) -> bool:
        """Tell the flags of a request, unless its hand-over is answered; returns False when there is no room for it now."""
        sent = self._sent.get(ticket)
        if sent is None:
            return True
        if not self._live:
            self._channel.set_flags(sent.lane, index, flags)
        waits = self._live or index in sent.paused
        if waits and not self._tell(Kind.FLAG, {"ticket": ticket, "index": index, "flags": flags}):
            return False
        (sent.paused.add if flags & PAUSED else sent.paused.discard)(index)
        return True

    def end_sequence(self, sequence_id: str) -> None:
        """Tell the worker that no more requests of a sequence will come, when it is not busy: it may be long before it looks."""
        with self._sending:
            self._ended_sequences.append(sequence_id)
            self._send_waiting()

    def _tell_ended(self) -> None:
        """Send the ids of sequences that have ended; needs the lock."""
        ended = self._ended_sequences
        while ended and self._tell(Kind.SEQUENCE_ENDED, {"sequence_ids": ended[:ENDED_AT_ONCE]}):
            del ended[:ENDED_AT_ONCE]

    def stop(self, grace_seconds: float) -> None:
        """Let it end after what it was sent; TERM and then KILL it when that takes longer."""
        with self._sending:
            self._stopping = True
            self._send_waiting()
        now = monotonic()
        self._timer.call_at(now + grace_seconds, lambda: self._signal(signal.SIGTERM))
        self._timer.call_at(now + grace_seconds + KILL_AFTER_TERM_SECONDS, lambda: self._signal(signal.SIGKILL))

    def kill(self, cause: str) -> None:
        """End it now."""
        self._cause = self._cause or cause
        self._signal(signal.SIGKILL)

    def join(self) -> None:
        """Wait until its exit has been reported."""
        self._thread.join()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._pidfd is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)

    def _forked(self, pid: int, pidfd: int) -> None:
        with self._lock:
            self.pid, self._pidfd, self.started = pid, pidfd, monotonic()
        self._known.set()
        if self._cause:  # killed before it was there
            self._signal(signal.SIGKILL)

    def _process_ended(self, status: int | None) -> None:
        with self._lock:
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
        self._status = status
        self._ended.set()
        self._known.set()
        with self._sending, suppress(OSError):
            if not self._closed:
                self._channel.hang_up()  # a grandchild may still hold the other end

    def _read(self) -> None:
        try:
            while message := self._channel.receive():
                if isinstance(message, Replies):
                    self._take_replies(message)
                elif isinstance(message, Control):
                    self._take_control(message)
        except ChannelError as error:
            self.kill(f"broke the protocol: {error}")
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave its callers waiting for ever
            self._log.exception("server error")
            self.kill(f"the server failed while it read from the worker: {error}")
        if not self._ended.wait(KILL_AFTER_TERM_SECONDS):
            self.kill("closed its channel without ending")
            self._ended.wait()
        blameless = self._status is None and not self._cause
        with self._sending:
            self._closed = True  # what is sent from now on goes elsewhere
            cause = self._describe_end()
            started = {ticket: self._started(sent) for ticket, sent in self._sent.items()}
            self._channel.close()
        exit_ = WorkerExit(cause, self._load_error, list(self._output_lines), started, blameless)
        self._on_gone(self)
        self._events.exited(self._spec.worker_id, exit_)

    def _started(self, sent: SentBatch) -> int:
        whole = self._live or sent.given_up or self._unreadable  # it may be why: it must not go around for ever
        return sent.size if whole else self._channel.started(sent.lane)

    def _take_replies(self, message: Replies) -> None:
        replies = [reply for reply in message.replies if not reply.more or reply.ticket in self._sent]  # a thread may send too late
        for reply in replies:
            if not reply.more:
                sent = self._sent.get(reply.ticket)
                if sent is None:
                    raise ChannelError("it answered more requests than it had")
                sent.unanswered -= 1
                if not sent.unanswered:
                    del self._sent[reply.ticket]
                    if not self._live:
                        self._free_lanes.append(sent.lane)
        if self._unsent or self._untold or self._ended_sequences or self._stopping:
            with self._sending:
                self._send_waiting()
        try:
            self._events.answered(self._spec.worker_id, replies)
        except UnknownRequestError as error:
            raise ChannelError(str(error)) from error

    def _take_control(self, message: Control) -> None:
        if message.kind is Kind.LOADED:
            slots = message.body.get("slots")
            if not isinstance(slots, int) or slots < 0:
                raise ChannelError("it has no number of slots")
            self._known.wait()  # the fork server's word may come later than the worker's own
            self._live, self._loaded = slots > 0, True
            yields, joins = (message.body.get(key) is True for key in ("yields", "joins"))
            self._events.ready(self._spec.worker_id, LoadedHandler(slots, yields, joins))
        elif message.kind is Kind.TAKEN and self._live and message.body.get("lane") in range(LANES):
            with self._sending:
                if message.body["lane"] in self._free_lanes:
                    raise ChannelError("it took a batch that it was not sent")
                self._free_lanes.append(cast("int", message.body["lane"]))
                self._send_waiting()
        elif message.kind is Kind.METRICS:
            records = message.body.get("records")
            self._events.measured(self._spec.worker_id, records if isinstance(records, list) else [])
        elif message.kind is Kind.LOAD_FAILED:
            self._load_error = str(message.body.get("cause"))
            self._log.error("handler failed to load", cause=self._load_error, trace=message.body.get("trace"))
        else:
            raise ChannelError(f"it sent {message.kind.name}")

    def _take_output(self, line: str) -> None:
        self._output_lines.append(line)
        self._log.info("handler output", line=line)

    @property
    def _unreadable(self) -> bool:
        """Whether it has ended since it could not read a message, which one that is in its handler does not do."""
        in_handler = not self._live and any(self._channel.started(sent.lane) for sent in self._sent.values())
        return self._status == UNREADABLE and not in_handler

    def _describe_end(self) -> str:
        out_of_memory = self._oom_kills.take(self._status == -signal.SIGKILL and not self._cause)
        return self._cause or describe_end(
            self._status, out_of_memory=out_of_memory, loaded=self._loaded, unreadable=self._unreadable, forked=self.pid != 0
        )
