"""The handler under Triton's Python backend, by pytriton; all settings come from the environment."""

from __future__ import annotations

import os

import numpy as np
import torch
from handler import load
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

SHAPE = tuple(map(int, os.environ["SHAPE"].split()))  # of a float32 tensor; empty for bytes


def make_infer():  # noqa: ANN201 - the type that pytriton wants is its own
    """Return a function for one worker: rows of bytes or tensors in, rows of bytes out."""
    run = load(os.environ["HANDLER"])

    @batch
    def infer(data: np.ndarray) -> dict[str, np.ndarray]:
        rows = torch.from_numpy(data) if SHAPE else [bytearray(row[0]) for row in data]
        return {"reply": np.array([[reply] for reply in run(rows)], dtype=np.object_)}

    return infer


def main() -> None:
    """Serve until the process is ended."""
    batch_size = int(os.environ["BATCH_SIZE"])
    grpc = {"grpc_address": "127.0.0.1", "grpc_port": int(os.environ["PORT"])}
    http = {"http_address": "127.0.0.1", "http_port": int(os.environ["HTTP_PORT"])}
    config = TritonConfig(**grpc, **http, allow_metrics=False)
    batcher = DynamicBatcher(max_queue_delay_microseconds=int(os.environ["DELAY_MS"]) * 1000)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=[make_infer() for _ in range(int(os.environ["WORKERS"]))],
            inputs=[Tensor(name="data", dtype=np.float32 if SHAPE else np.bytes_, shape=SHAPE or (1,))],
            outputs=[Tensor(name="reply", dtype=np.bytes_, shape=(1,))],
            config=ModelConfig(max_batch_size=batch_size, batching=True, batcher=batcher),
        )
        triton.serve()


if __name__ == "__main__":
    main()
