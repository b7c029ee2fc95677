"""Archives that ask for Python packages, on a real server that installs them, and on one that does not."""

import os

import pytest
from servers import numbers
from wheels import write_wheel

from servegrpc.client import CallError
from servegrpc.core.archiver import ArchiveSpec, write_archive

HANDLER = """
import sys

import tinypack
import torch


def handle(data, context):
    if data is None:
        return None
    return [[tinypack.VERSION, "tinypack" in sys.modules["torch"].__path__[0]]] * len(data)
"""

STARTS_PYTHON = """
import subprocess
import sys


def handle(data, context):
    if data is None:
        return None
    code = "import handler, operators_own, tinypack; print(tinypack.VERSION, operators_own.WORD)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    return [done.stdout + done.stderr] * len(data)
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def needy(tmp_path):
    """Write an archive that needs `tinypack` and brings its wheel, or one whose requirements nobody can meet."""

    def write(line="tinypack", *, version="1.0", name=None, code=HANDLER):
        folder = tmp_path / f"source-{next(numbers)}"
        write_wheel(folder, "tinypack", version)
        (folder / "handler.py").write_text(code)
        (folder / "requirements.txt").write_text(f"--no-index\n--find-links .\n{line}\n")
        return write_archive(
            ArchiveSpec(
                name or f"needy-{next(numbers)}",
                str(folder / "handler.py"),
                "1.0",
                requirements_file=str(folder / "requirements.txt"),
                extra_files=str(folder / f"tinypack-{version}-py3-none-any.whl"),
                export_path=str(folder / "store"),
            )
        )

    return write


@pytest.fixture
def installing(start_server, tmp_path):
    return start_server("--install-requirements", "on", "--state-dir", tmp_path / "state")


def test_two_models_with_two_versions(installing, needy, tmp_path):
    """Two models that need different versions of a package → each has its own, and the server's torch."""
    with installing.client() as client:
        for version in ("1.0", "2.0"):
            client.register(str(needy(f"tinypack=={version}\ntorch", version=version, name=f"needs-{version}")), workers=1)
        assert client.predict("needs-1.0", "x").output == ["1.0", False]
        assert client.predict("needs-2.0", "x").output == ["2.0", False]
    assert installing.log.lines("requirements installed", "needs-1.0")
    assert installing.log.lines("installing requirements", "step='Installing collected packages: tinypack'")
    assert len([path for path in (tmp_path / "state" / "packages").iterdir() if path.is_dir()]) == 2


def test_python_started_by_a_handler(start_server, needy, tmp_path):
    """A handler starts Python elsewhere → it finds the archive's files, the model's packages and what the operator put on PYTHONPATH."""
    (tmp_path / "operators_own.py").write_text("WORD = 'there'\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    options = ("--install-requirements", "on", "--state-dir", tmp_path / "state")
    server = start_server(*options, needy(name="starts", code=STARTS_PYTHON), environment={"PYTHONPATH": path})
    with server.client() as client:
        assert client.predict("starts", "x").output == "1.0 there\n"


def test_after_a_restart(start_server, needy, tmp_path):
    """The next server with the same state → serves the model again, and installs nothing."""
    options = ("--install-requirements", "on", "--state-dir", tmp_path / "state")
    first = start_server(*options)
    with first.client() as client:
        client.register(str(needy(name="kept")), workers=1)
    first.stop()
    second = start_server(*options)
    with second.client() as client:
        assert client.predict("kept", "x").output == ["1.0", False]
    assert not second.log.lines("installing requirements")


def test_cannot_be_installed(installing, needy, tmp_path):
    """Requirements that nobody can meet → FAILED_PRECONDITION with pip's last words; nothing is registered, nothing stays."""
    archive = needy("nothing-of-that-name", name="unmet")
    with installing.client() as client:
        with pytest.raises(CallError, match="No matching distribution found for nothing-of-that-name") as caught:
            client.register(str(archive))
        assert (caught.value.code.name, caught.value.reason) == ("FAILED_PRECONDITION", "REQUIREMENTS_FAILED")
        assert caught.value.metadata["model_name"] == "unmet"
        assert "nothing-of-that-name" in caught.value.metadata["cause"]
        assert str(tmp_path) not in str(caught.value).replace(str(archive), "")
        assert client.models() == []
        assert not [path for path in (tmp_path / "state" / "packages").iterdir() if path.is_dir()]
        client.register(str(needy(name="unmet")))
        assert client.predict("unmet", "x").output == ["1.0", False]


def test_not_allowed(client, server, needy):
    """A server that installs nothing → a warning that says how, and the handler's own ImportError."""
    with pytest.raises(CallError, match="No module named 'tinypack'"):
        client.register(str(needy(name="unserved")), workers=1)
    assert server.log.lines("requirements are not installed", "model=unserved", "--install-requirements on")
    client.unregister("unserved")


def test_check(needy, run_cli, tmp_path):
    """`servegrpc check` → warns of requirements; installs them when asked to."""
    archive = needy("tinypack", name="checked")
    refused = run_cli("check", archive, "--strict")
    assert refused.returncode == 1
    assert "requirements.txt was not installed; see --install-requirements" in refused.stderr
    done = run_cli("check", archive, "--strict", "--install-requirements", "-i", "x", env={"HOME": str(tmp_path), "PATH": ""})
    assert (done.returncode, done.stderr) == (0, "")
    assert '["1.0", false]' in done.stdout
