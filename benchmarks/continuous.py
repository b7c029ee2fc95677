"""Continuous batching on the example `charlm`: served, against the same step loop without a server: `python -m benchmarks.continuous`.

Prints a table and writes `benchmarks/results/continuous.json`. Served and offline runs alternate; the medians count.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import grpc

from benchmarks.machine import describe
from benchmarks.models import HERE
from benchmarks.process import ServerProcess, free_port
from benchmarks.wire import frame
from servegrpc.client import Client
from servegrpc.client.calls import predict, predict_stream
from servegrpc.core.archiver import ArchiveSpec, write_archive
from servegrpc.handlers.stepping import StepHandler, StepRequest
from servegrpc.handlers.streaming import Last

EXAMPLE = HERE.parent / "examples" / "charlm"
PROMPT = "The Rays of Light "
LIVE, TOKENS, REPEATS, JOINS = 8, 400, 5, 20
METHODS = "/servegrpc.v1.InferenceService/"


def main() -> int:
    """Measure, print, write."""
    handler = offline_handler()
    with tempfile.TemporaryDirectory() as name:
        address, server = serve(Path(name))
        try:
            results = measure(handler, address)
        finally:
            server.stop(10)
    for label, value in results.items():
        print(f"{label:<62} {value:10.3f}")
    (HERE / "results" / "continuous.json").write_text(json.dumps({"machine": describe(), "results": results}, indent=2) + "\n")
    return 0


def measure(handler: StepHandler, address: str) -> dict[str, float]:
    """Return the figures by name."""
    with grpc.insecure_channel(address) as channel:
        rounds = [(offline(handler), served(address)) for _ in range(REPEATS)]
        unary, first = median(timed(channel, unary_call) for _ in range(JOINS)), median(timed(channel, first_message) for _ in range(JOINS))
        step, joining = join_running_batch(channel)
    return {
        f"offline, {LIVE} live: tokens per second": median(before for before, _ in rounds),
        f"served, {LIVE} streams: tokens per second": median(after for _, after in rounds),
        "served / offline (at least 0.9 is the goal)": median(after / before for before, after in rounds),
        "first message / unary call of one token (at most 1.5)": first / unary,
        f"one step with {LIVE - 1} live, as a reader sees it: ms": step * 1e3,
        "first message of one that joins them: ms": joining * 1e3,
    }


def offline_handler() -> StepHandler:
    """Return the example's handler, loaded as a worker loads it."""
    sys.path.insert(0, str(EXAMPLE))
    import handler as example  # type: ignore[import-not-found]  # the archive's folder is not a package

    loaded: StepHandler = example.CharLMHandler()
    loaded.initialize(SimpleNamespace(system_properties={"model_dir": str(EXAMPLE), "gpu_id": None}, model_yaml_config={}))
    return loaded


def offline(handler: StepHandler) -> float:
    """Return the tokens per second of a plain loop over the steps."""
    began = time.perf_counter()
    live = [StepRequest(request(TOKENS), str(index)) for index in range(LIVE)]
    for each in live:
        handler.start(each)
    while live:
        values = handler.step(live)
        for each, value in zip(tuple(live), values, strict=True):
            if isinstance(value, Last):
                handler.finish(each)
                live.remove(each)
    return LIVE * TOKENS / (time.perf_counter() - began)


def served(address: str) -> float:
    """Return the tokens per second of as many streams, read by h2load, which takes next to no CPU from the server."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(frame(predict_stream("charlm", request(TOKENS), "", "", "numpy").request.SerializeToString()))
        headers = ["-Hcontent-type: application/grpc", "-Hte: trailers"]
        command = ["h2load", "-t1", "-c1", f"-m{LIVE}", f"-n{LIVE}", f"-d{body}", f"--log-file={log}", *headers]
        output = subprocess.run(
            [*command, f"http://{address}{METHODS}PredictStream"], capture_output=True, text=True, check=True, timeout=60
        )
        rows = [tuple(map(int, line.split("\t"))) for line in log.read_text().splitlines()]
    found = re.search(r"\((\d+)\) data", output.stdout)
    if not found or int(found[1]) < LIVE * TOKENS * 20:  # every message has its frame, names and timing
        raise RuntimeError(f"The streams were too short: {output.stdout}")
    return LIVE * TOKENS / (max(start + took for start, _, took in rows) - min(start for start, _, _ in rows)) * 1e6


def join_running_batch(channel: grpc.Channel) -> tuple[float, float]:
    """Return the median time between two messages while all places but one are taken, and of the first message of one that joins."""
    others = [stream(channel, 900) for _ in range(LIVE - 2)]
    for each in others:
        next(each)
    watched, gaps, joining = stream(channel, 900), [], []
    next(watched)
    for _ in range(JOINS):
        began = time.perf_counter()
        for _ in range(10):
            next(watched)
        gaps.append((time.perf_counter() - began) / 10)
        joining.append(timed(channel, first_message))
    for each in (*others, watched):
        each.cancel()
    return median(gaps), median(joining)


def timed(channel: grpc.Channel, action: Callable[[grpc.Channel], None]) -> float:
    """Return the seconds of an action."""
    began = time.perf_counter()
    action(channel)
    return time.perf_counter() - began


def unary_call(channel: grpc.Channel) -> None:
    """Ask for one token, at once."""
    message = predict("charlm", request(1), "", "", "numpy").request.SerializeToString()
    channel.unary_unary(METHODS + "Predict")(message, timeout=30)


def first_message(channel: grpc.Channel) -> None:
    """Open a stream, take one message, and leave."""
    opened = stream(channel, 100)
    next(opened)
    opened.cancel()


def stream(channel: grpc.Channel, tokens: int) -> grpc.CallIterator[bytes]:
    """Open a stream of so many tokens; its messages are bytes."""
    message = predict_stream("charlm", request(tokens), "", "", "numpy").request.SerializeToString()
    return channel.unary_stream(METHODS + "PredictStream")(message, timeout=60)


def request(tokens: int) -> dict[str, object]:
    """Return what is asked for."""
    return {"prompt": PROMPT, "max_new_tokens": tokens}


def serve(folder: Path) -> tuple[str, ServerProcess]:
    """Start a server with the example; returns its address when it is ready."""
    archive = write_archive(
        ArchiveSpec(
            "charlm", str(EXAMPLE / "handler.py"), "1.0", serialized_file=str(EXAMPLE / "charlm.pt"), model_file=str(EXAMPLE / "model.py"),
            config_file=str(EXAMPLE / "model-config.yaml"), export_path=str(folder / "store"),
        )
    )  # fmt: skip
    address, free = f"127.0.0.1:{free_port()}", "127.0.0.1:0"
    program = [str(Path(sys.executable).parent / "servegrpc"), "serve", str(archive), "--inference-address", address]
    ports = ["--management-address", free, "--metrics-address", free, "--gpus", "0"]
    server = ServerProcess([*program, *ports], folder / "log", {})
    with Client(address) as client:
        client.wait_ready("charlm", timeout=60)
    return address, server


if __name__ == "__main__":
    sys.exit(main())
