"""Installing what an archive asks for: pip itself, on wheels in a folder."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import pytest
from wheels import write_wheel

from servegrpc.core.requirements import LOADED, PackageCache
from servegrpc.errors import RequirementsFailed

OFFLINE = "--no-index\n--find-links wheels\n"


@pytest.fixture
def cache(tmp_path):
    cache = PackageCache(tmp_path / "packages")
    yield cache
    cache.close()


@pytest.fixture
def archive(tmp_path):
    """The folder of an archive that brings its own wheels."""
    folder = tmp_path / "archive"
    write_wheel(folder / "wheels", "tinypack")
    return folder


def write(folder, *lines):
    path = folder / "requirements.txt"
    path.write_text(OFFLINE + "\n".join(lines) + "\n")
    return path


def installed(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".py")


@pytest.mark.slow
def test_installed_once(cache, archive, tmp_path):
    """A list of requirements, and the same again → a folder with the module, made once."""
    folder = cache.install(write(archive, "tinypack"), label="m")
    assert installed(folder) == ["tinypack.py"]
    made = folder.stat().st_ctime_ns
    assert PackageCache(tmp_path / "packages").install(write(archive, "tinypack"), label="other") == folder
    assert folder.stat().st_ctime_ns == made


@pytest.mark.slow
def test_other_content(cache, archive):
    """The same text and another wheel of the name beside it → installed anew."""
    first = cache.install(write(archive, "tinypack"), label="m")
    write_wheel(archive / "wheels", "tinypack", code="VERSION = 'changed'\n")
    assert cache.install(write(archive, "tinypack"), label="m") != first


@pytest.mark.slow
def test_what_the_server_has(cache, archive):
    """Packages that the server's environment has → neither installed nor looked for again."""
    folder = cache.install(write(archive, "tinypack", "torch", "numpy>=1", "pytest"), label="m")
    assert installed(folder) == ["tinypack.py"]
    assert not (folder / "torch").exists()


@pytest.mark.slow
def test_other_version_of_what_the_server_has(cache, archive):
    """A version of a package that the server has in another and does not run on → the model's own copy; the server's stays."""
    before = metadata.version("pytest")
    write_wheel(archive / "wheels", "pytest", "0.1")
    folder = cache.install(write(archive, "pytest==0.1"), label="m")
    assert (folder / "pytest-0.1.dist-info").is_dir()
    seen = subprocess.run([sys.executable, "-c", "import pytest; print(pytest.__version__)"], capture_output=True, text=True, check=True)
    assert (seen.stdout.strip(), metadata.version("pytest")) == (before, before)


@pytest.mark.slow
def test_other_version_of_what_workers_do_not_load(cache, archive):
    """A version of a package that the server alone runs on, in a worker never loaded → the model's own copy."""
    write_wheel(archive / "wheels", "pydantic", "1.0")
    folder = cache.install(write(archive, "pydantic==1.0"), label="m")
    assert (folder / "pydantic-1.0.dist-info").is_dir()


@pytest.mark.slow
def test_other_version_of_what_workers_load(cache, archive):
    """A version of a package that every worker has loaded in another → refused: it would not be the one that is imported."""
    write_wheel(archive / "wheels", "tqdm", "1.0")
    with pytest.raises(RequirementsFailed, match=r"user requested tqdm==1\.0"):
        cache.install(write(archive, "tqdm==1.0"), label="m")


LOADED_FILES = """
import sys
from servegrpc.worker.forkserver import preload

preload()
print(*(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)), sep="\\n")
"""


@pytest.mark.slow
def test_loaded_packages():
    """What the fork server has imported, by the files of each package → the list of what cannot be had in another version."""
    files = set(subprocess.run([sys.executable, "-P", "-c", LOADED_FILES], capture_output=True, text=True, check=True).stdout.splitlines())
    found = {
        re.sub(r"[-_.]+", "-", package.name).lower()
        for package in metadata.distributions()
        if any(str(package.locate_file(file)) in files for file in package.files or ())
    }
    by_site = {"setuptools"}  # its hook, which Python's start-up imports
    assert found - by_site | {"servegrpc"} == set(LOADED)


