"""Registering, scaling and removing models, with the fake engine and real archives."""

import json
import shutil
import sys
import threading

import pytest
from fakes import FakeEngine, Script

from servegrpc.core.manager import ModelManager, subscribe
from servegrpc.core.model import ModelSettings, State
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.registration import Defaults, GivenSettings, Registration
from servegrpc.core.state import StateStore
from servegrpc.core.timer import Timer
from servegrpc.errors import (
    ArchiveNotFound,
    DefaultVersion,
    InvalidArchive,
    InvalidInput,
    ModelLoadFailed,
    ModelNotFound,
    ServerError,
    VersionExists,
    VersionNotFound,
)

SECONDS = 20  # that a wait may take at most


@pytest.fixture
def make_manager(tmp_path):
    """Make managers, with folders as archives in `tmp_path / "store"`; all are closed after the test."""
    managers = []

    def make_manager(engine=None, gpus=0, **kwargs):
        engine = engine or FakeEngine({"echo.py": Script(), "broken.py": Script(load_error="broken.py, line 2: bad")})
        manager = ModelManager(
            engine=engine,
            timer=Timer(),
            slots=DeviceSlots(gpus, 4),
            model_store=tmp_path / "store",
            unpack_root=tmp_path / "unpacked",
            **kwargs,
        )
        managers.append(manager)
        return manager

    yield make_manager
    for manager in managers:
        manager.close(0.0)


@pytest.fixture
def manager(make_manager):
    return make_manager()


@pytest.fixture
def archive(tmp_path):
    """Write a model folder to the store; returns its name."""

    def archive(name="digits", version="1.0", handler="echo.py", config=None):
        folder = tmp_path / "store" / f"{name}-{version}-{handler}"
        (folder / "MAR-INF").mkdir(parents=True)
        model = {"modelName": name, "modelVersion": version, "handler": handler}
        if config:
            (folder / "model-config.yaml").write_text(config)
            model["configFile"] = "model-config.yaml"
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"runtime": "python", "model": model}))
        return folder.name

    return archive


# --- register


def test_register(manager, archive):
    """An archive is registered → its workers are ready, and it is looked up by the manifest's name and version."""
    version = manager.register(Registration(archive(version="2.0"), workers=2))
    assert (version.name, version.version, version.pool.state) == ("digits", "2.0", State.ACTIVE)
    assert len(version.pool.records()) == 2
    assert manager.registry.get("digits") is version


def test_other_name_and_handler(manager, archive):
    """The caller gives another name and handler → they go before the manifest's."""
    version = manager.register(Registration(archive(handler="broken.py"), model_name="other.one", handler="echo.py"))
    assert (version.name, version.pool.spec.handler) == ("other.one", "echo.py")


def test_settings(manager, archive):
    """Settings come from caller, archive and defaults → in this order, each by itself."""
    name = archive(config="batchSize: 4\nmaxBatchDelay: 20\nresponseTimeout: 7\nminWorkers: 2\n")
    version = manager.register(Registration(name, batch_size=8, max_queue_size=5))
    assert version.settings == ModelSettings(8, 0.02, 7, 120.0, 5)
    assert version.pool.target == 2


def test_servers_defaults(make_manager, archive):
    """The server has defaults for a version and for all → they come after the archive's, the version's first."""
    defaults = Defaults(
        GivenSettings(batch_size=2, max_queue_size=20, response_timeout_seconds=5.0),
        {("digits", "1.0"): GivenSettings(batch_size=3, max_queue_size=30, workers=2, max_workers=3)},
    )
    manager = make_manager(defaults=defaults)
    name = archive(config="maxBatchDelay: 20\nbatchSize: 4\n")
    version = manager.register(Registration(name))
    assert version.settings == ModelSettings(4, 0.02, 5.0, 120.0, 30)
    assert (version.autoscaler.min_workers, version.autoscaler.max_workers) == (2, 3)


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
def test_bounds_of_workers(manager, archive, config, given, expected):
    """Caller and archive say how many workers at least and at most → who says the least says the most; a caller's most bounds all."""
    version = manager.register(Registration(archive(config=config), **given))
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
def test_number_of_workers(make_manager, archive, gpus, default_workers, config, given, expected):
    """How many workers start → the caller's number, else the archive's, else the server's, else one per GPU, at least one."""
    manager = make_manager(gpus=gpus, default_workers=default_workers)
    assert manager.register(Registration(archive(config=config), workers=given)).pool.target == expected


