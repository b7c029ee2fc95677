"""A ResNet-18-like network with random weights, written in plain torch."""

from __future__ import annotations

import torch
from torch import nn

STAGES = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]


def convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    """Return a convolution with its batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)).eval()


def block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """Return a basic block: two convolutions, and the shortcut beside them."""
    body = nn.Sequential(convolution(inputs, outputs, 3, stride), nn.ReLU(), convolution(outputs, outputs, 3, 1))
    return body, nn.Identity() if stride == 1 else convolution(inputs, outputs, 1, stride)


class ResnetHandler:
    """A TorchServe handler: a float32 image of shape (3, 224, 224) in, the index of the likeliest class out."""

    def initialize(self, _context: object) -> None:
        """Build the network, the same each time; one thread, since the workers are the parallelism."""
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.stem = nn.Sequential(convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = [block(*stage) for stage in STAGES]
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000, bias=False))

    @torch.inference_mode()
    def handle(self, data: list[dict], _context: object) -> list[bytes]:
        """Run one batch."""
        values = [row["data"] for row in data]
        images = [value if isinstance(value, torch.Tensor) else torch.frombuffer(value, dtype=torch.float32) for value in values]
        features = self.stem(torch.stack([image.view(3, 224, 224) for image in images]))
        for body, shortcut in self.blocks:
            features = torch.relu(body(features) + shortcut(features))
        return [str(int(index)).encode() for index in self.head(features).argmax(dim=1)]
