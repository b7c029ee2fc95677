"""The network: two convolutions and two linear layers, 38 thousand weights."""

import torch


class DigitNet(torch.nn.Module):
    """Maps pictures [n, 1, 8, 8] with values 0..1 to logits [n, 10]."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(512, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 10),
        )

    def forward(self, pictures):
        """Return one logit per digit."""
        return self.layers(pictures)
