"""A worker: one process that loads one handler and answers batches until it is told to stop.

Called in the child by the fork server. Exit codes: 0 told to stop, 3 the handler failed to load, 4 the channel is broken,
5 the server is gone. It opens no port and writes no file; what the handler prints goes to the server's log.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns
from typing import TypedDict, cast

import numpy as np
import torch
import yaml

from servegrpc.engine.channel import Batch, Channel, ChannelError, Control, Kind
from servegrpc.memory import keep_freed_blocks
from servegrpc.reply import Reply
from servegrpc.worker.context import Context
from servegrpc.worker.loader import borrows_inputs, describe, load_handler
from servegrpc.worker.runner import Runner

LONGEST_TRACE = 30_000  # characters of a trace that go to the log
HOLD_NANOSECONDS = 200_000  # how long the reply of one call may wait for that of the next

CLEAN, LOAD_FAILED, PROTOCOL_ERROR, SERVER_GONE = 0, 3, 4, 5


class LoadSpec(TypedDict):
    """The body of LOAD: `core.pool.HandlerSpec` and the worker's own settings."""

    worker_id: int
    model_name: str
    model_version: str
    folder: str
    python_path: list[str]
    handler: str
    manifest: dict[str, object]
    model_config: str  # YAML
    expose_errors: bool
    batch_size: int
    gpu: int | None
    threads: int


def run(descriptors: Sequence[int]) -> int:
    """Be a worker on the inherited descriptors: the channel's, then the pipe for output. Returns the exit code."""
    _take_over(descriptors[-1])
    channel = Channel.from_descriptors(descriptors[:-1])
    try:
        return _serve(channel)
    except ChannelError:
        traceback.print_exc()
        return PROTOCOL_ERROR
    except ConnectionError:
        return SERVER_GONE


def _take_over(output: int) -> None:
    """Make the forked process a worker: own output, own signals, own random numbers."""
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # they are text streams
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    random.seed()
    np.random.seed()
    keep_freed_blocks()


def _serve(channel: Channel) -> int:
    load = channel.receive()
    if not isinstance(load, Control) or load.kind is not Kind.LOAD:
        return SERVER_GONE
    spec = cast("LoadSpec", load.body)
    runner = _load(channel, spec)
    if runner is None:
        return LOAD_FAILED
    while message := channel.receive():
        if isinstance(message, Batch):
            _run(channel, runner, message, spec["batch_size"])
        elif isinstance(message, Control) and message.kind is Kind.STOP:
            return CLEAN
    return SERVER_GONE


def _run(channel: Channel, runner: Runner, batch: Batch, batch_size: int) -> None:
    """Run the handler on what was handed over, `batch_size` requests at a time, and answer as it goes.

    The replies of quick calls are sent together: each message wakes the server, which costs more than such a call.
    """
    replies: list[Reply] = []
    first, sent = True, monotonic_ns()
    for start in range(0, len(batch.items), batch_size):
        items = batch.items[start : start + batch_size]
        channel.mark_started(batch.lane, start + len(items))
        replies += runner.run(items)
        now = monotonic_ns()
        if now - sent > HOLD_NANOSECONDS or start + batch_size >= len(batch.items):
            channel.send_replies(batch.lane, replies, first=first)
            replies, first, sent = [], False, now


def _load(channel: Channel, spec: LoadSpec) -> Runner | None:
    folder = Path(spec["folder"])
    os.chdir(folder)
    sys.path[:0] = [str(folder), *spec["python_path"]]
    torch.set_num_threads(spec["threads"])
    context = Context(
        model_name=spec["model_name"],
        model_dir=str(folder),
        manifest=spec["manifest"],
        batch_size=spec["batch_size"],
        gpu_id=spec["gpu"],
        model_yaml_config=yaml.safe_load(spec["model_config"]),
    )
    try:
        entry = load_handler(folder, spec["handler"], context)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a handler's code may raise anything while it loads
        channel.send(
            Kind.LOAD_FAILED, {"cause": describe(error, folder), "trace": "".join(traceback.format_exception(error))[-LONGEST_TRACE:]}
        )
        return None
    channel.send(Kind.LOADED)
    return Runner(
        entry, context, spec["model_name"], spec["model_version"], spec["worker_id"], spec["expose_errors"], borrows_inputs(entry)
    )
