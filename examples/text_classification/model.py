"""What a text is about: the mean of its words' and word pairs' vectors, then one layer."""

import torch
from torch import nn

WORDS, CLASSES = 512, 3


class Topics(nn.Module):
    """Token numbers of all texts, one after the other, and the offset of each text → logits [texts, CLASSES]."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(WORDS, 16)
        self.layer = nn.Linear(16, CLASSES)

    def forward(self, numbers: torch.Tensor, offsets: torch.Tensor):
        return self.layer(self.embedding(numbers, offsets))
