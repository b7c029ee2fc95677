"""Which device a worker gets, and how many threads."""

import pytest

from servegrpc.core.placement import CPU, Device, DeviceSlots


def test_no_gpu():
    """The machine has no GPU → the CPU, whatever the model asks for."""
    slots = DeviceSlots(gpus=0, cpus=4)
    assert slots.take() == slots.take("gpu", [1]) == CPU


def test_cpu_asked_for():
    """The model asks for the CPU → it gets it though there are GPUs."""
    assert DeviceSlots(gpus=2, cpus=4).take("cpu") == CPU


def test_fewest_workers():
    """Workers come one by one → each gets the GPU with the fewest, the lowest first."""
    slots = DeviceSlots(gpus=3, cpus=4)
    assert [slots.take().gpu for _ in range(4)] == [0, 1, 2, 0]


def test_given_back():
    """A worker left its GPU → the next one gets it."""
    slots = DeviceSlots(gpus=2, cpus=4)
    slots.take()
    device = slots.take()
    slots.give_back(device)
    assert slots.take() == device


def test_given_back_cpu():
    """A worker left the CPU → nothing changes."""
    slots = DeviceSlots(gpus=1, cpus=4)
    slots.give_back(CPU)
    assert slots.take() == Device(0)


def test_ids():
    """The model names its GPUs → only those are used."""
    slots = DeviceSlots(gpus=4, cpus=4)
    assert [slots.take("gpu", (1, 3)).gpu for _ in range(3)] == [1, 3, 1]


def test_unknown_ids():
    """Some of the GPUs named are not there → all there are may be used, as in TorchServe."""
    slots = DeviceSlots(gpus=2, cpus=4)
    assert [slots.take("gpu", (1, 7)) for _ in range(2)] == [Device(0), Device(1)]


@pytest.mark.parametrize(("workers", "threads"), [(0, 8), (1, 8), (3, 2), (8, 1), (100, 1)])
def test_threads(workers, threads):
    """Workers share 8 CPUs → each computes with its part, at least one."""
    assert DeviceSlots(gpus=0, cpus=8).threads(workers) == threads


def test_names():
    """A device is shown → as torch names it."""
    assert [str(CPU), str(Device(2))] == ["cpu", "cuda:2"]
