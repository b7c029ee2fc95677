"""TorchServe's RegisterModel, by a client with its stubs: sentences and failures to the letter."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.protobuf.empty_pb2 import Empty
from servers import until
from torchserve_stubs import TorchServeClient

from servegrpc.core.archiver import ArchiveSpec, write_archive

BAD_REQUEST = "org.pytorch.serve.http.BadRequestException"
SERVER_ERROR = "org.pytorch.serve.http.InternalServerException"
NOT_FOUND = "org.pytorch.serve.archive.model.ModelNotFoundException"
INVALID_MODEL = "org.pytorch.serve.archive.model.InvalidModelException"


def test_register(torchserve, put):
    """Workers asked for, waiting → how many there are."""
    name, file = put()
    reply = torchserve.manage("RegisterModel", url=file, initial_workers=2, synchronous=True)
    assert reply == f'Model "{name}" Version: 1.0 registered with 2 initial workers'
    assert torchserve.predict(name) == b"x"


def test_register_without_workers(torchserve, put):
    """No workers asked for → none, and advice; waiting or not."""
    for synchronous in (True, False):
        name, file = put()
        reply = torchserve.manage("RegisterModel", url=file, synchronous=synchronous)
        advice = "Use scale workers API to add workers for the model."
        assert reply == f'Model "{name}" Version: 1.0 registered with 0 initial workers. {advice}'


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "expected"), [('"per-core"', 0), ("2", 2)])
def test_register_with_a_number_for_all_models(start_server, put, store, tmp_path, workers, expected):
    """No workers asked for, and the server told how many models have → so many; "per-core" is for models of the start only."""
    _, file = put()
    (tmp_path / "servegrpc.toml").write_text(f"workers = {workers}\n")
    client = TorchServeClient(start_server("--config", tmp_path / "servegrpc.toml", "--model-store", store))
    assert f"registered with {expected} initial workers" in client.manage("RegisterModel", url=file, synchronous=True)
    client.close()


def test_register_without_waiting(torchserve, put):
    """Workers asked for, not waiting → in progress; soon they are there."""
    name, file = put()
    assert torchserve.manage("RegisterModel", url=file, initial_workers=1) == "Processing worker updates..."
    until(lambda: [worker["status"] for worker in torchserve.describe(name)[0]["workers"]] == ["READY"])


def test_register_with_settings(torchserve, put):
    """Settings given → they go before the archive's; name and handler too."""
    _, file = put(config="batchSize: 16\nresponseTimeout: 99\nmaxBatchDelay: 7")
    fields = {"batch_size": 2, "max_batch_delay": 5, "response_timeout": 77, "startup_timeout": 88, "runtime": "python3"}
    torchserve.manage("RegisterModel", url=file, model_name="renamed", handler="echo.py:handle", **fields)
    (described,) = torchserve.describe("renamed")
    assert [described[key] for key in ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")] == [2, 5, 77, 88]


def test_register_with_the_longest_times(torchserve, registered):
    """The largest numbers that the call can carry are given as time-outs → they hold, and the model is served."""
    longest = 2**31 - 1
    name = registered(fields={"response_timeout": longest, "startup_timeout": longest})
    (described,) = torchserve.describe(name)
    assert (described["responseTimeout"], described["startupTimeout"]) == (longest, longest)
    assert torchserve.predict(name) == b"x"


def test_register_with_the_archives_settings(torchserve, registered):
    """Settings of the archive, none given → they count, its number of workers goes before the one given."""
    name = registered(config="minWorkers: 2\nmaxWorkers: 3\nbatchSize: 4\nmaxBatchDelay: 20\nresponseTimeout: 33\nstartupTimeout: 44")
    (described,) = torchserve.describe(name)
    keys = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    assert [described[key] for key in keys] == [2, 3, 4, 20, 33, 44]
    assert len(described["workers"]) == 2


def test_register_a_time_out_beside_a_yaml(torchserve, registered):
    """A time-out given, and an archive whose yaml does not mention it → the one given; TorchServe forgets it."""
    name = registered(config="batchSize: 2", fields={"response_timeout": 7})
    assert torchserve.describe(name)[0]["responseTimeout"] == 7


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("INVALID_ARGUMENT", "Parameter url is required.", BAD_REQUEST)),
        ({"url": "missing.mar"}, ("NOT_FOUND", "Model not found at: missing.mar", NOT_FOUND)),
        ({"url": "../x.mar"}, ("NOT_FOUND", "Relative path is not allowed in url: ../x.mar", NOT_FOUND)),
        ({"url": "http://127.0.0.1/x.mar"}, ("NOT_FOUND", "Given URL http://127.0.0.1/x.mar does not match any allowed URL(s)", NOT_FOUND)),
        (
            {"url": "file:///none/x.mar"},
            (
                "INVALID_ARGUMENT",
                "Failed to download archive from: file:///none/x.mar",
                "org.pytorch.serve.archive.DownloadArchiveException",
            ),
        ),
        ({"url": "x.mar", "runtime": "python4"}, ("INVALID_ARGUMENT", "Invalid RuntimeType value: python4", BAD_REQUEST)),
        (
            {"url": "x.mar", "runtime": "LSP"},
            ("INVALID_ARGUMENT", "runtime LSP is TorchServe's C++ backend, which is not supported; leave it out.", BAD_REQUEST),
        ),
    ],
    ids=str,
)
def test_register_refused(torchserve, refused, fields, expected):
    """An archive that cannot be had, or a runtime that is none → the code and text that clients know."""
    assert refused(torchserve.manage, "RegisterModel", **fields) == expected


