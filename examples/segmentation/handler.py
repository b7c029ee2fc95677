"""Names the class of every pixel of a picture."""

import torch

from servegrpc.handlers.image_segmenter import ImageSegmenter
from servegrpc.handlers.images import to_rgb, to_tensor


class SegmentationHandler(ImageSegmenter):
    """Answers each picture with its classes, a tensor [48, 48], and the share of the picture that each class has."""

    def image_processing(self, image):
        """Return the picture as the network wants it: [3, 48, 48], 0..1."""
        return to_tensor(to_rgb(image).resize((48, 48)))

    def postprocess(self, data):
        """Return {"classes": tensor, name: share of the picture, …} for each picture; a tensor is much quicker to send than lists."""
        classes = data["out"].argmax(dim=1).to(torch.uint8)
        return [{"classes": one, **self.shares(one)} for one in classes]

    def shares(self, classes):
        """Return {name: share} of all classes."""
        return {name: (classes == int(number)).float().mean().item() for number, name in self.mapping.items()}
