"""Tokens in TorchServe's format, and who may call what."""

import json
import time

import pytest

from servegrpc.errors import InvalidInput, ModelApiDisabled, ServerError, TokenRefused
from servegrpc.frontend.access import Access
from servegrpc.frontend.tokens import KeyFile, prepare_key_file, read_tokens, renew_token

PREDICT = "/servegrpc.v1.InferenceService/Predict"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "key_file.json"


@pytest.fixture
def access(file):
    """The rules of the inference port, with new keys."""
    return Access("inference", prepare_key_file(file, 3600), model_api=True)


def key_of(file, port="inference"):
    return json.loads(file.read_text())[port]["key"]


def metadata(key, name="authorization"):
    return (("user-agent", "test"), (name, f"Bearer {key}"))


def test_key_file(file):
    """A server starts without a key file → it has three keys as TorchServe writes them, for its owner alone."""
    prepare_key_file(file, 90)
    content = json.loads(file.read_text())
    assert set(content) == {"API", "inference", "management"}
    assert len({entry["key"] for entry in content.values()}) == 3
    assert all(len(entry["key"]) == 8 for entry in content.values())
    assert content["inference"]["expiration time"].endswith("Z")
    assert file.stat().st_mode & 0o777 == 0o600
    assert 80 < read_tokens(file)["inference"].expires - time.time() < 91


def test_right_token(access, file):
    """The call has the port's key → let through."""
    access.check(PREDICT, metadata(key_of(file)))


@pytest.mark.parametrize(
    "make",
    [
        lambda file: (),
        lambda file: metadata("wrong"),
        lambda file: metadata(key_of(file) + "x"),
        lambda file: metadata(key_of(file, "management")),
        lambda file: metadata(key_of(file, "API")),
        lambda file: metadata(key_of(file), "token"),
        lambda file: (("authorization", f"bearer {key_of(file)}"),),
        lambda file: (("authorization", key_of(file)),),
        lambda file: (("authorization", b"\xff"),),
        lambda file: metadata("ä"),
    ],
    ids=["none", "wrong", "longer", "management's", "API's", "other name", "small b", "no Bearer", "binary", "not ASCII"],
)
def test_wrong_token(access, file, make):
    """The call has another token, or not as it should be → refused in TorchServe's words."""
    with pytest.raises(TokenRefused, match=r"^Token Authorization failed\. Token either incorrect, expired, or not provided correctly$"):
        access.check(PREDICT, make(file))


def test_health_is_open(access):
    """A probe asks for health without a token → let through."""
    access.check("/grpc.health.v1.Health/Check", ())
    access.check("/grpc.health.v1.Health/Watch", ())


def test_expired(file):
    """The key's time is over → refused; a server that starts then makes a new one and keeps the other."""
    prepare_key_file(file, 3600)
    old = renew_token(file, "inference", -1)
    management = key_of(file, "management")
    with pytest.raises(TokenRefused):
        Access("inference", KeyFile(file), model_api=True).check(PREDICT, metadata(old.key))
    access = Access("inference", prepare_key_file(file, 3600), model_api=True)
    assert key_of(file) != old.key
    assert key_of(file, "management") == management
    access.check(PREDICT, metadata(key_of(file)))


def test_new_key(access, file, run_cli):
    """`servegrpc token` writes a new key → the server takes it at once, and the old one no more."""
    old = key_of(file)
    result = run_cli("token", "inference", "--key-file", file)
    assert (result.returncode, result.stdout) == (0, key_of(file) + "\n")
    access.check(PREDICT, metadata(key_of(file)))
    with pytest.raises(TokenRefused):
        access.check(PREDICT, metadata(old))


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("{"), lambda file: file.write_text("{}")])
def test_file_is_damaged_later(access, file, damage):
    """The file is removed or damaged while the server runs → the keys stay as they were."""
    key = key_of(file)
    damage(file)
    for _ in range(2):
        access.check(PREDICT, metadata(key))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", r"key_file\.json is no key file"),
        ("[]", r"key_file\.json is no key file"),
        ('{"inference": {"key": "x"}}', '"inference" needs a "key" and an "expiration time"'),
        ('{"inference": {"key": 3, "expiration time": "2099-01-01T00:00:00Z"}}', '"inference" needs a "key"'),
        ('{"management": {"key": "x", "expiration time": "later"}}', '"management" needs a "key"'),
    ],
)
def test_damaged_file(file, text, problem):
    """The file is no key file when the server starts → InvalidInput saying what is wrong."""
    file.write_text(text)
    with pytest.raises(InvalidInput, match=problem):
        prepare_key_file(file, 3600)


def test_torchserves_file(file):
    """The file was written by TorchServe → its keys are taken, the key's time in UTC."""
    entry = {"key": "B-E5KSRM", "expiration time": "2099-05-01T20:37:14.125368Z"}
    file.write_text(json.dumps({"management": entry, "inference": entry, "API": {"key": "D-8xWkR0"}}))
    assert prepare_key_file(file, 60).token("management").key == "B-E5KSRM"
    assert key_of(file) == "B-E5KSRM"


def test_no_folder(tmp_path):
    """The folder of the key file is not there → ServerError naming the file."""
    with pytest.raises(ServerError, match=r"key_file\.json cannot be used"):
        prepare_key_file(tmp_path / "none" / "key_file.json", 60)


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ("/servegrpc.v1.ManagementService/RegisterModel", r"^Model API disabled; start the server with model_api"),
        ("/inference.GRPCInferenceService/RepositoryModelLoad", r"^Model API disabled; start"),
        (
            "/org.pytorch.serve.grpc.management.ManagementAPIsService/UnregisterModel",
            r"^Model API disabled\norg\.pytorch\..*ModelException$",
        ),
    ],
)
def test_model_api_is_off(method, problem):
    """Models may not be registered by calls → such calls of every service are refused, the others let through."""
    access = Access("management", None, model_api=False)
    with pytest.raises(ModelApiDisabled, match=problem):
        access.check(method, ())
    access.check("/servegrpc.v1.ManagementService/ScaleModel", ())
