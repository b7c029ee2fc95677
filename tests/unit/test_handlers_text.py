"""Text handlers: cleaning, tokens, vocabularies, and the default text_classifier."""

import collections
import json
import sys

import pytest
import torch

from servegrpc.errors import InvalidInput
from servegrpc.handlers.contractions import CONTRACTION_MAP
from servegrpc.handlers.text_classifier import TextClassifier
from servegrpc.handlers.text_utils import CLEANUP_REGEX, get_tokenizer, ngrams_iterator, token_numbers
from servegrpc.worker.context import Context

MODEL_FILE = """
import torch

class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(8, 2, mode="sum")
        with torch.no_grad():
            self.embedding.weight.copy_(torch.arange(16.0).reshape(8, 2) / 4)

    def forward(self, numbers, offsets):
        return self.embedding(numbers, offsets)
"""
WORDS = {"<unk>": 0, "good": 1, "do": 2, "not": 3, "do not": 4, "cafe": 5}


class Vocabulary:
    """A vocabulary as torchtext's: no dict, looked up token by token."""

    def __getitem__(self, token):
        return WORDS.get(token, 7)


def start(folder, words=WORDS, name="source_vocab.pt", **config):
    (folder / "bag_net.py").write_text(MODEL_FILE)
    (folder / "index_to_name.json").write_text(json.dumps({"0": "bad", "1": "well"}))
    if name.endswith(".json"):
        (folder / name).write_text(json.dumps(words))
    elif words is not None:
        torch.save(words, folder / name)
    manifest = {"model": {"modelFile": "bag_net.py"}}
    if not name.startswith("source_vocab"):
        manifest["model"]["sourceVocab"] = name
    context = Context(model_name="bag", model_dir=str(folder), manifest=manifest, batch_size=4, gpu=None, model_yaml_config=config)
    handler = TextClassifier()
    handler.initialize(context)
    context.begin_batch(list("abcd"), [{}] * 4)
    return handler, context


def expected(*numbers):
    logits = (torch.arange(16.0).reshape(8, 2) / 4)[list(numbers)].sum(dim=0)
    return {label: pytest.approx(value, abs=1e-6) for label, value in zip(("bad", "well"), logits.softmax(0).tolist(), strict=True)}


def test_cleanup():
    """Tags and entities → found."""
    assert CLEANUP_REGEX.sub("", "<b>a</b>&amp;&#10;&#xa;b") == "ab"


def test_a_text_gets_its_probabilities(tmp_path):
    """One text with tags, an accent and a contraction → the probabilities of its cleaned words and pairs."""
    handler, context = start(tmp_path)
    [result] = handler.handle([{"data": bytearray("<b>Don't</b> Café!".encode())}], context)
    assert result == expected(2, 3, 5, 4, 0)  # do, not, cafe; do not, not cafe


def test_a_batch_is_one_call_of_the_model(tmp_path):
    """Three texts of different lengths, one empty → each gets what it gets alone."""
    handler, context = start(tmp_path)
    rows = [{"data": "good"}, {"body": ""}, {"data": "do not"}]
    assert handler.handle(rows, context) == [expected(1), expected(), expected(2, 3, 4)]


def test_one_text_is_prepared_as_in_torchserve(tmp_path):
    """One text is prepared → (numbers, tokens), which handlers that override inference unpack."""
    handler, _ = start(tmp_path)
    numbers, tokens = handler.preprocess([{"data": "do not"}])
    assert (numbers.tolist(), tokens) == ([2, 3, 4], ["do", "not"])


@pytest.mark.parametrize("name", ["source_vocab.pt", "source_vocab.json", "words.pt"])
def test_a_plain_vocabulary_needs_no_trust(tmp_path, name):
    """A dict saved by torch, as JSON, or named by the manifest's sourceVocab → loads."""
    assert start(tmp_path, name=name)[0].source_vocab == WORDS


def test_a_pickled_vocabulary_is_refused(tmp_path):
    """An object as vocabulary → an error with both ways out."""
    with pytest.raises(RuntimeError, match=r'"source_vocab\.pt" holds more than a dict.*source_vocab\.json.*trusted_pickle: true'):
        start(tmp_path, words=Vocabulary())


def test_a_pickled_vocabulary_of_a_trusted_maker_loads(tmp_path):
    """The same with trusted_pickle: true → looked up token by token."""
    handler, context = start(tmp_path, words=Vocabulary(), trusted_pickle=True)
    assert handler.handle([{"data": "good evening"}], context) == [expected(1, 7, 7)]


def test_a_missing_vocabulary_is_an_error(tmp_path):
    """No vocabulary in the archive → an error that says how to package one."""
    with pytest.raises(RuntimeError, match=r"source_vocab\.pt or source_vocab\.json with --extra-files"):
        start(tmp_path, words=None)


def test_a_vocabulary_that_is_none_is_an_error(tmp_path):
    """source_vocab.json holds a number → ValueError that names it."""
    with pytest.raises(ValueError, match=r'"source_vocab\.json" is no vocabulary but int'):
        start(tmp_path, words=3, name="source_vocab.json")


