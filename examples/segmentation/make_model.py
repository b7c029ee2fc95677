"""Trains the segmenter on drawings made on the spot, in seconds on one core; writes segmentation.pt, index_to_name.json and scene.png.

Usage: python make_model.py FOLDER
"""

import json
import random
import sys
from pathlib import Path

import torch
from model import Segmenter
from PIL import Image, ImageDraw

from servegrpc.handlers.images import to_tensor

SIZE, STEPS, BATCH = 48, 100, 8
NAMES = ["ground", "disc", "square"]
REQUIRED_ACCURACY = 0.95


def main(folder):
    """Train, check on new drawings, write; exit 1 when too few pixels are right."""
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = train()
    pictures, classes = batch(32)
    with torch.inference_mode():
        accuracy = (model(pictures)["out"].argmax(dim=1) == classes).float().mean().item()
    if accuracy < REQUIRED_ACCURACY:
        sys.exit(f"only {accuracy:.3f} of the pixels of new drawings are right: nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "segmentation.pt")
    (folder / "index_to_name.json").write_text(json.dumps(dict(enumerate(NAMES))))
    draw([("disc", (3, 3, 21, 21), "orange"), ("square", (26, 26, 44, 44), "teal")])[0].save(folder / "scene.png")


def train():
    """Return a trained model, in evaluation mode."""
    model = Segmenter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        pictures, classes = batch(BATCH)
        loss = torch.nn.functional.cross_entropy(model(pictures)["out"], classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def batch(number):
    """Return random drawings [number, 3, SIZE, SIZE] and the class of each pixel."""
    drawn = [draw(random_shapes()) for _ in range(number)]
    pictures = torch.stack([to_tensor(picture) for picture, _ in drawn])
    classes = torch.stack([(to_tensor(mask) * 255).long()[0] for _, mask in drawn])
    return (pictures + torch.randn_like(pictures) * 0.05).clamp(0, 1), classes


def random_shapes():
    """Return a disc or square in the left half and one in the right."""
    shapes = []
    for half in (0, SIZE // 2):
        size = random.randint(12, 20)
        left, top = half + random.randint(0, SIZE // 2 - size - 1), random.randint(0, SIZE - size - 1)
        colour = tuple(random.randint(80, 255) for _ in range(3))
        shapes.append((random.choice(NAMES[1:]), (left, top, left + size, top + size), colour))
    return shapes


def draw(shapes):
    """Return a picture of the shapes on dark ground, and a mask with the class of each pixel."""
    picture, mask = Image.new("RGB", (SIZE, SIZE), (20, 20, 30)), Image.new("L", (SIZE, SIZE))
    for name, box, colour in shapes:
        for image, fill in ((picture, colour), (mask, NAMES.index(name))):
            pen = ImageDraw.Draw(image)
            (pen.ellipse if name == "disc" else pen.rectangle)(box, fill=fill)
    return picture, mask


if __name__ == "__main__":
    main(Path(sys.argv[1]))
