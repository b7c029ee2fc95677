"""Registering, scaling and removing models, with the fake engine and real archives."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FakeEngine

from servegrpc.core.model import ModelSettings, State
from servegrpc.core.registration import Defaults, GivenSettings, Registration
from servegrpc.errors import (
    ArchiveNotFound,
    DefaultVersion,
    InvalidArchive,
    InvalidInput,
    ModelLoadFailed,
    ModelNotFound,
    VersionExists,
    VersionNotFound,
)

# --- register


def test_register(manager, stored):
    """An archive is registered → its workers are ready, and it is looked up by the manifest's name and version."""
    version = manager.register(Registration(stored(version="2.0"), workers=2))
    assert (version.name, version.version, version.pool.state) == ("digits", "2.0", State.ACTIVE)
    assert len(version.pool.records()) == 2
    assert manager.registry.get("digits") is version


def test_other_name_and_handler(manager, stored):
    """The caller gives another name and handler → they go before the manifest's."""
    version = manager.register(Registration(stored(handler="broken.py"), model_name="other.one", handler="echo.py"))
    assert (version.name, version.pool.spec.handler) == ("other.one", "echo.py")


def test_settings(manager, stored):
    """Settings come from caller, archive and defaults → in this order, each by itself."""
    name = stored(config="batchSize: 4\nmaxBatchDelay: 20\nresponseTimeout: 7\nminWorkers: 2\n")
    version = manager.register(Registration(name, batch_size=8, max_queue_size=5))
    assert version.settings == ModelSettings(8, 0.02, 7, 120.0, 5)
    assert version.pool.target == 2


def test_servers_defaults(make_manager, stored):
    """The server has defaults for a version and for all → they come after the archive's, the version's first."""
    defaults = Defaults(
        GivenSettings(batch_size=2, max_queue_size=20, response_timeout_seconds=5.0),
        {("digits", "1.0"): GivenSettings(batch_size=3, max_queue_size=30, workers=2, max_workers=3)},
    )
    manager = make_manager(defaults=defaults)
    name = stored(config="maxBatchDelay: 20\nbatchSize: 4\n")
    version = manager.register(Registration(name))
    assert version.settings == ModelSettings(4, 0.02, 5.0, 120.0, 30)
    assert (version.autoscaler.min_workers, version.autoscaler.max_workers) == (2, 3)


@pytest.mark.parametrize(("config", "expected"), [(None, (4, 4)), ("minWorkers: 2\nmaxWorkers: 3", (2, 3))])
def test_fallback_workers(make_manager, stored, config, expected):
    """A caller gives a number of workers for when the archive says nothing → it goes before the server's, and after the archive's."""
    defaults = Defaults(GivenSettings(workers=5), {("digits", "1.0"): GivenSettings(workers=1, max_workers=6)})
    version = make_manager(defaults=defaults).register(Registration(stored(config=config), fallback_workers=4))
    assert (version.autoscaler.min_workers, version.autoscaler.max_workers) == expected


def test_default_handler(make_manager, tmp_path):
    """The archive names no handler and the server has a default one → that is used."""
    (tmp_path / "store" / "bare").mkdir(parents=True)
    manager = make_manager(defaults=Defaults(handler="echo.py"))
    assert manager.register(Registration("bare", model_name="m")).pool.spec.handler == "echo.py"


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        (None, {}, (1, 1)),
        ("minWorkers: 2\nmaxWorkers: 4", {}, (2, 4)),
        ("maxWorkers: 4", {}, (1, 4)),
        ("minWorkers: 2\nmaxWorkers: 4", {"workers": 3}, (3, 3)),
        ("minWorkers: 2\nmaxWorkers: 4", {"workers": 1, "max_workers": 2}, (1, 2)),
        ("minWorkers: 3", {"max_workers": 2}, (2, 2)),
    ],
)
def test_bounds_of_workers(manager, stored, config, given, expected):
    """Caller and archive say how many workers at least and at most → who says the least says the most; a caller's most bounds all."""
    version = manager.register(Registration(stored(config=config), **given))
    assert (version.autoscaler.min_workers, version.autoscaler.max_workers) == expected
    assert version.pool.target == expected[0]


@pytest.mark.parametrize(
    ("gpus", "default_workers", "config", "given", "expected"),
    [
        (0, None, None, None, 1),
        (3, None, None, None, 3),
        (3, 2, None, None, 2),
        (0, 2, "minWorkers: 0", None, 2),
        (0, 2, "minWorkers: 0", 0, 0),
        (0, 2, "minWorkers: 3", 1, 1),
    ],
)
def test_number_of_workers(make_manager, stored, gpus, default_workers, config, given, expected):
    """How many workers start → the caller's number, else the archive's, else the server's, else one per GPU, at least one."""
    manager = make_manager(gpus=gpus, default_workers=default_workers)
    assert manager.register(Registration(stored(config=config), workers=given)).pool.target == expected


