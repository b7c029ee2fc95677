"""Fixtures of the tests that cross a process: servers, clients, archives."""

import functools
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import DIGITS, LANES, SERVEGRPC, Gate, ServerProcess, Servers, numbers

from servegrpc.core.archiver import ArchiveSpec, write_archive

HANDLERS = Path(__file__).parent / "handlers"


def pytest_configure(config):
    config.addinivalue_line("markers", "both_lanes: runs on a server with the fast lane and on one without")


def pytest_generate_tests(metafunc):
    """Run the tests of modules marked `both_lanes` on either shared server."""
    if "server" in metafunc.fixturenames and any(mark.name == "both_lanes" for mark in metafunc.definition.iter_markers()):
        metafunc.parametrize("server", LANES, ids=lambda lane: f"lane_{lane}", indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Show the logs of the servers that a failed test used."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            servers = value.started if isinstance(value, Servers) else [value]
            for server in servers:
                if isinstance(server, ServerProcess):
                    report.sections.append((f"log of {name}", "".join(server.log.lines()[-200:])))
    return report


@pytest.fixture
def start_server():
    """Start servers of the test's own."""
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def shared_servers():
    """The servers for all tests that do them no harm, by whether their fast lane is on; each starts when it is first asked for."""
    servers = Servers()
    yield functools.cache(lambda lane: servers("--fast-lane", lane))
    servers.stop()


@pytest.fixture(scope="session")
def server(request, shared_servers):
    """A server for all tests that do it no harm; it starts without models. Modules marked `both_lanes` run on one of each kind."""
    return shared_servers(getattr(request, "param", "on"))


@pytest.fixture(scope="session")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """Write an archive of a handler in tests/handlers, or of a handler's code; returns its path."""

    def write(handler="handler", *, name=None, version="1.0", code=None, config=None, archive_format="default"):
        folder = tmp_path_factory.mktemp("archive")
        file = HANDLERS / f"{handler}.py"
        if code is not None:
            file = folder / f"{handler}.py"
            file.write_text(code)
        config_file = folder / "model-config.yaml" if config else None
        if config_file:
            config_file.write_text(config)
        spec = ArchiveSpec(
            name or handler,
            str(file),
            version,
            config_file=config_file and str(config_file),
            export_path=str(folder / "store"),
            archive_format=archive_format,
        )
        return write_archive(spec)

    return write


@pytest.fixture(scope="session")
def write_digits(tmp_path_factory):
    """Write an archive of the digits example with a handler, and files that this needs; returns its path."""

    def write(handler, *files):
        return write_archive(
            ArchiveSpec(
                "digits",
                str(handler),
                "1.0",
                serialized_file=str(DIGITS / "digits.pt"),
                model_file=str(DIGITS / "model.py"),
                extra_files=",".join(map(str, (DIGITS / "index_to_name.json", *files))),
                config_file=str(DIGITS / "model-config.yaml"),
                export_path=str(tmp_path_factory.mktemp("digits")),
            )
        )

    return write


@pytest.fixture(scope="session")
def digits_archive(write_digits):
    """The example's archive."""
    return write_digits(DIGITS / "handler.py")


@pytest.fixture(scope="module")
def register(client, archive):
    """Register a handler on the shared server, under a name of its own; returns the name. All are gone after the module."""
    names = []

    def register(handler="handler", *, code=None, config=None, version="1.0", name=None, **settings):
        name = name or f"{handler}-{next(numbers)}"
        names.append(name)
        client.register(str(archive(handler, name=name, version=version, code=code, config=config)), **settings)
        return name

    yield register
    there = {model.name for model in client.models()}
    for name in there.intersection(names):
        client.unregister(name)


@pytest.fixture
def numbers_of(server):
    """Read the numbers of a model: {name: value}, or {name, label: value} for those with a label of their own."""

    def numbers_of(model):
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=20) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        numbers = {}
        for sample in (sample for family in families for sample in family.samples):
            if sample.labels.get("model_name") == model:
                own = [value for label, value in sample.labels.items() if label not in ("model_name", "model_version")]
                name = sample.name.removeprefix("servegrpc_")
                numbers[(name, *own) if own else name] = sample.value
        return numbers

    return numbers_of


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


@pytest.fixture
def gates(tmp_path):
    """As many gates as a test likes."""
    return lambda: Gate(tmp_path)


@pytest.fixture
def run_cli():
    """Run `servegrpc` as a user does; returns the completed process."""

    def run(*arguments, **kwargs):
        return subprocess.run([SERVEGRPC, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60, **kwargs)

    return run
