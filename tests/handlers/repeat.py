"""One reply for each number of IN."""

import torch

from servegrpc.handlers.streaming import FINISHED


def handle(data, context):
    numbers = [row["IN"].tolist() for row in data]
    for step in range(max(map(len, numbers))):
        yield [{"OUT": torch.tensor([mine[step]], dtype=torch.int32)} if step < len(mine) else FINISHED for mine in numbers]
