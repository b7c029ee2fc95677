"""A worker: one process that loads one handler and answers batches until it is told to stop.

Called in the child by the fork server. Exit codes: 0 told to stop, 3 the handler failed to load, 4 the channel is broken,
5 the server is gone. It opens no port and writes no file; what the handler prints goes to the server's log.
"""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypedDict, cast

import numpy as np
import torch
import yaml

from servegrpc.engine.channel import Channel, ChannelError, Control, Kind
from servegrpc.handlers.stepping import StepHandler
from servegrpc.memory import keep_freed_blocks
from servegrpc.tensors import declaration_or_none
from servegrpc.wire.codecs import worker_codecs
from servegrpc.worker.answers import Answers
from servegrpc.worker.async_loop import AsyncLoop
from servegrpc.worker.batch_loop import SERVER_GONE, BatchLoop
from servegrpc.worker.context import Context
from servegrpc.worker.joining import joined
from servegrpc.worker.loader import Entry, borrows_inputs, describe, is_async, load_handler, yields
from servegrpc.worker.runner import STALL_SECONDS, Runner
from servegrpc.worker.step_loop import CalledSteps, StepLoop

LONGEST_TRACE = 30_000  # characters of a trace that go to the log
ASYNC_REQUESTS = 256  # that an asynchronous handler works on at once, unless the model says how many
KEPT_BYTES = 256 * 1024 * 1024  # of freed memory: the next batch needs as much as the last one

LOAD_FAILED, PROTOCOL_ERROR = 3, 4


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
    response_timeout: float  # seconds


class Loop(Protocol):
    """How a worker serves once its handler is loaded."""

    def serve(self) -> int:
        """Serve until the end; returns the exit code."""


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
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)  # as TorchServe's workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    random.seed()
    np.random.seed()


def _serve(channel: Channel) -> int:
    load = channel.receive()
    if not isinstance(load, Control) or load.kind is not Kind.LOAD:
        return SERVER_GONE
    loop = _load(channel, cast("LoadSpec", load.body))
    return LOAD_FAILED if loop is None else loop.serve()


def _load(channel: Channel, spec: LoadSpec) -> Loop | None:
    folder = Path(spec["folder"])
    os.chdir(folder)
    sys.path[:0] = found_first = [str(folder), *spec["python_path"]]
    outer = filter(None, [os.environ.get("PYTHONPATH")])  # the environment is not a setting here, but what the handler's children get
    os.environ["PYTHONPATH"] = os.pathsep.join([*found_first, *outer])
    torch.set_num_threads(spec["threads"])
    config = yaml.safe_load(spec["model_config"])
    context = Context(
        model_name=spec["model_name"],
        model_dir=str(folder),
        manifest=spec["manifest"],
        batch_size=spec["batch_size"],
        gpu=spec["gpu"],
        limit_max_image_pixels=config.get("limitMaxImagePixels", True),
        model_yaml_config=config,
    )
    try:
        entry = load_handler(folder, spec["handler"], context)
    except BaseException as error:  # noqa: BLE001 - a handler's code may raise anything while it loads
        channel.send(
            Kind.LOAD_FAILED, {"cause": describe(error, folder), "trace": "".join(traceback.format_exception(error))[-LONGEST_TRACE:]}
        )
        return None
    keep_freed_blocks(KEPT_BYTES)  # not before: loading needs memory that serving does not
    loop, slots = _loop(channel, spec, entry, context)
    joins = isinstance(loop, BatchLoop) and loop.joins
    channel.send(Kind.LOADED, {"slots": slots, "yields": isinstance(loop, StepLoop) or yields(entry), "joins": joins})
    return loop


def _loop(channel: Channel, spec: LoadSpec, entry: Entry, context: Context) -> tuple[Loop, int]:
    """Return the loop that fits the handler, and how many requests it works on at once; 0 for one batch at a time."""
    codecs = worker_codecs(context.model_yaml_config, spec["batch_size"])
    answers = Answers(codecs, spec["model_name"], spec["model_version"], spec["worker_id"], spec["expose_errors"])
    service, timeout = getattr(entry, "__self__", None), spec["response_timeout"]
    if isinstance(service, StepHandler):
        return StepLoop(channel, service, answers, context, timeout), spec["batch_size"]
    if context.model_yaml_config.get("continuousBatching") is True:
        return StepLoop(channel, CalledSteps(entry, context), answers, context, timeout), spec["batch_size"]
    if is_async(entry):
        return AsyncLoop(channel, entry, answers, context, timeout), spec["batch_size"] if spec["batch_size"] > 1 else ASYNC_REQUESTS
    isolate = context.model_yaml_config.get("isolateErrors") is True
    stall_seconds = math.inf if context.model_yaml_config.get("onSlowReader") == "pause" else STALL_SECONDS
    entry = joined(entry, declaration_or_none(context.model_yaml_config), spec["batch_size"])
    runner = Runner(entry, context, answers, borrows_inputs(entry), isolate, stall_seconds)
    return BatchLoop(channel, runner, spec["batch_size"]), 0
