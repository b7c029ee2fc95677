"""How TorchServe's management service describes a version; with the fake engine and real archives."""

import pytest

from servegrpc.core.placement import DeviceSlots
from servegrpc.core.registration import Registration
from servegrpc.frontend.torchserve_json import describe


@pytest.mark.parametrize(
    ("gpus", "config", "expected"),
    [
        (0, "deviceType: gpu\ndeviceIds: [0]", ("cpu", None)),
        (0, "", ("cpu", None)),
        (2, "", ("gpu", None)),
        (2, "deviceType: cpu\ndeviceIds: [1]", ("cpu", None)),
        (2, "deviceType: gpu\ndeviceIds: [1]", ("gpu", [1])),
        (2, "deviceIds: [1, 0]", ("gpu", [1, 0])),
        (2, "deviceIds: [0, 7]", ("gpu", None)),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_devices(make_manager, stored, gpus, config, expected, workers):
    """The archive asks for devices → what its workers will get on this machine, before there are any; as in TorchServe."""
    version = make_manager(gpus=gpus).register(Registration(stored(config=config), workers=workers))
    described = describe(version, DeviceSlots(gpus, 4), loaded_at_startup=False)
    assert (described["deviceType"], described.get("deviceIds")) == expected
