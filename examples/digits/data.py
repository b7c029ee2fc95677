"""The pictures: scikit-learn's handwritten digits, 8x8, split once and for all into a training and a held-out part. Needs no network."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

WHITE = 16  # the data's brightest pixel; a PNG holds 15 times as much, 0..240


def split():
    """Return training pictures, held-out pictures (float, [n, 8, 8], 0..16), training labels, held-out labels."""
    digits = load_digits()
    return train_test_split(digits.images, digits.target, test_size=0.25, stratify=digits.target, random_state=7)


def held_out() -> list[tuple[bytes, int]]:
    """Return the held-out part as (PNG file, label) pairs, in a fixed order."""
    _, pictures, _, labels = split()
    return [(png(picture), int(label)) for picture, label in zip(pictures, labels, strict=True)]


def png(picture: np.ndarray, scale: int = 1) -> bytes:
    """Return an 8x8 picture as a grayscale PNG, each pixel `scale` pixels wide; nothing is lost."""
    pixels = (picture * 15).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
