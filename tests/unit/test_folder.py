"""A server's folder for unpacked archives, and those that others have left behind."""

import subprocess
import sys

import pytest

from servegrpc.frontend.folder import OwnFolder

OTHER = """
import sys
from pathlib import Path
from servegrpc.frontend.folder import OwnFolder
folder = OwnFolder(Path(sys.argv[1]))
(folder.path / "weights.pt").write_bytes(b"x")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path):
    return tmp_path / "below" / "root"


@pytest.fixture
def own(root):
    folder = OwnFolder(root)
    yield folder
    folder.remove()


def test_new(root, own):
    """A folder is made → it is empty, below the root, and for nobody else."""
    assert own.path.parent == root
    assert list(own.path.iterdir()) == []
    assert {path.stat().st_mode & 0o777 for path in (root, own.path)} == {0o700}


def test_remove(root):
    """A folder is removed → all in it goes too."""
    folder = OwnFolder(root)
    (folder.path / "model").mkdir()
    (folder.path / "model" / "weights.pt").write_bytes(b"x")
    folder.remove()
    assert list(root.iterdir()) == []


def test_two_servers(root, own):
    """Another server is there → its folder stays."""
    second = OwnFolder(root)
    assert {own.path, second.path} == set(root.iterdir())
    second.remove()
    assert set(root.iterdir()) == {own.path}


def test_left_behind(root):
    """A folder that nobody holds is there, and a file → the folder goes, the file stays."""
    (root / "left" / "model").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    folder = OwnFolder(root)
    assert set(root.iterdir()) == {folder.path, root / "file"}
    folder.remove()


@pytest.mark.slow
def test_killed_server(root):
    """Another process lives, and is then killed → its folder stays, and is then removed by the next one."""
    with subprocess.Popen([sys.executable, "-c", OTHER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        left = root / other.stdout.readline().strip().rpartition("/")[2]
        OwnFolder(root).remove()
        assert (left / "weights.pt").exists()
        other.kill()
        other.wait()
    OwnFolder(root).remove()
    assert list(root.iterdir()) == []
