"""Pictures to tensors with Pillow alone: what torchvision's ImageNet preprocessing does, bit for bit, without torchvision."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged or oversized input."""


class UndecodableImage(ValueError):
    """The bytes are no picture that Pillow can read."""


def decode(picture: bytes | bytearray | memoryview) -> Image.Image:
    """Return the picture with its pixels decoded, in the mode it was stored in; raise UndecodableImage."""
    try:
        image = Image.open(io.BytesIO(picture))
        image.load()
    except _BROKEN as error:
        reason = "it is no known picture format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UndecodableImage(reason) from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture in RGB: grayscale tripled, transparency dropped, 16-bit grayscale scaled to 8 bits."""
    if image.mode.startswith("I"):  # "I;16", or "I" from older Pillows; a plain conversion would clip at 255
        image = Image.fromarray((np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Return the pixels as float32 [channels, height, width], 8-bit values scaled to 0..1, others as they are."""
    pixels = np.array(image)  # a copy: Pillow's own memory is read-only
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    tensor = torch.from_numpy(pixels)
    tensor = tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    floats = tensor.to(torch.float32, memory_format=torch.contiguous_format)
    return floats.div_(255) if pixels.dtype == np.uint8 else floats


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Scale the picture so that its shorter side is `size` pixels, bilinear with antialiasing; the longer side is rounded down."""
    width, height = image.size
    scaled = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    return image if scaled == image.size else image.resize(scaled, Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut the middle `size` by `size` pixels out of a picture that is at least so large."""
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def imagenet_tensor(image: Image.Image) -> torch.Tensor:
    """Return the input of an ImageNet classifier: RGB, shorter side 256, middle 224, normalised; float32 [3, 224, 224]."""
    tensor = to_tensor(center_crop(resize_shorter_side(to_rgb(image), 256), 224))
    return tensor.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))
