"""A small detector: for each place of a coarse grid, how likely the middle of a disc or frame is there, and its box."""

import torch
from torch import nn

STRIDE, MOST = 8, 4  # pixels between the grid's places; things found in a picture


def block(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Detector(nn.Module):
    """Pictures [n, 3, height, width] in 0..1 → {"boxes", "labels", "scores"} for each, best first; labels are 1 and 2."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 32, 2), block(32, 32))
        self.head = nn.Conv2d(32, 2 + 4, 3, padding=1)

    def maps(self, pictures):
        """Return the grid's logits [n, 2, rows, columns] and boxes [n, 4, rows, columns]: x1, y1, x2, y2 from the place, in strides."""
        out = self.head(self.body(pictures))
        return out[:, :2], out[:, 2:]

    def forward(self, pictures):
        logits, boxes = self.maps(pictures)
        heat = logits.sigmoid()
        peaks = heat * (heat == nn.functional.max_pool2d(heat.amax(1, keepdim=True), 3, 1, 1))  # one for each thing
        scores, found = peaks.flatten(1).topk(MOST)
        columns, size = logits.shape[3], logits.shape[2] * logits.shape[3]
        place = found % size
        middle = torch.stack((place % columns, place // columns), dim=2).repeat(1, 1, 2) + 0.5
        around = boxes.flatten(2).gather(2, place.unsqueeze(1).expand(-1, 4, -1)).transpose(1, 2)
        corners = (middle + around) * STRIDE
        labels = found // size + 1
        return [{"boxes": corners[n], "labels": labels[n], "scores": scores[n]} for n in range(len(pictures))]
