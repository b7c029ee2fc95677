"""What this process may compute on."""

import os
import subprocess
import sys

import pytest

from servegrpc.frontend.devices import count_cpus, count_gpus


def test_counts():
    """Cores and GPUs are counted → at least one core, no more than this process may use; no GPU is no error."""
    assert 1 <= count_cpus() <= len(os.sched_getaffinity(0))
    assert count_gpus() >= 0


@pytest.mark.slow
def test_affinity():
    """The process may use one core → one."""
    code = "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
    code += "from servegrpc.frontend.devices import count_cpus; print(count_cpus())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "1\n"
