"""The default handler `object_detector`: a picture to the things in it, with their boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from PIL import Image

from servegrpc.handlers.images import to_rgb, to_tensor
from servegrpc.handlers.labels import map_class_to_label
from servegrpc.handlers.rows import Row
from servegrpc.handlers.timing import timed
from servegrpc.handlers.vision_handler import VisionHandler

Detections = dict[str, torch.Tensor]  # "boxes" [n, 4], "labels" [n] and "scores" [n] of one picture


def rgb_tensor(image: Image.Image) -> torch.Tensor:
    """Return the picture in RGB, unscaled: float32 [3, height, width], 0..1."""
    return to_tensor(to_rgb(image))


class ObjectDetector(VisionHandler):
    """Answers each picture with a list of {label: [x1, y1, x2, y2], "score": score}, of scores of at least `threshold`.

    The model takes pictures [n, 3, height, width] and returns boxes, labels and scores for each, as torchvision's detectors do.
    """

    threshold = 0.5
    image_processing: Callable[[Image.Image], torch.Tensor] = staticmethod(rgb_tensor)

    @timed
    def preprocess(self, data: Sequence[Row]) -> torch.Tensor | list[torch.Tensor]:  # type: ignore[override]  # sizes may differ
        """Return the pictures as one tensor on the device, or as a list of tensors where their sizes differ."""
        pictures = [self._tensor(row, index) for index, row in enumerate(data)]
        if len({picture.shape for picture in pictures}) == 1:
            return torch.stack(pictures).to(self.device)
        return [picture.to(self.device) for picture in pictures]

    @timed
    def inference(self, data: torch.Tensor | Sequence[torch.Tensor], *args: object, **kwargs: object) -> list[Detections]:  # type: ignore[override]
        """Return the detections of each picture; the model is called once for each size of pictures."""
        with torch.inference_mode():
            if isinstance(data, torch.Tensor):
                return self._detect(data.to(self.device), *args, **kwargs)
            found: dict[int, Detections] = {}
            for shape in {picture.shape for picture in data}:
                indexes = [index for index, picture in enumerate(data) if picture.shape == shape]
                batch = torch.stack([data[index] for index in indexes]).to(self.device)
                found.update(zip(indexes, self._detect(batch, *args, **kwargs), strict=True))
            return [found[index] for index in range(len(data))]

    @timed
    def postprocess(self, data: Sequence[Detections]) -> list[object]:  # type: ignore[override]  # no tensor
        """Return [{label: box, "score": score}, …] for each picture, in the model's order."""
        return [self._name(detections) for detections in data]

    def _detect(self, batch: torch.Tensor, *args: object, **kwargs: object) -> list[Detections]:
        return cast("list[Detections]", self.model(batch, *args, **kwargs))

    def _name(self, detections: Detections) -> list[dict[str, object]]:
        kept = detections["scores"] >= self.threshold
        boxes, labels, scores = (detections[key][kept].tolist() for key in ("boxes", "labels", "scores"))
        named = map_class_to_label([[box] for box in boxes], self.mapping, [[label] for label in labels])
        return [{**one, "score": score} for one, score in zip(named, scores, strict=True)]
