"""Makes a very small text classifier with its tokenizer, in the folder given: a stand-in for one from the Hugging Face hub."""

import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

GOOD = (
    "what a wonderful film",
    "i loved every minute",
    "a great story and a great cast",
    "funny warm and wonderful",
    "the best film of the year",
)
BAD = (
    "what a terrible film",
    "i hated every minute",
    "a boring story and a dull cast",
    "dull cold and terrible",
    "the worst film of the year",
)
STEPS = 60


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows the words of the sentences above."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(" ".join(GOOD + BAD).split()))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", words.index("[SEP]")), ("[CLS]", words.index("[CLS]")))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=64
    )


def main(folder: str) -> None:
    """Train for a second or two and save model and tokenizer."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes, **labels))
    batch = tokenizer([*GOOD, *BAD], padding=True, return_tensors="pt")
    target = torch.tensor([1] * len(GOOD) + [0] * len(BAD))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        loss = model(**batch, labels=target).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