@pytest.mark.parametrize(("value", "message"), [(b"\xff", "not UTF-8"), (3, "of type int"), (None, "is missing")])
def test_what_is_no_text_is_refused(tmp_path, value, message):
    """A row without text → InvalidInput for that row."""
    handler, context = start(tmp_path)
    with pytest.raises(InvalidInput, match=message) as refused:
        handler.handle([{"data": "good"}, {"data": value}], context)
    assert refused.value.row == 1


def test_explanations_weigh_each_word(tmp_path):
    """A text with the header "explain" → by how much each word raises the class's probability; the text beside it is classified."""
    handler, context = start(tmp_path)
    context.begin_batch(["a", "b"], [{"explain": "True"}, {}])
    explained, classified = handler.handle([{"data": "Do not", "target": "1"}, {"data": "good"}], context)
    whole, without_do, without_not = (expected(*numbers)["well"].expected for numbers in ((2, 3, 4), (3,), (2,)))
    assert explained == {"words": ["do", "not"], "importances": pytest.approx([whole - without_do, whole - without_not], abs=1e-6)}
    assert classified == expected(1)


def test_a_class_that_is_not_there_is_refused(tmp_path):
    """An explanation of class 2 of two → InvalidInput for that row."""
    handler, context = start(tmp_path)
    context.begin_batch(["a", "b"], [{}, {"explain": "True"}])
    with pytest.raises(InvalidInput, match="no class 2 but 2") as refused:
        handler.handle([{"data": "good"}, {"data": "good", "target": 2}], context)
    assert refused.value.row == 1


def test_integrated_gradients_ask_for_captum(tmp_path, monkeypatch):
    """The attribute `lig`, as handlers for TorchServe use it, without captum → an error that says what to install."""
    monkeypatch.setitem(sys.modules, "captum.attr", None)  # an import of it then fails
    with pytest.raises(RuntimeError, match="pip install captum"):
        _ = start(tmp_path)[0].lig


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("I'd go", "I would go"),
        ("they shouldn't've", "they should not have"),
        ("She'll stay, he'd've", "She will stay, he would have"),
        ("can't won't ain't", "cannot will not is not"),
        ("'cause", "because"),
        ("will've", "will have"),
        ("the dog's", "the dogs"),
    ],
)
def test_contractions_are_expanded(text, long):
    """Contractions in any case → the words; other apostrophes vanish."""
    assert TextClassifier()._expand_contractions(text) == long


def test_contractions_are_what_torchserve_has():
    """The map of contractions → the common ones, by their words."""
    assert len(CONTRACTION_MAP) > 110
    assert CONTRACTION_MAP["you'll've"] == "you will have"


def test_basic_english():
    """The tokenizer "basic_english" → lower case, punctuation apart, quotes, colons and line breaks gone."""
    tokens = get_tokenizer("basic_english")('He said: "Stop!"<br />It\'s late, (very).')
    assert tokens == ["he", "said", "stop", "!", "it", "'", "s", "late", ",", "(", "very", ")", "."]


def test_other_tokenizers():
    """None → split at spaces; a function → itself; an unknown name → ValueError."""
    assert get_tokenizer(None)("A b.") == ["A", "b."]
    assert get_tokenizer(str.split) is str.split
    with pytest.raises(ValueError, match="moses"):
        get_tokenizer("moses")


def test_ngrams():
    """Three tokens up to three at a time → all neighbours, single ones first."""
    assert list(ngrams_iterator(["a", "b", "c"], 3)) == ["a", "b", "c", "a b", "b c", "a b c"]


@pytest.mark.parametrize(
    ("vocabulary", "numbers"),
    [
        ({"a": 1}, [1]),
        ({"a": 1, "<unk>": 9}, [1, 9]),
        (collections.defaultdict(int, {"a": 1}), [1]),
        (Vocabulary(), [7, 7]),
        (lambda tokens: [len(tokens)] * 2, [2, 2]),
    ],
    ids=["without unknown", "with unknown", "defaultdict", "object", "function"],
)
def test_every_kind_of_vocabulary_numbers_tokens(vocabulary, numbers):
    """A known and an unknown token → their numbers, by the kind of vocabulary."""
    assert token_numbers(vocabulary, ["a", "b"]) == numbers


@pytest.mark.slow
def test_integrated_gradients(tmp_path):
    """The attribute `lig`, as handlers for TorchServe use it → what the words of a text add to a class, together."""
    handler, _ = start(tmp_path)
    words, nothing = torch.tensor([2, 3]), torch.tensor([0, 0])
    shares = handler.lig.attribute(words, baselines=nothing, additional_forward_args=(torch.tensor([0]),), target=1, n_steps=10)
    bag = handler.model(words, torch.tensor([0])) - handler.model(nothing, torch.tensor([0]))
    assert shares.sum().item() == pytest.approx(bag[0, 1].item())
