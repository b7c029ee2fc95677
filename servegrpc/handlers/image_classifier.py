"""The default handler `image_classifier`: a picture to its most likely classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image

from servegrpc.handlers.images import imagenet_tensor
from servegrpc.handlers.labels import map_class_to_label
from servegrpc.handlers.timing import timed
from servegrpc.handlers.vision_handler import VisionHandler


class ImageClassifier(VisionHandler):
    """Answers each picture with {label: probability} of the `topk` best classes, best first.

    Pictures are prepared as for ImageNet models, after conversion to RGB.
    """

    topk = 5
    image_processing: Callable[[Image.Image], torch.Tensor] = staticmethod(imagenet_tensor)

    def set_max_result_classes(self, topk: int) -> None:
        """Set how many classes a result has at most."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return how many classes a result has at most."""
        return self.topk

    @timed
    def postprocess(self, data: torch.Tensor) -> list[object]:
        """Return {label: probability} for each row of the model's output, logits [rows, classes]."""
        probabilities = torch.softmax(data, dim=1)
        best, classes = torch.topk(probabilities, min(self.topk, data.shape[1]), dim=1)
        return list(map_class_to_label(best.tolist(), self.mapping, classes.tolist()))
