"""`ts.metrics.process_memory_metric`: how much memory processes have."""

from __future__ import annotations

import logging
from typing import TextIO

import psutil

log = logging.getLogger(__name__)


def get_cpu_usage(pid: str | int) -> int:
    """Return the resident bytes of a process, 0 when there is none."""
    try:
        return int(psutil.Process(int(pid)).memory_info().rss)
    except psutil.Error:
        log.warning("there is no process %s", pid)
        return 0


def check_process_mem_usage(stdin: TextIO) -> None:
    """Log `pid:bytes` for each of the comma separated process ids in the first line."""
    for pid in filter(None, stdin.readline().strip().split(",")):
        log.info("%s:%d", pid, get_cpu_usage(pid))