def test_without_waiting(make_manager, archive):
    """The caller does not wait → it returns while the version loads."""
    engine = FakeEngine()
    version = make_manager(engine).register(Registration(archive(), wait=False))
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
        ("response_timeout_seconds", 0, "settings.response_timeout must be 0.001 to 86400, not 0"),
        ("startup_timeout_seconds", float("nan"), "settings.startup_timeout must be 0.001 to 86400, not nan"),
        ("max_queue_size", 0, "settings.max_queue_size must be 1 to "),
    ],
)
def test_numbers_out_of_range(manager, archive, field, value, problem):
    """A number is out of its range → InvalidInput naming the field."""
    with pytest.raises(InvalidInput, match=problem):
        manager.register(Registration(archive(), **{field: value}))


@pytest.mark.parametrize("name", ["a b", "../up", "-x", "ä", ".hidden", "x/y"])
def test_bad_name(manager, archive, name):
    """The name has characters that names may not have → InvalidInput, and nothing is registered."""
    with pytest.raises(InvalidInput, match="is no model name; give model_name with letters") as refused:
        manager.register(Registration(archive(), model_name=name))
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


def test_twice(manager, archive):
    """A version is registered already → VersionExists, and the first serves on."""
    name = archive()
    first = manager.register(Registration(name))
    with pytest.raises(VersionExists, match=r'Model "digits" version 1\.0 is registered already'):
        manager.register(Registration(name))
    assert manager.registry.get("digits") is first


def test_load_failure(manager, archive):
    """The handler cannot load → ModelLoadFailed with the cause, and the version stays as FAILED."""
    with pytest.raises(ModelLoadFailed, match=r'Model "digits" version 1\.0 failed to load: broken\.py, line 2: bad') as refused:
        manager.register(Registration(archive(handler="broken.py")))
    assert refused.value.metadata["cause"] == "broken.py, line 2: bad"
    assert manager.registry.get("digits").pool.state is State.FAILED


def test_register_again_after_a_failure(manager, archive):
    """A version has failed and is registered again → the new one takes its place."""
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(archive(handler="broken.py")))
    failed = manager.registry.get("digits")
    version = manager.register(Registration(archive()))
    assert manager.registry.get("digits") is version
    assert failed.pool.state is State.UNLOADED


# --- unregister, scale, default


def test_unregister(manager, archive):
    """A model is unregistered → it is gone, and its workers have ended."""
    version = manager.register(Registration(archive()))
    manager.unregister("digits")
    assert version.pool.state is State.UNLOADED
    with pytest.raises(ModelNotFound):
        manager.unregister("digits")


def test_unregister_one_version(manager, archive):
    """One of two versions is unregistered → the default one refuses, the other goes."""
    manager.register(Registration(archive()))
    manager.register(Registration(archive(version="2.0")))
    with pytest.raises(DefaultVersion, match=r"Version 1\.0 is the default .* set another default first"):
        manager.unregister("digits", "1.0")
    manager.unregister("digits", "2.0")
    with pytest.raises(VersionNotFound):
        manager.registry.get("digits", "2.0")
    manager.unregister("digits", "1.0")
    assert manager.registry.models() == []


def test_unregister_all_versions(manager, archive):
    """A model is unregistered without a version → all its versions go."""
    versions = [manager.register(Registration(archive(version=number))) for number in ("1.0", "2.0")]
    manager.unregister("digits")
    assert [version.pool.state for version in versions] == [State.UNLOADED] * 2


def test_unregister_waits_for_requests(make_manager, archive):
    """A worker still computes → unregister without waiting returns, and the version drains."""
    engine = FakeEngine()
    manager = make_manager(engine)
    version = manager.register(Registration(archive(), wait=False))
    manager.unregister("digits", wait=False)
    assert (version.pool.state, manager.registry.models()) == (State.DRAINING, [])
    engine.workers[0].exit()
    assert version.pool.state is State.UNLOADED


def packed(folder):
    """Pack a folder as a .mar file; returns its path."""
    return shutil.move(shutil.make_archive(str(folder), "zip", folder), folder.with_suffix(".mar"))


def test_unpacked_files_go(manager, archive, tmp_path):
    """An archive file was unpacked and is unregistered → its files are gone."""
    version = manager.register(Registration(packed(tmp_path / "store" / archive())))
    assert version.archive.folder.is_dir()
    manager.unregister("digits")
    assert not version.archive.folder.exists()


def test_unpacked_files_of_what_cannot_be_loaded_go(make_manager, archive, tmp_path):
    """An archive file was unpacked and its handler cannot be loaded → its files go with the last worker that loads."""
    engine = FakeEngine()
    version = make_manager(engine).register(Registration(packed(tmp_path / "store" / archive()), workers=2, wait=False))
    engine.workers[0].exit("exit code 3", "broken.py, line 2: bad")
    assert version.pool.state is State.FAILED
    assert version.archive.folder.is_dir()
    engine.workers[1].exit()
    assert not version.archive.folder.exists()