def test_without_waiting(make_manager, stored):
    """The caller does not wait → it returns while the version loads."""
    engine = FakeEngine()
    version = make_manager(engine).register(Registration(stored(), wait=False))
    assert version.pool.state is State.LOADING
    engine.workers[0].become_ready()
    assert version.pool.state is State.ACTIVE


def test_missing_archive(manager, tmp_path):
    """The archive is not there → ArchiveNotFound, and nothing is registered."""
    (tmp_path / "store").mkdir()
    with pytest.raises(ArchiveNotFound, match=r"nothing\.mar"):
        manager.register(Registration("nothing.mar"))
    assert manager.registry.models() == []


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("workers", -1, "workers must be 0 to 1024, not -1"),
        ("max_workers", 1025, "max_workers must be 0 to 1024, not 1025"),
        ("batch_size", 0, "settings.batch_size must be 1 to 65536, not 0"),
        ("max_batch_delay_seconds", -0.5, "settings.max_batch_delay must be 0 to 3600, not -0.5"),
        ("response_timeout_seconds", 0, "settings.response_timeout must be 0.001 to 2147483647, not 0"),
        ("startup_timeout_seconds", float("nan"), "settings.startup_timeout must be 0.001 to 2147483647, not nan"),
        ("max_queue_size", 0, "settings.max_queue_size must be 1 to "),
    ],
)
def test_numbers_out_of_range(manager, stored, field, value, problem):
    """A number is out of its range → InvalidInput naming the field."""
    with pytest.raises(InvalidInput, match=problem):
        manager.register(Registration(stored(), **{field: value}))


@pytest.mark.parametrize("name", ["a b", "../up", "-x", "ä", ".hidden", "x/y"])
def test_bad_name(manager, stored, name):
    """The name has characters that names may not have → InvalidInput, and nothing is registered."""
    with pytest.raises(InvalidInput, match="is no model name; give model_name with letters") as refused:
        manager.register(Registration(stored(), model_name=name))
    assert refused.value.field == "model_name"
    assert manager.registry.models() == []


def test_no_manifest(manager, tmp_path):
    """The archive has no manifest → the caller must give the name and the handler, and then it is served."""
    folder = tmp_path / "store" / "bare"
    folder.mkdir(parents=True)
    (folder / "echo.py").write_text("")
    with pytest.raises(InvalidInput, match="no manifest that names the model; give model_name"):
        manager.register(Registration("bare"))
    with pytest.raises(InvalidArchive, match=r"names no handler; give one as file\.py"):
        manager.register(Registration("bare", model_name="m"))
    assert manager.register(Registration("bare", model_name="m", handler="echo.py")).version == "1.0"


def test_twice(manager, stored):
    """A version is registered already → VersionExists, and the first serves on."""
    name = stored()
    first = manager.register(Registration(name))
    with pytest.raises(VersionExists, match=r'Model "digits" version 1\.0 is registered already'):
        manager.register(Registration(name))
    assert manager.registry.get("digits") is first


def test_load_failure(manager, stored):
    """The handler cannot load → ModelLoadFailed with the cause, and the version stays as FAILED."""
    with pytest.raises(ModelLoadFailed, match=r'Model "digits" version 1\.0 failed to load: broken\.py, line 2: bad') as refused:
        manager.register(Registration(stored(handler="broken.py")))
    assert refused.value.metadata["cause"] == "broken.py, line 2: bad"
    assert manager.registry.get("digits").pool.state is State.FAILED


def test_register_again_after_a_failure(manager, stored):
    """A version has failed and is registered again → the new one takes its place."""
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(stored(handler="broken.py")))
    failed = manager.registry.get("digits")
    version = manager.register(Registration(stored()))
    assert manager.registry.get("digits") is version
    assert failed.pool.state is State.UNLOADED


def test_unregistered_while_it_loads(make_manager, stored):
    """A version is unregistered while its registration waits → ModelLoadFailed, not an answer that it is there."""
    engine = FakeEngine()
    manager = make_manager(engine)
    with ThreadPoolExecutor() as threads:
        registering = threads.submit(manager.register, Registration(stored()))
        engine.wait_started(1)
        manager.unregister("digits", wait=False)
        engine.workers[0].exit()
    with pytest.raises(ModelLoadFailed, match="it was unloaded while it loaded"):
        registering.result()


# --- unregister, scale, default


def test_unregister(manager, stored):
    """A model is unregistered → it is gone, and its workers have ended."""
    version = manager.register(Registration(stored()))
    manager.unregister("digits")
    assert version.pool.state is State.UNLOADED
    with pytest.raises(ModelNotFound):
        manager.unregister("digits")


def test_unregister_one_version(manager, stored):
    """One of two versions is unregistered → the default one refuses, the other goes."""
    manager.register(Registration(stored()))
    manager.register(Registration(stored(version="2.0")))
    with pytest.raises(DefaultVersion, match=r"Version 1\.0 is the default .* set another default first"):
        manager.unregister("digits", "1.0")
    manager.unregister("digits", "2.0")
    with pytest.raises(VersionNotFound):
        manager.registry.get("digits", "2.0")
    manager.unregister("digits", "1.0")
    assert manager.registry.models() == []


