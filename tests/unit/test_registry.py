"""Looking up models and versions."""

import pytest

from servegrpc.core.archive import ModelArchive
from servegrpc.core.model import ModelSettings
from servegrpc.core.model_config import ModelConfig
from servegrpc.core.registry import ModelRegistry, ModelVersion
from servegrpc.errors import ModelNotFound, VersionNotFound


@pytest.fixture
def registry():
    return ModelRegistry()


@pytest.fixture
def add(registry, tmp_path):
    """Add a version; its pool and bounds are not looked at here."""

    def add(name, number):
        archive = ModelArchive("a", tmp_path, {}, name, number, "h", "python", ModelConfig(), unpacked=False)
        version = ModelVersion(name, number, archive, ModelSettings(), None, None)
        registry.add(version)
        return version

    return add


def test_default(registry, add):
    """Several versions are added → the first is the default, and each is found by its number."""
    first, second = add("m", "1.0"), add("m", "2.0")
    assert registry.get("m") is registry.get("m", "1.0") is first
    assert registry.get("m", "2.0") is second
    assert registry.model("m").default_version == "1.0"


def test_set_default(registry, add):
    """Another version is made the default → a request without version gets that."""
    add("m", "1.0")
    second = add("m", "2.0")
    registry.set_default(second)
    assert registry.get("m") is second


def test_unknown_model(registry, add):
    """A model is not there → the error names those that are, at most ten."""
    with pytest.raises(ModelNotFound, match=r'There is no model "x"; no model is registered\.'):
        registry.get("x")
    for number in range(12):
        add(f"m{number:02}", "1.0")
    with pytest.raises(ModelNotFound, match=r"models: m00, m01, .*, m09 and 2 more\.") as refused:
        registry.get("x")
    assert refused.value.metadata["model_name"] == "x"
    with pytest.raises(ModelNotFound):
        registry.model("x")


def test_unknown_version(registry, add):
    """A version is not there → the error names those that are."""
    add("m", "1.0")
    add("m", "2.0")
    with pytest.raises(VersionNotFound, match=r'Model "m" has no version 3; versions: 1\.0, 2\.0\.'):
        registry.get("m", "3")


def test_remove(registry, add):
    """Versions are removed one by one → the first of those left becomes the default, and the model goes with the last."""
    versions = [add("m", number) for number in ("1.0", "2.0", "3.0")]
    registry.set_default(versions[1])
    registry.remove(versions[1])
    assert registry.get("m") is versions[0]
    registry.remove(versions[0])
    registry.remove(versions[2])
    assert registry.models() == []


def test_remove_other_version(registry, add):
    """A version that is not the default is removed → the default stays."""
    first, second = add("m", "1.0"), add("m", "2.0")
    registry.remove(second)
    assert registry.get("m") is first


def test_replace(registry, add):
    """A version of the same number is added → it takes the old one's place, and removing the old one changes nothing."""
    old, new = add("m", "1.0"), add("m", "1.0")
    registry.remove(old)
    assert registry.get("m") is new


def test_lists(registry, add):
    """Models are listed → by name; versions in the order of registration."""
    for name, number in (("b", "2"), ("a", "1"), ("b", "1")):
        add(name, number)
    assert [model.name for model in registry.models()] == ["a", "b"]
    assert [(version.name, version.version) for version in registry.versions()] == [("a", "1"), ("b", "2"), ("b", "1")]


def test_readers_keep_what_they_have(registry, add):
    """A model is looked up and then changed → the one in hand does not change."""
    add("m", "1.0")
    model = registry.model("m")
    add("m", "2.0")
    assert list(model.versions) == ["1.0"]
