"""The command line: its list of verbs, its exit codes, and `servegrpc archive`."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from terminal import on_a_terminal

from servegrpc import __version__
from servegrpc.cli import main
from servegrpc.errors import ModelNotFound

ARCHIVE = ("archive", "--model-name", "digits", "--handler", "handler.py", "--version", "1.0")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("handler.py").write_text("def handle(data, context): ...")
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="servegrpc")


@pytest.fixture
def run_verb(run, monkeypatch):
    """Run a verb that raises what is given, from a module of its own."""

    def run_raising(error):
        Path("raising.py").write_text("import click\n@click.command()\ndef health():\n    raise ERROR\n")
        monkeypatch.syspath_prepend(Path.cwd())
        import raising

        raising.ERROR = error
        monkeypatch.setitem(sys.modules, "servegrpc.cli.health", raising)
        return run("health")

    yield run_raising
    sys.modules.pop("raising", None)


def test_help(run):
    """--help → every verb with a line about it."""
    result = run("--help")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("  ")]
    verbs = {line[0]: len(line) > 2 for line in lines}
    assert all(verbs[verb] for verb in ("serve", "archive", "check", "predict", "models", "health"))


def test_help_is_light():
    """--help → nothing imported that takes time."""
    code = (
        "import sys\nfrom servegrpc.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'grpc', 'rich', 'yaml', 'numpy', 'torch', 'google', 'zipfile'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_version(run):
    """--version → the package's."""
    assert run("--version").stdout == f"servegrpc {__version__}\n"


@pytest.mark.parametrize("arguments", [("fly",), ("archive",), ("archive", "--nonsense"), (*ARCHIVE, "--archive-format", "rar")])
def test_wrong_usage(arguments, run):
    """An unknown verb or flag, or a flag left out → exit 2 and a line that says so."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModelNotFound('No model "digits".'), 'error: No model "digits".'),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "error: this command needs the server extra: pip install"),
        (ModuleNotFoundError("No module named 'grpc_health.v1'", name="grpc_health.v1"), "error: this command needs the server extra"),
        (FileNotFoundError(2, "No such file or directory", "weights.pt"), "error: weights.pt: No such file or directory"),
        (click.ClickException("no server there"), "error: no server there"),
    ],
)
def test_failure(error, line, run_verb):
    """A verb that fails → one line on stderr, exit 1."""
    result = run_verb(error)
    assert result.exit_code == 1
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_interrupted(run_verb):
    """Ctrl-C in a verb → exit 130, no words."""
    result = run_verb(KeyboardInterrupt())
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize("error", [ZeroDivisionError("a fault of ours"), ModuleNotFoundError("No module named 'x'", name="x")])
def test_fault(error, run_verb):
    """A fault of the program, or a module of no extra missing → not hidden."""
    assert run_verb(error).exception is error


def test_archive(run):
    """Archive → the path on stdout, and the archive there."""
    result = run(*ARCHIVE, "--export-path", "store")
    assert (result.exit_code, result.stdout) == (0, "store/digits.mar\n")
    with zipfile.ZipFile("store/digits.mar") as archive:
        assert "handler.py" in archive.namelist()


@pytest.mark.parametrize("archive_format", ["default", "no-archive"])
def test_archive_json(archive_format, run):
    """Archive --json → path, name, version and size."""
    result = run(*ARCHIVE, "--json", "--archive-format", archive_format)
    written = json.loads(result.stdout)
    path = Path(written["path"])
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert written.pop("size_bytes") == sum(file.stat().st_size for file in files)
    assert written == {"path": str(path), "model_name": "digits", "version": "1.0"}


def test_archive_flags(run):
    """Every flag, short forms too → taken."""
    for name in ("model.pt", "model.py", "requirements.txt", "config.yaml", "labels.json"):
        Path(name).touch()
    flags = ["--serialized-file", "model.pt", "--model-file", "model.py", "--extra-files", "labels.json", "--runtime", "python3"]
    flags += ["--export-path", "store", "--archive-format", "no-archive", "-f", "-r", "requirements.txt", "-c", "config.yaml"]
    result = run("archive", "--model-name", "m", "--handler", "handler.py", "-v", "3", *flags)
    assert result.exit_code == 0
    model = json.loads(Path("store/m/MAR-INF/MANIFEST.json").read_text())["model"]
    assert (model["modelVersion"], model["requirementsFile"], model["configFile"]) == ("3", "requirements.txt", "config.yaml")


def test_archive_exists(run):
    """An archive that exists → exit 1 and a line naming --force; with it, exit 0."""
    run(*ARCHIVE)
    result = run(*ARCHIVE)
    assert (result.exit_code, result.stderr) == (1, 'error: --export-path: "digits.mar" exists already; add --force to replace it.\n')
    assert run(*ARCHIVE, "--force").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(("size_bytes", "shown"), [(11_000_000, True), (1_000_000, False)])
def test_progress(size_bytes, shown, run):
    """A terminal on stderr → a bar for a large archive, none for a small one; stdout has the path alone."""
    Path("model.pt").write_bytes(b"\0" * size_bytes)
    stdout, seen = on_a_terminal(*ARCHIVE, "--serialized-file", "model.pt")
    assert stdout == b"digits.mar\n"
    assert (b"Packing digits" in seen) == shown