@pytest.mark.slow
def test_register_without_a_model_store(start_server, refused):
    """The server has no model store, and the archive is given by name → NOT_FOUND that says so."""
    client = TorchServeClient(start_server())
    outcome = refused(client.manage, "RegisterModel", url="echo.mar")
    client.close()
    assert outcome == ("NOT_FOUND", "Model store has not been configured.", NOT_FOUND)


def test_register_by_file_address(torchserve, put, store):
    """A file address names an archive that the model store has too → it is served from there."""
    name, file = put()
    torchserve.manage("RegisterModel", url=f"file://{store}/{file}", initial_workers=1, synchronous=True)
    assert torchserve.predict(name) == b"x"


def test_register_without_a_name(torchserve, refused, put, store):
    """An archive that names no model, and a caller who does not either → INVALID_ARGUMENT."""
    folder = store / "nameless"
    folder.mkdir()
    (folder / "handler.py").write_text("def handle(data, context):\n    return data\n")
    assert refused(torchserve.manage, "RegisterModel", url="nameless") == ("INVALID_ARGUMENT", "Model name is not defined.", INVALID_MODEL)


def test_register_twice(torchserve, refused, put):
    """The same version again → UNKNOWN as ever, but with a text."""
    name, file = put()
    torchserve.manage("RegisterModel", url=file)
    code, text, _ = refused(torchserve.manage, "RegisterModel", url=file)
    assert (code, text) == ("UNKNOWN", f"Model version 1.0 is already registered for model {name}")


def test_register_what_fails_to_load(torchserve, refused, put):
    """A handler that fails to load, waiting → INTERNAL, and the model is gone."""
    name, file = put("fail_load")
    expected = ("INTERNAL", f"Failed to start workers for model {name} version: 1.0", SERVER_ERROR)
    assert refused(torchserve.manage, "RegisterModel", url=file, initial_workers=1, synchronous=True) == expected
    assert refused(torchserve.describe, name) == ("NOT_FOUND", f"Model not found: {name}", NOT_FOUND)


@pytest.fixture
def loading(torchserve, refused, put, gate):
    """Register, waiting, what loads and then fails when the gate opens; returns the name and the call's future, which is a refusal."""
    name, file = put("late_failure", code=f"open({gate.path!r}).read()\nraise RuntimeError('no')\n")
    with ThreadPoolExecutor() as threads:
        registering = threads.submit(refused, torchserve.manage, "RegisterModel", url=file, initial_workers=1, synchronous=True)
        gate.wait_entered()
        yield name, registering
        gate.open()


def test_register_what_fails_to_load_beside_another(torchserve, put, loading, gate):
    """A version fails to load, waiting, and another was registered meanwhile → the failed one is gone, though it was the default."""
    name, registering = loading
    _, file = put(name=name, version="2.0")
    torchserve.manage("RegisterModel", url=file, initial_workers=1, synchronous=True)
    gate.open()
    assert registering.result() == ("INTERNAL", f"Failed to start workers for model {name} version: 1.0", SERVER_ERROR)
    assert [one["modelVersion"] for one in torchserve.describe(name, model_version="all")] == ["2.0"]


def test_unregister_while_it_loads(torchserve, loading, gate):
    """A model is unregistered while the call that registers it waits → that call is refused: the model is not there."""
    name, registering = loading
    with ThreadPoolExecutor() as threads:
        unregistering = threads.submit(torchserve.manage, "UnregisterModel", model_name=name)
        expected = ("INTERNAL", f"Failed to start workers for model {name} version: 1.0", SERVER_ERROR)
        assert registering.result() == expected  # at once: the worker still loads
        gate.open()
    assert unregistering.result() == f'Model "{name}" unregistered'


def test_register_what_fails_to_load_without_waiting(torchserve, put):
    """A handler that fails to load, not waiting → the model stays without workers, and Ping is Unhealthy."""
    name, file = put("fail_load")
    assert torchserve.manage("RegisterModel", url=file, initial_workers=1) == "Processing worker updates..."
    until(lambda: json.loads(torchserve.ping(Empty()).health) == {"status": "Unhealthy"})
    until(lambda: torchserve.describe(name)[0]["workers"] == [])


@pytest.mark.slow
def test_register_with_requirements_that_cannot_be_had(start_server, refused, tmp_path):
    """An archive whose packages cannot be installed → INVALID_ARGUMENT; nothing is registered."""
    (tmp_path / "echo.py").write_text("def handle(data, context):\n    return data\n")
    (tmp_path / "requirements.txt").write_text("./no-such-package\n")
    requirements = str(tmp_path / "requirements.txt")
    archive = write_archive(
        ArchiveSpec("needy", str(tmp_path / "echo.py"), "1.0", requirements_file=requirements, export_path=str(tmp_path))
    )
    client = TorchServeClient(start_server("--install-requirements", "on", "--state-dir", tmp_path / "state"))
    code, text, _ = refused(client.manage, "RegisterModel", url=str(archive))
    client.close()
    assert (code, text) == ("INVALID_ARGUMENT", "Custom pip package installation failed for model needy")
