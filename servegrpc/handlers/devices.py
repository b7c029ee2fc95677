"""Which device a worker computes on, in TorchServe's order."""

from __future__ import annotations

import importlib
import importlib.util

import torch

XLA_AVAILABLE = importlib.util.find_spec("torch_xla") is not None


def choose_device(gpu_id: int | None) -> torch.device:
    """Return the worker's GPU (NVIDIA or AMD, Intel, Apple), else the XLA device where torch_xla is installed, else the CPU.

    On an Ampere GPU or later, float32 matrix products use TF32, as in TorchServe.
    """
    if gpu_id is not None and torch.cuda.is_available():
        if torch.cuda.get_device_capability(gpu_id) >= (8, 0):
            torch.set_float32_matmul_precision("high")
        return torch.device("cuda", gpu_id)
    if gpu_id is not None and torch.xpu.is_available():
        return torch.device("xpu", gpu_id)
    if gpu_id is not None and torch.backends.mps.is_available():
        return torch.device("mps")
    if XLA_AVAILABLE:
        device: torch.device = importlib.import_module("torch_xla").device()
        return device
    return torch.device("cpu")
