"""Trains the detector on drawings made on the spot, in seconds on one core; writes detection.pt, index_to_name.json and scene.png.

Usage: python make_model.py FOLDER
"""

import json
import random
import sys
from pathlib import Path

import torch
from model import STRIDE, Detector
from PIL import Image, ImageDraw
from torch.nn import functional

from servegrpc.handlers.images import to_tensor

SIZE, STEPS, BATCH = 64, 250, 8
NAMES = {1: "disc", 2: "frame"}
REQUIRED_SHARE = 0.85


def main(folder):
    """Train, check on new drawings, write; exit 1 when too few things are found."""
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = train()
    share = found_share(model, [random_shapes() for _ in range(64)])
    if share < REQUIRED_SHARE:
        sys.exit(f"only {share:.2f} of the things in new drawings are found: nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "detection.pt")
    (folder / "index_to_name.json").write_text(json.dumps(NAMES))
    draw([(1, (4, 8, 24, 28), "orange"), (2, (36, 32, 60, 56), "teal")]).save(folder / "scene.png")


def train():
    """Return a trained model, in evaluation mode."""
    model = Detector()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        scenes = [random_shapes() for _ in range(BATCH)]
        logits, boxes = model.maps(pictures_of(scenes))
        there, corners = targets(scenes)
        heat_loss = functional.binary_cross_entropy_with_logits(logits, there, pos_weight=torch.tensor(8.0))
        box_loss = ((boxes - corners).abs() * there.amax(1, keepdim=True)).sum() / there.sum()
        optimizer.zero_grad()
        (heat_loss + box_loss / 4).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def targets(scenes):
    """Return what the model's maps should be: 1 where the middle of a thing of the class is, and its box there."""
    grid = SIZE // STRIDE
    there, corners = torch.zeros(len(scenes), 2, grid, grid), torch.zeros(len(scenes), 4, grid, grid)
    for index, scene in enumerate(scenes):
        for label, box, _ in scene:
            column, row = (box[0] + box[2]) // 2 // STRIDE, (box[1] + box[3]) // 2 // STRIDE
            there[index, label - 1, row, column] = 1
            corners[index, :, row, column] = torch.tensor(box) / STRIDE - torch.tensor([column, row, column, row]) - 0.5
    return there, corners


def found_share(model, scenes):
    """Return the share of things whose class and box, within four pixels, are among what the model is at least half sure of."""
    with torch.inference_mode():
        results = model(pictures_of(scenes))
    right = total = 0
    for scene, result in zip(scenes, results, strict=True):
        found = zip(*(result[key].tolist() for key in ("labels", "boxes", "scores")), strict=True)
        sure = [(label, box) for label, box, score in found if score >= 0.5]
        for label, box, _ in scene:
            total += 1
            right += any(label == other and max(abs(a - b) for a, b in zip(box, near, strict=True)) < 4 for other, near in sure)
    return right / total


def random_shapes():
    """Return a disc or frame in the left half and one in the right: (label, box, colour)."""
    shapes = []
    for half in (0, SIZE // 2):
        size = random.randint(14, 28)
        left, top = half + random.randint(0, SIZE // 2 - size - 1), random.randint(0, SIZE - size - 1)
        shapes.append((random.choice([*NAMES]), (left, top, left + size, top + size), tuple(random.randint(80, 255) for _ in range(3))))
    return shapes


def pictures_of(scenes):
    """Return drawings as a tensor [n, 3, SIZE, SIZE], with noise."""
    pictures = torch.stack([to_tensor(draw(scene)) for scene in scenes])
    return (pictures + torch.randn_like(pictures) * 0.05).clamp(0, 1)


def draw(shapes):
    """Return a picture of the shapes on dark ground."""
    picture = Image.new("RGB", (SIZE, SIZE), (20, 20, 30))
    pen = ImageDraw.Draw(picture)
    for label, box, colour in shapes:
        if NAMES[label] == "disc":
            pen.ellipse(box, fill=colour)
        else:
            pen.rectangle(box, outline=colour, width=4)
    return picture


if __name__ == "__main__":
    main(Path(sys.argv[1]))
