"""The formats of index_to_name.json, and labelled probabilities."""

import json

import pytest

from servegrpc.handlers.labels import load_label_mapping, map_class_to_label


@pytest.mark.parametrize(
    "content",
    [{"0": "cat", "1": "dog"}, {"0": ["n01", "cat"], "1": ["n02", "dog"]}, {"object_type_names": ["cat", "dog"]}],
    ids=["labels", "lists", "object_type_names"],
)
def test_every_format_gives_labels_by_index(tmp_path, content):
    """Each of TorchServe's formats → {index: label}."""
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(content))
    assert load_label_mapping(path) == {"0": "cat", "1": "dog"}


@pytest.mark.parametrize("content", [["cat", "dog"], {"0": 7}, {"0": []}, {"0": [1, 2]}])
def test_other_formats_are_errors(tmp_path, content):
    """Anything else → ValueError naming the file."""
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"index_to_name\.json"):
        load_label_mapping(path)


def test_missing_file_is_a_warning(tmp_path, caplog):
    """No file → None and a warning."""
    assert load_label_mapping(tmp_path / "index_to_name.json") is None
    assert "index_to_name.json" in caplog.text


def test_probabilities_get_labels_in_order():
    """Probabilities with class indexes → labels, best first as given; an unnamed class keeps its index."""
    rows = map_class_to_label([[0.7, 0.2]], {"0": "cat"}, [[0, 4]])
    assert list(rows[0].items()) == [("cat", 0.7), ("4", 0.2)]


def test_without_mapping_or_classes_indexes_are_labels():
    """No mapping, no classes → the positions as labels."""
    assert map_class_to_label([[0.7, 0.3], [0.1, 0.9]]) == [{"0": 0.7, "1": 0.3}, {"0": 0.1, "1": 0.9}]