def test_unpacked_files_of_what_is_tried_again_stay(make_manager, archive, tmp_path):
    """An archive file was unpacked, its worker was ready and ended too often → FAILED, and its files stay for the next worker."""
    engine = FakeEngine()
    path = packed(tmp_path / "store" / archive(config="maxRetryTimeoutInSec: 0"))
    version = make_manager(engine).register(Registration(path, workers=1, wait=False))
    engine.workers[0].become_ready()
    engine.workers[0].exit("exit code 1")
    assert version.pool.state is State.FAILED
    assert version.archive.folder.is_dir()


def test_scale(manager, archive):
    """The number of workers is changed → it returns when there are as many."""
    manager.register(Registration(archive()))
    assert len(manager.scale("digits", "", 3).pool.records()) == 3
    assert len(manager.scale("digits", "1.0", 0).pool.records()) == 0


def test_scale_between(manager, archive):
    """Bounds are given → the least are there when it returns; the most must not be less."""
    version = manager.register(Registration(archive()))
    manager.scale("digits", "", 2, max_workers=4)
    assert (len(version.pool.records()), version.autoscaler.max_workers) == (2, 4)
    with pytest.raises(InvalidInput, match=r"max_workers must not be less than workers \(3\), and is 2"):
        manager.scale("digits", "", 3, max_workers=2)


@pytest.mark.parametrize("workers", [-1, 1025])
def test_scale_out_of_range(manager, archive, workers):
    """The number is out of range → InvalidInput naming the field."""
    manager.register(Registration(archive()))
    with pytest.raises(InvalidInput, match="workers must be 0 to 1024"):
        manager.scale("digits", "", workers)


def test_scale_failed(manager, archive):
    """A failed version is scaled → ModelLoadFailed with its cause."""
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(archive(handler="broken.py")))
    with pytest.raises(ModelLoadFailed, match="line 2: bad"):
        manager.scale("digits", "", 2)


def test_set_default(manager, archive):
    """Another version is made the default → it is; an unknown one is refused."""
    for number in ("1.0", "2.0"):
        manager.register(Registration(archive(version=number)))
    manager.set_default("digits", "2.0")
    assert manager.registry.get("digits").version == "2.0"
    with pytest.raises(VersionNotFound):
        manager.set_default("digits", "3.0")


# --- state


@pytest.fixture
def restart(make_manager, tmp_path):
    """Make a manager with the state of the one before, whose process is as good as killed."""
    stores = []

    def restart():
        for store in stores:
            store.close()
        stores.append(StateStore(tmp_path / "state"))
        return make_manager(state=stores[-1])

    return restart


def shown(manager):
    return [(model.name, list(model.versions), model.default_version) for model in manager.registry.models()]


def test_restore(restart, archive):
    """Models were registered, scaled, made the default, unregistered → after a restart it is as it was."""
    manager = restart()
    for number in ("2.0", "1.0", "3.0"):
        manager.register(Registration(archive(version=number), batch_size=4))
    manager.register(Registration(archive(name="gone")))
    manager.scale("digits", "1.0", 3, max_workers=5)
    manager.set_default("digits", "1.0")
    manager.unregister("digits", "3.0")
    manager.unregister("gone")
    manager = restart()
    assert [version.version for version in manager.restore()] == ["2.0", "1.0"]
    assert shown(manager) == [("digits", ["2.0", "1.0"], "1.0")]
    version = manager.registry.get("digits")
    assert (version.pool.state, len(version.pool.records()), version.autoscaler.max_workers) == (State.ACTIVE, 3, 5)
    assert version.settings.batch_size == 4


def test_failed_registration_is_not_saved(restart, archive):
    """A registration fails → after a restart it is not there."""
    manager = restart()
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(archive(handler="broken.py")))
    assert restart().restore() == []


def test_registration_that_went_on_is_saved(restart, archive):
    """A caller did not wait and was told so → after a restart it is registered again."""
    restart().register(Registration(archive(), wait=False))
    assert [version.name for version in restart().restore()] == ["digits"]


def test_registration_cut_off_by_the_end(restart, archive, make_manager, tmp_path):
    """The server stops while a model loads → the caller is told that it is not loaded, and after a restart it is not there."""
    state, engine = StateStore(tmp_path / "state"), FakeEngine()
    manager = make_manager(engine, state=state)

    def register():
        with pytest.raises(ModelLoadFailed, match="it was unloaded while it loaded"):
            manager.register(Registration(archive()))

    caller = threading.Thread(target=register)
    caller.start()
    engine.wait_started(1)
    manager.drain(0.0)
    engine.workers[0].exit()
    caller.join()
    state.close()
    assert restart().restore() == []


