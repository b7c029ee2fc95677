"""What is registered, kept in a file."""

import sqlite3
from random import Random

import pytest

from servegrpc.core.registration import Registration
from servegrpc.core.state import FILE_NAME, StateStore
from servegrpc.errors import ServerError


@pytest.fixture
def open_store(tmp_path):
    """Open stores of the folder `state`; all are closed after the test."""
    stores = []

    def open_store():
        stores.append(StateStore(tmp_path / "state"))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def reopen(store, open_store):
    """Close the store and open it again, as a restart does; returns what is in it."""

    def reopen():
        store.close()
        return open_store().versions()

    return reopen


def shown(versions):
    return [(saved.name, saved.version, saved.is_default) for saved in versions]


def test_put(store, reopen):
    """Versions are saved → after a restart they are there, in order, with the default that was told last."""
    registration = Registration("b.mar", handler="h.py", fallback_workers=0, max_workers=3, max_batch_delay_seconds=0.5, max_queue_size=7)
    for name, version, one in (("b", "1.0", registration), ("a", "1.0", Registration("a.mar")), ("b", "2.0", Registration("b2.mar"))):
        store.put(name, version, one, default_version="1.0")
    versions = reopen()
    assert shown(versions) == [("b", "1.0", True), ("a", "1.0", True), ("b", "2.0", False)]
    assert versions[0].registration == registration


def test_put_again(store, reopen):
    """A version is saved again → it is replaced, keeping its place and whether it is the default."""
    for archive in ("a.mar", "new.mar"):
        store.put("a", "1.0", Registration(archive), default_version="1.0")
        store.put("a", "2.0", Registration("two.mar"), default_version="1.0")
    versions = reopen()
    assert [saved.registration.archive for saved in versions] == ["new.mar", "two.mar"]
    assert shown(versions)[0] == ("a", "1.0", True)


def test_scale(store, reopen):
    """A version is scaled → its number of workers is saved, the others' stay, and one that is gone does not come back."""
    store.put("a", "1.0", Registration("a.mar", workers=1), default_version="1.0")
    store.put("a", "2.0", Registration("b.mar"), default_version="1.0")
    store.scale("a", "1.0", 3, 5)
    store.scale("gone", "1.0", 3, 5)
    assert [(v.registration.workers, v.registration.max_workers) for v in reopen()] == [(3, 5), (None, None)]


def test_set_default(store, reopen):
    """Another version becomes the default → that one alone is."""
    for version in ("1.0", "2.0"):
        store.put("a", version, Registration("a.mar"), default_version="1.0")
    store.set_default("a", "2.0")
    assert shown(reopen()) == [("a", "1.0", False), ("a", "2.0", True)]


@pytest.mark.parametrize(("version", "left"), [("2.0", ["1.0"]), ("", [])])
def test_remove(store, reopen, version, left):
    """One version, or all of a model, is removed → it is not there after a restart."""
    for number in ("1.0", "2.0"):
        store.put("a", number, Registration("a.mar"), default_version="1.0")
    assert store.remove("a", version)
    assert not store.remove("other")
    assert [saved.version for saved in reopen()] == left


def test_damaged_file(store, open_store, tmp_path, capsys):
    """The file is no database → it is set aside under another name, the log says so, and a new one is used."""
    store.close()
    file = tmp_path / "state" / FILE_NAME
    for number in (1, 2):
        file.write_bytes(b"not a database, " * 100)
        store = open_store()
        assert store.versions() == []
        store.put("a", "1.0", Registration("a.mar"), default_version="1.0")
        store.close()
        assert (tmp_path / "state" / f"{FILE_NAME}.damaged-{number}").read_bytes().startswith(b"not a database")
    assert "state file is damaged" in capsys.readouterr().out
    assert shown(open_store().versions()) == [("a", "1.0", True)]


def test_bytes_that_flip(store, open_store, tmp_path):
    """Any bytes of the file are damaged → it opens all the same: with what can be read, or set aside."""
    for number in range(30):
        store.put(f"m{number}", "1.0", Registration("a.mar", workers=number), default_version="1.0")
    store.close()
    file, random = tmp_path / "state" / FILE_NAME, Random(7)
    whole = file.read_bytes()
    for flips in (1, 1, 1, 1, 5, 50) * 10:
        damaged = bytearray(whole)
        for _ in range(flips):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        file.write_bytes(damaged)
        store = open_store()
        assert len(store.versions()) <= 30
        store.close()


def test_cut_off_file(store, open_store, tmp_path):
    """The file ends in its middle → it is set aside."""
    for number in range(200):
        store.put("a", str(number), Registration("a.mar" * 100), default_version="1.0")
    store.close()
    file = tmp_path / "state" / FILE_NAME
    file.write_bytes(file.read_bytes()[:20_000])
    assert open_store().versions() == []
    assert (tmp_path / "state" / f"{FILE_NAME}.damaged-1").stat().st_size == 20_000


def test_file_of_a_newer_version(store, open_store, tmp_path):
    """The file has a format that is not known → it is set aside, not overwritten."""
    store.close()
    with sqlite3.connect(tmp_path / "state" / FILE_NAME) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    assert open_store().versions() == []
    assert (tmp_path / "state" / f"{FILE_NAME}.damaged-1").exists()


@pytest.mark.parametrize(
    "registration", ["no JSON", "[]", "{}", '{"archive": 3}', '{"archive": "a.mar", "workers": -1}', '{"archive": "a.mar", "workers": "1"}']
)
def test_damaged_entry(store, open_store, tmp_path, registration):
    """One entry cannot be read → it is left out, and the others are there."""
    for name in ("bad", "good"):
        store.put(name, "1.0", Registration("a.mar"), default_version="1.0")
    store.close()
    with sqlite3.connect(tmp_path / "state" / FILE_NAME) as database:
        database.execute("UPDATE versions SET registration = ? WHERE name = 'bad'", (registration,))
    database.close()
    assert shown(open_store().versions()) == [("good", "1.0", True)]


def test_two_servers(store, open_store):
    """Another server has the folder → the second is refused."""
    with pytest.raises(ServerError, match=r"--state-dir cannot be used: another server uses it\."):
        open_store()
    store.put("a", "1.0", Registration("a.mar"), default_version="1.0")


def test_folder_cannot_be_made(tmp_path):
    """The folder's name is that of a file → ServerError saying why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match="--state-dir cannot be used: "):
        StateStore(tmp_path / "file")


def test_full_disk(store, reopen):
    """The file cannot grow → the change is refused, and what was saved before is all there."""
    store.put("a", "1.0", Registration("a.mar"), default_version="1.0")
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ServerError, match=r"cannot be saved: database or disk is full\. Nothing was changed\."):
        store.put("b", "1.0", Registration("b" * 10_000), default_version="1.0")
    assert shown(reopen()) == [("a", "1.0", True)]