def test_unregister_all_versions(manager, stored):
    """A model is unregistered without a version → all its versions go."""
    versions = [manager.register(Registration(stored(version=number))) for number in ("1.0", "2.0")]
    manager.unregister("digits")
    assert [version.pool.state for version in versions] == [State.UNLOADED] * 2


def test_remove_failed(manager, stored):
    """The default version has failed, and is removed while another is there → that one is the default, and listeners hear of it."""
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(stored(handler="broken.py")))
    second = manager.register(Registration(stored(version="2.0")))
    changes = []
    manager.changes.listen(changes.append)
    manager.remove_failed("digits", "1.0")
    assert manager.registry.get("digits") is second
    assert [(change.model_version, change.is_default) for change in changes][-1] == ("2.0", True)


def test_remove_what_has_not_failed(manager, stored):
    """A version has not failed, or not any more, or is not there → nothing is removed."""
    manager.register(Registration(stored()))
    manager.remove_failed("digits", "1.0")
    manager.remove_failed("digits", "2.0")
    assert manager.registry.get("digits").pool.state is State.ACTIVE


def test_unregister_waits_for_requests(make_manager, stored):
    """A worker still computes → unregister without waiting returns, and the version drains."""
    engine = FakeEngine()
    manager = make_manager(engine)
    version = manager.register(Registration(stored(), wait=False))
    manager.unregister("digits", wait=False)
    assert (version.pool.state, manager.registry.models()) == (State.DRAINING, [])
    engine.workers[0].exit()
    assert version.pool.state is State.UNLOADED


def packed(folder):
    """Pack a folder as a .mar file; returns its path."""
    return shutil.move(shutil.make_archive(str(folder), "zip", folder), folder.with_suffix(".mar"))


def test_unpacked_files_go(manager, stored, tmp_path):
    """An archive file was unpacked and is unregistered → its files are gone."""
    version = manager.register(Registration(packed(tmp_path / "store" / stored())))
    assert version.archive.folder.is_dir()
    manager.unregister("digits")
    assert not version.archive.folder.exists()


def test_unpacked_files_of_what_cannot_be_loaded_go(make_manager, stored, tmp_path):
    """An archive file was unpacked and its handler cannot be loaded → its files go with the last worker that loads."""
    engine = FakeEngine()
    version = make_manager(engine).register(Registration(packed(tmp_path / "store" / stored()), workers=2, wait=False))
    engine.workers[0].exit("exit code 3", "broken.py, line 2: bad")
    assert version.pool.state is State.FAILED
    assert version.archive.folder.is_dir()
    engine.workers[1].exit()
    assert not version.archive.folder.exists()


def test_unpacked_files_of_what_is_tried_again_stay(make_manager, stored, tmp_path):
    """An archive file was unpacked, its worker was ready and ended too often → FAILED, and its files stay for the next worker."""
    engine = FakeEngine()
    path = packed(tmp_path / "store" / stored(config="maxRetryTimeoutInSec: 0"))
    version = make_manager(engine).register(Registration(path, workers=1, wait=False))
    engine.workers[0].become_ready()
    engine.workers[0].exit("exit code 1")
    assert version.pool.state is State.FAILED
    assert version.archive.folder.is_dir()


def test_scale(manager, stored):
    """The number of workers is changed → it returns when there are as many."""
    manager.register(Registration(stored()))
    assert len(manager.scale("digits", "", 3).pool.records()) == 3
    assert len(manager.scale("digits", "1.0", 0).pool.records()) == 0


def test_scale_between(manager, stored):
    """Bounds are given → the least are there when it returns; the most must not be less."""
    version = manager.register(Registration(stored()))
    manager.scale("digits", "", 2, max_workers=4)
    assert (len(version.pool.records()), version.autoscaler.max_workers) == (2, 4)
    with pytest.raises(InvalidInput, match=r"max_workers must not be less than workers \(3\), and is 2"):
        manager.scale("digits", "", 3, max_workers=2)


@pytest.mark.parametrize("workers", [-1, 1025])
def test_scale_out_of_range(manager, stored, workers):
    """The number is out of range → InvalidInput naming the field."""
    manager.register(Registration(stored()))
    with pytest.raises(InvalidInput, match="workers must be 0 to 1024"):
        manager.scale("digits", "", workers)


def test_scale_failed(manager, stored):
    """A failed version is scaled → ModelLoadFailed with its cause."""
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(stored(handler="broken.py")))
    with pytest.raises(ModelLoadFailed, match="line 2: bad"):
        manager.scale("digits", "", 2)


def test_set_default(manager, stored):
    """Another version is made the default → it is; an unknown one is refused."""
    for number in ("1.0", "2.0"):
        manager.register(Registration(stored(version=number)))
    manager.set_default("digits", "2.0")
    assert manager.registry.get("digits").version == "2.0"
    with pytest.raises(VersionNotFound):
        manager.set_default("digits", "3.0")
