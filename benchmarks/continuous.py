"""Continuous batching on the example `charlm`: served, against the same step loop without a server: `python -m benchmarks.continuous`.

Runs are short and alternate, and so does which of a pair is first, since a machine's speed changes within seconds; the medians count.
Prints each figure beside its goal and writes `benchmarks/results/continuous.json`; exit code 1 when a goal is missed.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import describe
from benchmarks.models import HERE
from benchmarks.process import ServerProcess, free_port
from benchmarks.wire import frame
from servegrpc.client import Client
from servegrpc.client.calls import predict, predict_stream
from servegrpc.core.archiver import ArchiveSpec, write_archive
from servegrpc.handlers.stepping import StepHandler, StepRequest
from servegrpc.handlers.streaming import Last
from servegrpc.v1 import inference_pb2

EXAMPLE = HERE.parent / "examples" / "charlm"
PROMPT = "The Rays of Light "
LIVE, TOKENS, REPEATS, JOINS = 8, 200, 80, 20
LONGEST = 900  # tokens of a stream that others join
PAUSE_SECONDS = 0.005  # at most, before a request joins
GOALS: dict[str, tuple[str, float]] = {
    "served / offline": ("at least", 0.9),
    "first message / unary call of one token": ("at most", 1.5),
    "steps begun while one that joins waited (most)": ("at most", 1),
}
METHODS = "/servegrpc.v1.InferenceService/"


def main() -> int:
    """Measure, print, write."""
    handler = offline_handler()
    with tempfile.TemporaryDirectory() as name:
        address, metrics, server = serve(Path(name))
        try:
            results = measure(handler, address, metrics)
        finally:
            server.stop(10)
    missed = [label for label in GOALS if is_missed(label, results[label])]
    for label, value in results.items():
        goal = f"{GOALS[label][0]} {GOALS[label][1]:g}: {'MISSED' if label in missed else 'held'}" if label in GOALS else ""
        print(f"{label:<62} {value:10.3f}  {goal}")
    written = {"machine": describe(), "results": results, "missed": missed}
    (HERE / "results" / "continuous.json").write_text(json.dumps(written, indent=2) + "\n")
    return int(bool(missed))


def is_missed(label: str, value: float) -> bool:
    """Whether a figure misses its goal."""
    side, bound = GOALS[label]
    return value < bound if side == "at least" else value > bound


def measure(handler: StepHandler, address: str, metrics: str) -> dict[str, float]:
    """Return the figures by name."""
    with grpc.insecure_channel(address) as channel:
        least = bytes_of_one(channel)
        rounds = pairs(handler, address, metrics, least)
        unary, first = (median(times) for times in zip(*((unary_call(channel), first_message(channel)) for _ in range(JOINS)), strict=True))
        waited = join_running_batch(channel, address)
    return {
        f"offline, {LIVE} live: tokens per second": median(before for before, _ in rounds),
        f"served, {LIVE} streams: tokens per second": median(after for _, after in rounds),
        "served / offline": median(after / before for before, after in rounds),
        "first message / unary call of one token": first / unary,
        "steps begun while one that joins waited (median)": median(waited),
        "steps begun while one that joins waited (most)": max(waited),
    }


def pairs(handler: StepHandler, address: str, metrics: str, least_bytes: int) -> list[tuple[float, float]]:
    """Return the tokens per second offline and served, as often as they are repeated."""
    measured = []
    for index in range(REPEATS):
        if index % 2:
            after = served(address, metrics, least_bytes)
            measured.append((offline(handler), after))
        else:
            measured.append((offline(handler), served(address, metrics, least_bytes)))
    return measured


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


def bytes_of_one(channel: grpc.Channel) -> int:
    """Return how many bytes a stream has at least, with the frames of its messages; it is the same text each time.

    Only the timing differs. Raises RuntimeError when there is not a message for each token.
    """
    messages = [inference_pb2.PredictStreamResponse.FromString(raw) for raw in stream(channel, TOKENS)]
    if len(messages) != TOKENS or sum(len(message.output.text) for message in messages) != TOKENS:
        raise RuntimeError(f"A stream of {TOKENS} tokens has {len(messages)} messages.")
    for message in messages:
        message.ClearField("timing")
    return sum(len(frame(message.SerializeToString())) for message in messages)


def ends(metrics: str) -> Counter[str]:
    """Return how many requests have ended, by status."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=20) as page:
        families = text_string_to_metric_families(page.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == "servegrpc_requests_total"]
    return Counter({sample.labels["code"]: int(sample.value) for sample in samples if sample.labels["model_name"] == "charlm"})


