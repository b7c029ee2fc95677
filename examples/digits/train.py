"""Trains the network on one core in seconds, checks it on pictures it has not seen, and writes digits.pt and samples/."""

import sys
from pathlib import Path

import torch
from data import WHITE, png, split
from model import DigitNet

HERE = Path(__file__).parent
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
REQUIRED_ACCURACY = 0.98


def main():
    """Train, check, write; exit 1 when too few held-out pictures are recognised."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train_pictures, test_pictures, train_labels, test_labels = split()
    model = train(as_batch(train_pictures), torch.from_numpy(train_labels))
    with torch.inference_mode():
        probabilities = torch.softmax(model(as_batch(test_pictures)), dim=1)
    right = probabilities.argmax(dim=1) == torch.from_numpy(test_labels)
    accuracy = right.float().mean().item()
    print(f"accuracy on {len(right)} held-out pictures: {accuracy:.4f}")
    if accuracy < REQUIRED_ACCURACY:
        sys.exit(f"below {REQUIRED_ACCURACY}: nothing was written")
    torch.save(model.state_dict(), HERE / "digits.pt")
    write_samples(test_pictures, torch.from_numpy(test_labels), probabilities)


def train(pictures, labels):
    """Return a model trained on the pictures, half the time shifted by a pixel, in evaluation mode."""
    model = DigitNet()
    epochs, batch = 60, 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in torch.randperm(len(pictures)).split(batch):
            inputs = pictures[chosen]
            shift = torch.randint(-1, 2, (2,)).tolist()
            if torch.rand(()) < 0.5:
                inputs = torch.roll(inputs, shift, dims=(2, 3))
            loss = torch.nn.functional.cross_entropy(model(inputs), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def write_samples(pictures, labels, probabilities):
    """Write the surest picture of each digit, twenty times as large, to samples/."""
    folder = HERE / "samples"
    folder.mkdir(exist_ok=True)
    for digit, name in enumerate(NAMES):
        surest = probabilities[:, digit].where(labels == digit, 0).argmax().item()
        (folder / f"{name}.png").write_bytes(png(pictures[surest], scale=20))


def as_batch(pictures):
    """Return pictures [n, 8, 8] of 0..16 as the network's input."""
    return torch.from_numpy(pictures).float().div(WHITE).unsqueeze(1)


if __name__ == "__main__":
    main()
