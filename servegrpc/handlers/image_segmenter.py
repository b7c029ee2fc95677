"""The default handler `image_segmenter`: a picture to the class of each of its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from PIL import Image

from servegrpc.handlers.images import imagenet_tensor
from servegrpc.handlers.timing import timed
from servegrpc.handlers.vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """Answers each picture with rows of [class, probability], one pair for each pixel of the model's output.

    Pictures are prepared as for ImageNet models: shorter side 256, middle 224 x 224, normalised.
    """

    image_processing: Callable[[Image.Image], torch.Tensor] = staticmethod(imagenet_tensor)

    @timed
    def postprocess(self, data: torch.Tensor | Mapping[str, torch.Tensor]) -> list[object]:
        """Return [height][width][class, probability] for each picture.

        `data` is the model's output, logits [pictures, classes, height, width], or a mapping with them as "out", as torchvision's models
        give it. For a model of large pictures override this and return a tensor for each: lists of numbers are slow to send.
        """
        logits = data if isinstance(data, torch.Tensor) else data["out"]
        best = torch.softmax(logits, dim=1).max(dim=1)
        pairs = torch.stack((best.indices.to(best.values.dtype), best.values), dim=3)
        return cast("list[object]", pairs.tolist())