@pytest.mark.slow
def test_second_torch(cache, archive):
    """A package that needs another torch than the server's → refused, although there is one."""
    write_wheel(archive / "wheels", "torch", "1.0")
    write_wheel(archive / "wheels", "needy", requires=["torch==1.0"])
    with pytest.raises(RequirementsFailed, match=r"needy 1\.0 depends on torch==1\.0"):
        cache.install(write(archive, "needy"), label="m")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "words"),
    [("nothing-of-that-name", "No matching distribution found for nothing-of-that-name"), ("=broken=", "Invalid requirement")],
    ids=["missing", "no requirement"],
)
def test_failure(line, words, cache, archive, tmp_path):
    """Requirements that cannot be met → pip's last words without paths of this machine, and nothing left."""
    with pytest.raises(RequirementsFailed, match=words) as caught:
        cache.install(write(archive, line), label='Model "m" version 1.0')
    assert caught.value.message.startswith('Model "m" version 1.0: its requirements could not be installed: ')
    assert str(tmp_path) not in caught.value.message
    assert [path.suffix for path in (tmp_path / "packages").iterdir()] == [".lock"]
    write_wheel(archive / "wheels", "tinypack")
    assert installed(cache.install(write(archive, "tinypack"), label="m")) == ["tinypack.py"]


@pytest.mark.slow
def test_at_the_same_time(archive, tmp_path):
    """Two servers that install the same list at once → one folder, whole for both."""
    caches = [PackageCache(tmp_path / "packages") for _ in range(2)]
    path = write(archive, "tinypack")
    with ThreadPoolExecutor(2) as threads:
        folders = list(threads.map(lambda cache: cache.install(path, label="m"), caches))
    assert folders[0] == folders[1]
    assert installed(folders[0]) == ["tinypack.py"]
    assert sorted(path.suffix for path in (tmp_path / "packages").iterdir()) == ["", ".lock"]


@pytest.mark.slow
def test_left_by_a_killed_server(cache, archive, tmp_path):
    """Half an installation that a killed server left → made anew."""
    folder = cache.install(write(archive, "tinypack"), label="m")
    environment = next(path for path in (tmp_path / "packages").iterdir() if path.is_dir())
    (folder / "tinypack.py").unlink()
    environment.rename(environment.with_suffix(".part"))
    assert installed(cache.install(write(archive, "tinypack"), label="m")) == ["tinypack.py"]


@pytest.mark.slow
def test_closed_while_installing(archive, tmp_path):
    """A server that is told to stop while pip works → pip and what it started are ended, and the call fails at once."""
    gate, cache = tmp_path / "gate", PackageCache(tmp_path / "packages")
    os.mkfifo(gate)
    source = archive / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')
    (source / "backend.py").write_text(f"open({str(gate)!r}).read()\n")

    def close_when_building():
        with gate.open("w"):  # returns when the backend has opened it too
            cache.close()

    closed = threading.Thread(target=close_when_building, daemon=True)
    closed.start()
    with pytest.raises(RequirementsFailed, match="the server is stopping"):
        cache.install(write(archive, "./source"), label="m")
    closed.join()
    with pytest.raises(RequirementsFailed, match="the server is stopping"):
        cache.install(write(archive, "tinypack"), label="m")


def test_no_room(archive, tmp_path):
    """A folder that cannot be made → RequirementsFailed saying why, without its path."""
    (tmp_path / "packages").write_text("in the way")
    with pytest.raises(RequirementsFailed, match=r"File exists") as caught:
        PackageCache(tmp_path / "packages").install(write(archive, "tinypack"), label="m")
    assert str(tmp_path) not in caught.value.message
