"""The handlers that the differential serves: each a few lines, packed by servegrpc's own archiver for both servers."""

from __future__ import annotations

import zipfile
from pathlib import Path

from servegrpc.core.archiver import ARCHIVE_SUFFIXES, ArchiveSpec, write_archive

VALUES = """
import math

import numpy as np
import torch

VALUES = {
    "dict": {"label": "cat", "score": 0.25},
    "list": [1, 2.5, "three", None, True],
    "empty list": [],
    "empty dict": {},
    "tuple": (1, 2),
    "str": "plain",
    "empty str": "",
    "non-ASCII str": "grüße 漢字 😀",
    "non-ASCII dict": {"grüße": ["漢字", "😀"]},
    "bytes": b"\\x00\\xffbytes",
    "empty bytes": b"",
    "bytearray": bytearray(b"array"),
    "long str": "x" * 100_000,
    "long bytes": bytes(range(256)) * 1000,
    "int": 7,
    "big int": 2**80,
    "float": 0.1,
    "small float": 1e-300,
    "NaN": math.nan,
    "infinity": -math.inf,
    "true": True,
    "none": None,
    "nested": {"a": [{"b": {"c": [[], {}, [None]]}}], "d": {"1": 1, "2": [1.0, 2.0]}},
    "int keys": {1: "one", None: "none", True: "true"},
    "escapes": {"quotes": '"\\\\\\n\\t</script>', "control": "\\x01"},
    "float tensor": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "int tensor": torch.tensor([1, 2, 3]),
    "scalar tensor": torch.tensor(1.5),
    "empty tensor": torch.zeros(0, 3),
    "half tensor": torch.ones(2, 2, dtype=torch.float16),
    "numpy array": np.arange(3),
    "numpy scalar": np.float32(1.5),
    "numpy float64": np.float64(1.5),
    "set": {1},
    "object": object(),
    "tensor in dict": {"t": torch.zeros(1)},
    "bytes in list": [b"x"],
}


def handle(data, context):
    return None if data is None else [VALUES[row["data"].decode()] for row in data]
"""

ECHO = """
def handle(data, context):
    return None if data is None else [row.get("data", row.get("body")) for row in data]
"""

KINDS = """
def handle(data, context):
    if data is None:
        return None
    return [
        {
            "types": sorted([name, type(value).__name__, len(value)] for name, value in row.items()),
            "content type": context.get_request_header(index, "content-type"),
            "rows": len(data),
            "version": context.manifest["model"]["modelVersion"],
            "model": context.model_name,
            "batch": context.system_properties["batch_size"],
            "config": context.model_yaml_config,
        }
        for index, row in enumerate(data)
    ]
"""

MISBEHAVE = """
import os
import signal
import threading

from ts.utils.util import PredictionException


class TooSmall(PredictionException):
    def __init__(self):
        super().__init__("the picture is too small", 422)


def fail(error):
    raise error


DEEDS = {
    "raise": lambda n: 1 / 0,
    "key error": lambda n: {}["nothing"],
    "memory": lambda n: fail(MemoryError("too much")),
    "cuda": lambda n: fail(RuntimeError("CUDA out of memory")),
    "own exception": lambda n: fail(TooSmall()),
    "no list": lambda n: {"digit": 7},
    "none": lambda n: None,
    "too many": lambda n: [1] * (n + 1),
    "too few": lambda n: [],
    "string": lambda n: "text",
    "exit": lambda n: os._exit(3),
    "kill": lambda n: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda n: threading.Event().wait(),
}


def handle(data, context):
    if data is None:
        return None
    deed = data[0]["data"].decode()
    if deed.startswith("prediction "):
        raise PredictionException("the picture is empty", int(deed.split()[1]))
    return DEEDS.get(deed, lambda n: ["fine"] * n)(len(data))
"""

STATUS = """
def handle(data, context):
    if data is None:
        return None
    context.set_response_status(code=int(data[0]["data"]), phrase="so it is", idx=0)
    return ["body"] * len(data)
"""

STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    parts = int(data[0]["data"])
    for number in range(abs(parts)):
        send_intermediate_predict_response([f"part {number}"] * len(data), context.request_ids, "Intermediate", 200, context)
    if parts < 0:
        raise ValueError("in the middle")
    return ["last"] * len(data)
"""

SEQUENCE = """
sums = {}


