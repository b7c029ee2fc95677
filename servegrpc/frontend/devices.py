"""What this process may compute on, found out without importing torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pynvml

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "<microseconds or max> <period>"; what `docker run --cpus` sets


def count_gpus() -> int:
    """Return the number of GPUs the driver shows; 0 without a driver. CUDA_VISIBLE_DEVICES is the workers' concern."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def count_cpus() -> int:
    """Return how many cores this process may keep busy: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def gpu_usage(index: int) -> str:
    """Return how much a GPU is used, as TorchServe writes it; "N/A" when the driver does not say."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        use, memory = pynvml.nvmlDeviceGetUtilizationRates(handle), pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return "N/A"
    used = memory.used // 2**20
    return f"gpuId::{index} utilization.gpu::{use.gpu} % utilization.memory::{use.memory} % memory.used::{used} MiB"
