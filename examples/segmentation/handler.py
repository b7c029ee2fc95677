"""Names the class of every pixel of a picture."""

import torch

from servegrpc.handlers.image_segmenter import ImageSegmenter
from servegrpc.handlers.images import to_rgb, to_tensor


class SegmentationHandler(ImageSegmenter):
    """Answers each picture with its classes, a tensor [64, 64], and the share of the picture that each class has."""

    def image_processing(self, image):
        """Return the picture as the network wants it: [3, 64, 64], 0..1."""
        return to_tensor(to_rgb(image).resize((64, 64)))

    def postprocess(self, data):
        """Return {"classes", "shares"} for each picture; a tensor of bytes is much quicker to send than lists."""
        classes = data["out"].argmax(dim=1).to(torch.uint8)
        return [{"classes": one, "shares": self.shares(one)} for one in classes]

    def shares(self, classes):
        """Return {name: share} of the classes that are there."""
        numbers, counts = classes.unique(return_counts=True)
        return {self.mapping[str(number)]: count / classes.numel() for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}
