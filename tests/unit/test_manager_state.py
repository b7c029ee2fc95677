"""What a manager keeps on the disk, and what it makes of it at the next start; with the fake engine and real archives."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import SECONDS, FakeEngine

from servegrpc.core.model import State
from servegrpc.core.registration import Registration
from servegrpc.core.state import StateStore
from servegrpc.errors import ModelLoadFailed, ModelNotFound, ServerError


@pytest.fixture
def restart(make_manager, tmp_path):
    """Make a manager with the state of the one before, whose process is as good as killed."""
    stores = []

    def restart(engine=None):
        for store in stores:
            store.close()
        stores.append(StateStore(tmp_path / "state"))
        return make_manager(engine, state=stores[-1])

    return restart


def shown(manager):
    return [(model.name, list(model.versions), model.default_version) for model in manager.registry.models()]


def test_restore(restart, stored):
    """Models were registered, scaled, made the default, unregistered → after a restart it is as it was."""
    manager = restart()
    for number in ("2.0", "1.0", "3.0"):
        manager.register(Registration(stored(version=number), batch_size=4))
    manager.register(Registration(stored(name="gone")))
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


def test_failed_registration_is_not_saved(restart, stored):
    """A registration fails → after a restart it is not there."""
    manager = restart()
    with pytest.raises(ModelLoadFailed):
        manager.register(Registration(stored(handler="broken.py")))
    assert restart().restore() == []


def test_registration_that_went_on_is_saved(restart, stored):
    """A caller did not wait and was told so → after a restart it is registered again."""
    restart().register(Registration(stored(), wait=False))
    assert [version.name for version in restart().restore()] == ["digits"]


def test_registration_cut_off_by_the_end(restart, stored, make_manager, tmp_path):
    """The server stops while a model loads → the caller is told so, and after a restart it is not there."""
    state, engine = StateStore(tmp_path / "state"), FakeEngine()
    manager = make_manager(engine, state=state)
    with ThreadPoolExecutor() as threads:
        registering = threads.submit(manager.register, Registration(stored()))
        engine.wait_started(1)
        manager.drain(0.0)
        engine.workers[0].exit()
    with pytest.raises(ModelLoadFailed, match="it was unloaded while it loaded"):
        registering.result()
    state.close()
    assert restart().restore() == []


@pytest.fixture
def loading(restart, stored):
    """A manager with a version 1.0, and a call that registers 2.0 and waits for its worker, which is not ready; `load` makes it so."""
    engine = FakeEngine()
    manager = restart(engine)
    manager.register(Registration(stored(), wait=False))
    caller = threading.Thread(target=manager.register, args=(Registration(stored(version="2.0")),))
    caller.start()
    engine.wait_started(2)

    def load():
        for worker in engine.live:
            worker.become_ready()
        caller.join()

    yield manager, load
    assert not caller.is_alive()


def test_scaled_while_it_loads(loading, restart):
    """A version is scaled while its registration waits → after a restart it has as many workers."""
    manager, load = loading
    manager.scale("digits", "2.0", 3, max_workers=5, wait=False)
    load()
    manager = restart()
    manager.restore()
    scaler = manager.registry.get("digits", "2.0").autoscaler
    assert (scaler.min_workers, scaler.max_workers) == (3, 5)


def test_made_the_default_while_it_loads(loading, restart):
    """A version is made the default while its registration waits → after a restart it is."""
    manager, load = loading
    manager.set_default("digits", "2.0")
    load()
    manager = restart()
    manager.restore()
    assert shown(manager) == [("digits", ["1.0", "2.0"], "2.0")]


def test_the_first_is_loaded_last(restart, stored):
    """Of two versions the one registered first loads last → it is the default, after a restart too."""
    engine = FakeEngine()
    manager = restart(engine)
    caller = threading.Thread(target=manager.register, args=(Registration(stored()),))
    caller.start()
    engine.wait_started(1)
    manager.register(Registration(stored(version="2.0"), wait=False))
    engine.workers[0].become_ready()
    caller.join()
    assert manager.registry.model("digits").default_version == "1.0"
    manager = restart()
    manager.restore()
    assert manager.registry.model("digits").default_version == "1.0"


def test_failed_default_is_removed(restart, stored):
    """The default version fails to load, and is removed while another is there → after a restart that one is there, as the default."""
    manager = restart()
    manager.register(Registration(stored(handler="broken.py"), wait=False))
    manager.register(Registration(stored(version="2.0")))
    pool = manager.registry.get("digits").pool
    assert pool.wait(lambda: pool.state is State.FAILED, SECONDS)
    manager.remove_failed("digits", "1.0")
    manager = restart()
    manager.restore()
    assert shown(manager) == [("digits", ["2.0"], "2.0")]


def test_default_is_gone_for_a_while(restart, stored, tmp_path):
    """The default version's archive is not there at one start → at the next, when it is, it is the default again."""
    manager = restart()
    for number in ("1.0", "2.0"):
        manager.register(Registration(stored(version=number)))
    (tmp_path / "store" / "digits-1.0-echo.py").rename(tmp_path / "away")
    manager = restart()
    manager.restore()
    assert shown(manager) == [("digits", ["2.0"], "2.0")]
    (tmp_path / "away").rename(tmp_path / "store" / "digits-1.0-echo.py")
    manager = restart()
    manager.restore()
    assert shown(manager) == [("digits", ["1.0", "2.0"], "1.0")]


def test_archive_is_gone(restart, stored, tmp_path, capsys):
    """An archive has vanished → the log says which, the others are there; it comes back with its archive, until it is unregistered."""
    manager = restart()
    for name in ("first", "second"):
        manager.register(Registration(stored(name=name)))
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


def test_archive_has_another_version_now(restart, stored, tmp_path):
    """The archive was replaced by one of another version → that one is registered, and the old one is forgotten."""
    manager = restart()
    manager.register(Registration(stored()))
    manifest = tmp_path / "store" / "digits-1.0-echo.py" / "MAR-INF" / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace("1.0", "7.0"))
    restart().restore()
    manager = restart()
    manager.restore()
    assert shown(manager) == [("digits", ["7.0"], "7.0")]


def test_state_cannot_be_saved(restart, stored):
    """The disk is full → each change is refused, and leaves what was there."""
    manager = restart()
    manager.register(Registration(stored()))
    manager.register(Registration(stored(version="2.0")))
    manager._state.close()
    for change in (
        lambda: manager.register(Registration(stored(name="new"))),
        lambda: manager.scale("digits", "", 2),
        lambda: manager.set_default("digits", "2.0"),
        lambda: manager.unregister("digits"),
    ):
        with pytest.raises(ServerError, match="cannot be saved"):
            change()
    assert shown(manager) == [("digits", ["1.0", "2.0"], "1.0")]
    assert manager.registry.get("digits").pool.target == 1
