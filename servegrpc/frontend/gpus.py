"""How many CUDA devices there are, without importing torch."""

from __future__ import annotations

import pynvml


def count_gpus() -> int:
    """Return the number of GPUs the driver shows; 0 without a driver. CUDA_VISIBLE_DEVICES is the workers' concern."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
