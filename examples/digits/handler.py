"""Reads handwritten digits: white on black, in a grayscale picture of any size."""

import torch
from PIL import Image

from servegrpc.handlers import VisionHandler
from servegrpc.handlers.images import to_rgb


class DigitHandler(VisionHandler):
    """Answers each picture, sent as the input "data", with the digit, its name and how sure the model is."""

    def image_processing(self, image):
        """Return the picture as the network wants it: [1, 8, 8], 0..1.

        Pictures are averaged down to 8x8, which is exact for those that are a multiple of it; 240 is white, as `data.png` writes it.
        """
        gray = image if image.mode == "L" else to_rgb(image).convert("L")
        small = gray if gray.size == (8, 8) else gray.resize((8, 8), Image.Resampling.BOX)
        return torch.tensor(list(small.tobytes()), dtype=torch.float32).div_(240).clamp_(max=1).view(1, 8, 8)

    def postprocess(self, data):
        """Return {"digit", "name", "probability"} for each row of logits."""
        best = torch.softmax(data, dim=1).max(dim=1)
        return [
            {"digit": digit, "name": self.mapping[str(digit)], "probability": round(probability, 4)}
            for digit, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
