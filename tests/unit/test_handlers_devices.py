"""The order in which devices are chosen."""

import importlib
import sys

import pytest
import torch

from servegrpc.handlers import devices

FAKE_XLA = """
import torch

def device():
    return torch.device("meta")
"""


@pytest.fixture
def xla(tmp_path, monkeypatch):
    """A torch_xla whose device is `meta`, importable; `devices` looks for it anew."""
    (tmp_path / "torch_xla.py").write_text(FAKE_XLA)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.reload(devices)
    monkeypatch.undo()
    sys.modules.pop("torch_xla", None)
    importlib.reload(devices)


def test_without_a_gpu_it_is_the_cpu():
    """No GPU is given → the CPU."""
    assert devices.choose_device(None) == torch.device("cpu")


def test_xla_comes_before_the_cpu(xla):
    """torch_xla is installed and no GPU is given → its device."""
    assert xla.choose_device(None) == torch.device("meta")


@pytest.mark.gpu
def test_a_given_gpu_is_used():
    """GPU 0 is given → it."""
    assert devices.choose_device(0) == torch.device("cuda", 0)