def served(address: str, metrics: str, least_bytes: int) -> float:
    """Return the tokens per second of as many streams, read by h2load, which takes next to no CPU from the server.

    Raises RuntimeError unless all of them ended well, which they do with their last token, and came whole.
    """
    before = ends(metrics)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [*reader(Path(folder), address, "charlm", TOKENS, LIVE), f"--log-file={log}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        rows = [tuple(map(int, line.split("\t"))) for line in log.read_text().splitlines()]
    found = re.search(r"\((\d+)\) data", output.stdout)
    ended = ends(metrics) - before
    if ended != Counter(OK=LIVE) or not found or int(found[1]) < LIVE * least_bytes:
        raise RuntimeError(f"The streams did not end well, or were too short: {dict(ended)}, {output.stdout}")
    return LIVE * TOKENS / (max(start + took for start, _, took in rows) - min(start for start, _, _ in rows)) * 1e6


def reader(folder: Path, address: str, model: str, tokens: int, streams: int) -> list[str]:
    """Return the command of a process that reads so many streams."""
    body = folder / "body"
    body.write_bytes(frame(predict_stream(model, request(tokens), "", "", "numpy").request.SerializeToString()))
    headers = ["-Hcontent-type: application/grpc", "-Hte: trailers"]
    return ["h2load", "-t1", "-c1", f"-m{streams}", f"-n{streams}", f"-d{body}", *headers, f"http://{address}{METHODS}PredictStream"]


def join_running_batch(channel: grpc.Channel, address: str) -> list[int]:
    """Return for each of some requests that join, with two places free, how many steps began between its sending and its start.

    They are sent at any time within a step. Raises RuntimeError when the batch ends before.
    """
    waited: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        others = subprocess.Popen(reader(Path(folder), address, "joins", LONGEST, LIVE - 2), stdout=subprocess.DEVNULL)
        try:
            while len(waited) < JOINS:
                time.sleep(random.uniform(0, PAUSE_SECONDS))
                (answer,) = stream(channel, 1, "joins", sent=True)
                steps, live = map(int, inference_pb2.PredictStreamResponse.FromString(answer).output.text.split())
                if live == LIVE - 1:
                    waited.append(steps)
                elif waited or others.poll() is not None:
                    raise RuntimeError("The batch ended while others joined it.")
        finally:
            others.kill()
            others.wait()
    return waited


def unary_call(channel: grpc.Channel) -> float:
    """Return the seconds of a call for one token."""
    message = predict("charlm", request(1), "", "", "numpy").request.SerializeToString()
    began = time.perf_counter()
    channel.unary_unary(METHODS + "Predict")(message, timeout=30)
    return time.perf_counter() - began


def first_message(channel: grpc.Channel) -> float:
    """Return the seconds until a stream's first message; it is read to its end, so that the next call has the model to itself."""
    began = time.perf_counter()
    opened = stream(channel, 2)
    next(opened)
    took = time.perf_counter() - began
    for _ in opened:
        pass
    return took


def stream(channel: grpc.Channel, tokens: int, model: str = "charlm", *, sent: bool = False) -> grpc.CallIterator[bytes]:
    """Open a stream of so many tokens, that says when it was sent, if asked to; its messages are bytes."""
    message = predict_stream(model, request(tokens), "", "", "numpy").request.SerializeToString()
    metadata = [("sent-at", str(time.monotonic()))] if sent else []
    return channel.unary_stream(METHODS + "PredictStream")(message, timeout=60, metadata=metadata)


def request(tokens: int) -> dict[str, object]:
    """Return what is asked for."""
    return {"prompt": PROMPT, "max_new_tokens": tokens}


def serve(folder: Path) -> tuple[str, str, ServerProcess]:
    """Start a server with the example, and with one that counts steps; returns its addresses when it is ready."""
    names = {"charlm": EXAMPLE / "handler.py", "joins": HERE / "handlers" / "joins.py"}
    archives = [
        write_archive(
            ArchiveSpec(
                name, str(handler), "1.0", serialized_file=str(EXAMPLE / "charlm.pt"), model_file=str(EXAMPLE / "model.py"),
                extra_files=str(EXAMPLE / "handler.py") if name == "joins" else None, config_file=str(EXAMPLE / "model-config.yaml"),
                export_path=str(folder / "store"),
            )
        )
        for name, handler in names.items()
    ]  # fmt: skip
    address, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    program = [str(Path(sys.executable).parent / "servegrpc"), "serve", *map(str, archives), "--inference-address", address]
    ports = ["--management-address", "127.0.0.1:0", "--metrics-address", metrics, "--gpus", "0"]
    server = ServerProcess([*program, *ports], folder / "log", {})
    with Client(address) as client:
        for name in names:
            client.wait_ready(name, timeout=60)
    return address, metrics, server


if __name__ == "__main__":
    sys.exit(main())
