"""Pictures to tensors, against what torchvision made of the same files."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from servegrpc.handlers import images

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vision"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.png"))


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_tensor_equals_torchvision(expected, name):
    """Each kind of picture → torchvision's tensor, to 1e-6."""
    tensor = images.imagenet_tensor(images.decode((FIXTURES / f"{name}.png").read_bytes()))
    wide = tensor.double()
    moments = torch.stack([wide.sum(), (wide**2).sum(), wide[:, 0].sum(), wide[:, :, -1].sum()])
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor[:, 3::17, 5::19], expected[f"{name}_slice"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(moments, expected[f"{name}_moments"], rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_to_tensor_equals_torchvision(expected, name):
    """Each kind of picture, unconverted → torchvision's shape and sum."""
    tensor = images.to_tensor(images.decode((FIXTURES / f"{name}.png").read_bytes()))
    np.testing.assert_allclose([*tensor.shape, tensor.double().sum()], expected[f"{name}_raw_moments"], rtol=1e-6)


def test_16_bit_grayscale_is_scaled():
    """A 16-bit picture → the 8-bit one of the same brightness."""
    wide = Image.fromarray(np.full((4, 4), 0x80FF, np.uint16))
    assert images.to_rgb(wide).getpixel((0, 0)) == (0x80, 0x80, 0x80)


def test_unknown_format_is_undecodable():
    """Bytes of no picture → UndecodableImage that says so."""
    with pytest.raises(images.UndecodableImage, match="no known picture format"):
        images.decode(b"not a picture")


def test_truncated_picture_is_undecodable():
    """Half a file → UndecodableImage, not a picture half gray."""
    whole = (FIXTURES / "odd.png").read_bytes()
    with pytest.raises(images.UndecodableImage):
        images.decode(whole[: len(whole) // 2])


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning"
)  # Pillow's remarks on damage it can pass over
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM"]), edits=st.data())
def test_damaged_pictures_decode_or_are_undecodable(kind, edits):
    """Any bytes of any format changed → a picture or UndecodableImage, never another error."""
    buffer = io.BytesIO()
    Image.open(FIXTURES / "odd.png").resize((32, 32)).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for _ in range(edits.draw(st.integers(1, 8))):
        damaged[edits.draw(st.integers(0, len(damaged) - 1))] = edits.draw(st.integers(0, 255))
    with contextlib.suppress(images.UndecodableImage):
        images.decode(damaged)