def handle(data, context):
    if data is None:
        return None
    results = []
    for index, row in enumerate(data):
        if row["data"] == b"fail":
            raise ValueError("not a number")
        sequence = context.get_sequence_id(index)
        sums[sequence] = sums.get(sequence, 0) + int(row["data"])
        results.append(str(sums[sequence]))
    return results
"""

DESCRIBED = """
def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") == "True":
        odd = {"html": "<a href='x=1'>&</a>", "control": "\\x01\\t\\u2028", "none": None, "numbers": [1, 1.0, 1e-7, 1e30]}
        return [{"purpose": "grüße", "rows": data, "empty": [[], {}], **odd}]
    return ["fine"] * len(data)
"""

DESCRIBED_BADLY = """
def handle(data, context):
    if data is None:
        return None
    return ["only text"] * len(data)
"""

FAIL_LOAD = """
class Handler:
    def initialize(self, context):
        raise RuntimeError("the weights are damaged")

    def handle(self, data, context):
        return data
"""

STEPS = """
def handle(data, context):
    if data is None:
        return None
    if not hasattr(context, "cache"):
        context.cache = {}
    context.stopping_criteria = []
    results = []
    for index, row in enumerate(data):
        seen = context.cache.setdefault(context.get_request_id(index), 0)
        context.cache[context.get_request_id(index)] += 1
        results.append(f"token {seen}")
        context.stopping_criteria.append(lambda _, done=seen == 3: done)
    return results
"""

LOADS_ONCE = """
import os

os.close(os.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "loaded"), os.O_CREAT | os.O_EXCL))


def handle(data, context):
    return None if data is None else ["fine"] * len(data)
"""

TENSORS = """
def handle(data, context):  # what the envelope kservev2 makes of a request: its inputs
    if data is None:
        return None
    if data[0]["name"] == "fail":
        raise ValueError("so it is")
    return [tensor["data"] for tensor in data]
"""

STEPS_CONFIG = """
minWorkers: 1
maxWorkers: 1
batchSize: 4
maxBatchDelay: 10
continuousBatching: true
"""

SEQUENCE_CONFIG = """
minWorkers: 1
maxWorkers: 1
batchSize: 1
sequenceMaxIdleMSec: 60000
maxNumSequence: 2
maxSequenceJobQueueSize: 10
sequenceBatching: true
"""

YAML_CONFIG = """
minWorkers: 2
maxWorkers: 3
batchSize: 4
maxBatchDelay: 20
responseTimeout: 33
startupTimeout: 44
jobQueueSize: 55
handler:
  answer: 42
"""


def write_archives(store: Path) -> None:
    """Write all archives into the model store."""
    models = {
        "values": VALUES, "echo": ECHO, "kinds": KINDS, "misbehave": MISBEHAVE, "status": STATUS, "stream": STREAM,
        "described": DESCRIBED, "badly": DESCRIBED_BADLY, "failing": FAIL_LOAD, "once": LOADS_ONCE, "tensors": TENSORS,
    }  # fmt: skip
    for name, code in models.items():
        _write(store, name, code)
    _write(store, "sequence", SEQUENCE, config=SEQUENCE_CONFIG)
    _write(store, "steps", STEPS, config=STEPS_CONFIG)
    _write(store, "configured", KINDS, config=YAML_CONFIG)
    with zipfile.ZipFile(store / "nameless.mar", "w") as archive:  # nothing but a handler
        archive.writestr("echo_handler.py", ECHO)
    for version in ("2.0", "10.1"):
        _write(store, "echo", ECHO, version=version)
    for archive_format in ARCHIVE_SUFFIXES:
        _write(store, f"values-{archive_format}", VALUES, archive_format=archive_format)


def _write(store: Path, name: str, code: str, *, version: str = "1.0", config: str = "", archive_format: str = "default") -> None:
    """Write one archive; another version than 1.0 is in the file's name too."""
    sources = store.parent / f"sources of {store.name}" / f"{name}-{version}"
    sources.mkdir(parents=True)
    (sources / f"{name}_handler.py").write_text(code)
    (sources / "model-config.yaml").write_text(config)
    made = write_archive(
        ArchiveSpec(
            name,
            str(sources / f"{name}_handler.py"),
            version,
            config_file=str(sources / "model-config.yaml") if config else None,
            export_path=str(sources / "made"),
            archive_format=archive_format,
        )
    )
    made.rename(store / (made.name if version == "1.0" else f"{name}-{version}.mar"))