def test_archive_is_gone(restart, archive, tmp_path, capsys):
    """An archive has vanished → the log says which, the others are there; it comes back with its archive, until it is unregistered."""
    manager = restart()
    for name in ("first", "second"):
        manager.register(Registration(archive(name=name)))
    (tmp_path / "store" / "first-1.0-echo.py").rename(tmp_path / "first")
    manager = restart()
    assert [version.name for version in manager.restore()] == ["second"]
    assert "model=first version=1.0" in capsys.readouterr().out
    (tmp_path / "first").rename(tmp_path / "store" / "first-1.0-echo.py")
    manager = restart()
    assert [version.name for version in manager.restore()] == ["first", "second"]
    (tmp_path / "store" / "first-1.0-echo.py").rename(tmp_path / "first")
    manager = restart()
    manager.restore()
    manager.unregister("first")
    with pytest.raises(ModelNotFound):
        manager.unregister("first")


def test_archive_has_another_version_now(restart, archive, tmp_path):
    """The archive was replaced by one of another version → that one is registered, and the old one is forgotten."""
    manager = restart()
    manager.register(Registration(archive()))
    manifest = tmp_path / "store" / "digits-1.0-echo.py" / "MAR-INF" / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace("1.0", "7.0"))
    restart().restore()
    manager = restart()
    manager.restore()
    assert shown(manager) == [("digits", ["7.0"], "7.0")]


def test_state_cannot_be_saved(restart, archive):
    """The disk is full → each change is refused, and leaves what was there."""
    manager = restart()
    manager.register(Registration(archive()))
    manager.register(Registration(archive(version="2.0")))
    manager._state.close()
    for change in (
        lambda: manager.register(Registration(archive(name="new"))),
        lambda: manager.scale("digits", "", 2),
        lambda: manager.set_default("digits", "2.0"),
        lambda: manager.unregister("digits"),
    ):
        with pytest.raises(ServerError, match="cannot be saved"):
            change()
    assert shown(manager) == [("digits", ["1.0", "2.0"], "1.0")]
    assert manager.registry.get("digits").pool.target == 1


# --- listeners and the end


def drain(changes):
    seen = []
    while not changes.empty():
        change = changes.get()
        seen.append((change.state, change.ready_workers, change.target_workers))
    return seen


def test_listen(make_manager, archive):
    """A listener is there → it hears of each change once, in order, until it leaves."""
    engine = FakeEngine()
    manager = make_manager(engine)
    changes, stop = subscribe(manager)
    manager.register(Registration(archive(), wait=False))
    engine.workers[0].become_ready()
    manager.unregister("digits", wait=False)
    engine.workers[0].exit()
    assert drain(changes) == [(State.LOADING, 0, 1), (State.ACTIVE, 1, 1), (State.DRAINING, 0, 0), (State.UNLOADED, 0, 0)]
    stop()
    manager.register(Registration(archive(version="2.0"), wait=False))
    assert drain(changes) == []


def test_listen_late(manager, archive):
    """A listener comes late → it hears the present state of every version first."""
    manager.register(Registration(archive()))
    manager.register(Registration(archive(name="other"), workers=0))
    changes, _ = subscribe(manager)
    assert drain(changes) == [(State.ACTIVE, 1, 1), (State.ACTIVE, 0, 0)]


def test_listen_to_a_failure(manager, archive):
    """A version fails → the change has its cause."""
    changes = []
    manager.listen(changes.append)
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(archive(handler="broken.py")))
    assert changes[-1].state is State.FAILED
    assert changes[-1].cause == "broken.py, line 2: bad"


def test_close(make_manager, archive):
    """The server ends and all is finished → True, and every version is unloaded."""
    manager = make_manager()
    version = manager.register(Registration(archive(), workers=2))
    assert manager.close(SECONDS)
    assert version.pool.state is State.UNLOADED


def test_close_without_grace(make_manager, archive):
    """The server ends and a worker does not → it is killed after the grace, and False is returned."""
    engine = FakeEngine()
    manager = make_manager(engine)
    version = manager.register(Registration(archive(), wait=False))
    assert not manager.close(0.0)
    assert engine.workers[0].killed == "the server was stopped"
    assert version.pool.state is State.UNLOADED


@pytest.mark.slow
def test_listener_ends_with_the_present_state(make_manager, archive):
    """Changes come from several threads at once → the last one that a listener hears is the present state."""
    engine, told, wrong = FakeEngine(), [], []
    manager = make_manager(engine)
    manager.listen(told.append)
    pool = manager.register(Registration(archive(), workers=4, wait=False)).pool
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(100):
            threads = [threading.Thread(target=worker.become_ready) for worker in engine.live]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if (told[-1].state, told[-1].ready_workers) != (State.ACTIVE, 4):
                wrong.append((number, told[-1]))
            pool.scale(0)
            for worker in engine.live:
                worker.exit()
            pool.scale(4)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
