"""Trains the network on `opticks.txt`, a few minutes on two cores, and writes charlm.pt; `--url` reads another text instead."""

import argparse
import sys
import time
import urllib.request
from pathlib import Path

import torch
from model import CHARACTERS, CharLM, CharTokenizer

HERE = Path(__file__).parent
ROWS, LENGTH = 16, 128
REQUIRED_LOSS = 1.75  # of held-out text, in nats per character; guessing by frequency is 2.9


def main():
    """Train, check, write; exit 1 when text it has not seen surprises it too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--url", help="a plain text to learn from, such as a book of the public domain")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    text = read(arguments.url)
    split = len(text) * 19 // 20
    began, model = time.monotonic(), train(text[:split], arguments.steps)
    loss = held_out_loss(model, text[split:])
    print(f"{time.monotonic() - began:.0f} s; loss on held-out text: {loss:.3f} nats per character")
    if loss > REQUIRED_LOSS:
        sys.exit(f"above {REQUIRED_LOSS}: nothing was written")
    torch.save({name: weights.half() for name, weights in model.state_dict().items()}, HERE / "charlm.pt")


def read(url):
    """Return the text as tokens, without the characters that the network does not know."""
    if url:
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
    else:
        text = (HERE / "opticks.txt").read_text()
    return torch.tensor(CharTokenizer().encode("".join(character for character in text if character in CHARACTERS)))


def train(text, steps):
    """Return a model trained on pieces of the text, in evaluation mode."""
    model = CharLM()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        starts = torch.randint(len(text) - LENGTH, (ROWS,))
        pieces = torch.stack([text[start : start + LENGTH + 1] for start in starts])
        loss = next_character_loss(model, pieces)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def held_out_loss(model, text):
    """Return the mean loss on text that was not trained on."""
    pieces = text[: len(text) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    with torch.inference_mode():
        return next_character_loss(model, pieces).item()


def next_character_loss(model, pieces):
    """Return the mean loss of each character given those before it."""
    logits = model(pieces[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())


if __name__ == "__main__":
    main()
