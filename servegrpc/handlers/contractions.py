"""English contractions and what they are short for, under TorchServe's name; built of their parts."""

from __future__ import annotations

from collections.abc import Mapping

_ENDINGS = {"'d": "would", "'d've": "would have", "'ll": "will", "'ll've": "will have"}
_SUBJECTS = {
    "would": ("I", "he", "how", "it", "she", "that", "there", "they", "we", "you"),
    "will": ("I", "he", "how", "it", "she", "that", "they", "we", "what", "who", "you"),
    "is": ("he", "how", "it", "she", "so", "that", "there", "what", "when", "where", "who", "why"),
    "are": ("they", "we", "what", "you"),
    "have": (
        "I",
        "could",
        "might",
        "must",
        "should",
        "so",
        "they",
        "to",
        "we",
        "what",
        "when",
        "where",
        "who",
        "why",
        "will",
        "would",
        "you",
    ),
}
_NEGATED = (
    "are",
    "could",
    "did",
    "does",
    "do",
    "had",
    "has",
    "have",
    "is",
    "might",
    "must",
    "need",
    "ought",
    "should",
    "was",
    "were",
    "would",
)
_IRREGULAR = {
    "I'm": "I am",
    "ain't": "is not",
    "can't": "cannot",
    "can't've": "cannot have",
    "'cause": "because",
    "how'd'y": "how do you",
    "let's": "let us",
    "ma'am": "madam",
    "mayn't": "may not",
    "o'clock": "of the clock",
    "shan't": "shall not",
    "sha'n't": "shall not",
    "shan't've": "shall not have",
    "how'd": "how did",
    "where'd": "where did",
    "won't": "will not",
    "won't've": "will not have",
    "y'all": "you all",
    "y'all'd": "you all would",
    "y'all'd've": "you all would have",
    "y'all're": "you all are",
    "y'all've": "you all have",
}


def _contractions() -> Mapping[str, str]:
    """Return them all, longer ones first: a pattern that tries them in order then finds "he'd've" before "he'd"."""
    table = {f"{word}n't": f"{word} not" for word in _NEGATED}
    table |= {f"{word}n't've": f"{word} not have" for word in ("could", "had", "might", "must", "need", "ought", "should", "would")}
    for ending, words in _ENDINGS.items():
        table |= {f"{subject}{ending}": f"{subject} {words}" for subject in _SUBJECTS[words.split()[0]]}
    for ending, verb in (("'s", "is"), ("'re", "are"), ("'ve", "have")):
        table |= {f"{subject}{ending}": f"{subject} {verb}" for subject in _SUBJECTS[verb]}
    table |= _IRREGULAR
    return dict(sorted(table.items(), key=lambda pair: -len(pair[0])))


CONTRACTION_MAP = _contractions()
