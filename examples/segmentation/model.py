"""A small fully convolutional network: for each pixel, is it ground, disc or square."""

import torch
from torch import nn


def block(inputs, outputs, stride=1, dilation=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation), nn.BatchNorm2d(outputs), nn.ReLU())


class Segmenter(nn.Module):
    """[n, 3, height, width] in 0..1 → {"out": logits [n, 3, height, width]}; height and width are multiples of 4."""

    def __init__(self):
        super().__init__()
        self.near = block(3, 8)
        self.far = nn.Sequential(
            block(8, 16, stride=2),
            block(16, 32, stride=2),
            block(32, 32, dilation=2),
            block(32, 32, dilation=2),
            nn.Upsample(scale_factor=4, mode="nearest"),
        )
        self.head = nn.Conv2d(8 + 32, 3, 3, padding=1)

    def forward(self, pictures):
        near = self.near(pictures)
        return {"out": self.head(torch.cat((near, self.far(near)), dim=1))}
