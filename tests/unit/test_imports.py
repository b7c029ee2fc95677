"""What each part loads: the client is light, and the server never has torch in its process."""

import subprocess
import sys

import pytest


def loaded_by(statement, *names):
    """Return which of the modules a fresh Python has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_client():
    """The client is imported → neither torch nor anything that only a server needs is loaded."""
    assert loaded_by("import servegrpc.client", "grpc", "torch", "pydantic", "structlog", "yaml", "servegrpc.core") == ["grpc"]


@pytest.mark.slow
def test_server():
    """The server is imported → torch is not loaded: only workers have it."""
    assert loaded_by("import servegrpc.frontend.server", "grpc", "torch", "servegrpc.handlers") == ["grpc"]


@pytest.mark.slow
def test_core():
    """The core is imported → gRPC and torch are not loaded."""
    modules = "manager", "registry", "pool", "batching", "archive", "archiver", "placement", "timer"
    statement = "; ".join(f"import servegrpc.core.{module}" for module in modules)
    assert loaded_by(statement, "structlog", "grpc", "torch", "multiprocessing.pool") == ["structlog"]


@pytest.mark.slow
def test_wire():
    """The dialects are imported → gRPC and torch are not loaded."""
    assert loaded_by("import servegrpc.wire.native, servegrpc.wire.scan, servegrpc.wire.status", "grpc", "torch") == []


@pytest.mark.slow
def test_worker():
    """The worker is imported → gRPC and the core are not loaded."""
    assert loaded_by("import servegrpc.worker.main", "torch", "grpc", "servegrpc.core", "pydantic") == ["torch"]
