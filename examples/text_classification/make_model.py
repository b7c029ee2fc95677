"""Trains the classifier on sentences put together on the spot; writes topics.pt, source_vocab.json and index_to_name.json.

Usage: python make_model.py FOLDER
"""

import json
import random
import sys
from collections import Counter
from pathlib import Path

import torch
from model import WORDS, Topics

from servegrpc.handlers.text_classifier import TextClassifier
from servegrpc.handlers.text_utils import ngrams_iterator

STEPS, BATCH = 100, 64
SENTENCES = {
    "sport": (["the team", "our striker", "her coach"], ["won", "lost", "scored in"], ["the match", "the final", "the second half"]),
    "weather": (
        ["heavy rain", "a cold wind", "the storm"],
        ["reached", "passed over", "won't leave"],
        ["the coast", "the north", "the hills"],
    ),
    "food": (["the chef", "my sister", "the bakery"], ["cooked", "served", "doesn't like"], ["a soup", "fresh bread", "the sauce"]),
}


def main(folder):
    """Train, check on new sentences, write; exit 1 when too few are right."""
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    handler = prepared_handler()
    handler.model = train(handler)
    texts, topics = sentences(200)
    right = (handler.inference(handler.preprocess(texts)).argmax(dim=1) == topics).float().mean().item()
    if right < 0.95:
        sys.exit(f"only {right:.2f} of new sentences are right: nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(handler.model.state_dict(), folder / "topics.pt")
    (folder / "source_vocab.json").write_text(json.dumps(handler.source_vocab))
    (folder / "index_to_name.json").write_text(json.dumps(dict(enumerate(SENTENCES))))


def prepared_handler():
    """Return the handler that will serve the model, with a vocabulary of what it makes of the sentences: both then see the same words."""
    handler = TextClassifier()
    handler.device = torch.device("cpu")
    handler.source_vocab = {}
    tokens = [tokens for _, tokens in handler.preprocess(sentences(2000)[0])]
    counts = Counter(ngram for text in tokens for ngram in ngrams_iterator(text, handler.ngrams))
    handler.source_vocab = {ngram: number for number, (ngram, _) in enumerate([("<unk>", 0), *counts.most_common(WORDS - 1)])}
    return handler


def train(handler):
    """Return a trained model, in evaluation mode."""
    model = Topics()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(STEPS):
        texts, topics = sentences(BATCH)
        numbers = [one for one, _ in handler.preprocess(texts)]
        offsets = torch.tensor([0, *map(len, numbers[:-1])]).cumsum(0)
        loss = torch.nn.functional.cross_entropy(model(torch.cat(numbers), offsets), topics)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def sentences(number):
    """Return random sentences, as the rows of requests, and the topic of each."""
    topics = [random.randrange(len(SENTENCES)) for _ in range(number)]
    parts = [[random.choice(words) for words in list(SENTENCES.values())[topic]] for topic in topics]
    return [{"data": f"{' '.join(words)}.".capitalize()} for words in parts], torch.tensor(topics)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
