"""Tests the fast lane on the oldest and the newest grpcio and protobuf that pyproject.toml allows, each in an environment of its own."""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

OLDEST = ("grpcio==1.76.0", "protobuf==6.31.1")  # the least that pyproject.toml names
NEWEST = ("grpcio<2", "protobuf<8")
NEEDED = ("googleapis-common-protos", "numpy", "pytest", "pytest-asyncio", "pytest-timeout", "pyyaml", "structlog")
TEST = "tests/unit/test_lane.py"


def main() -> None:
    """Run the tests for both; exit 1 when one fails."""
    for versions in (OLDEST, NEWEST):
        with tempfile.TemporaryDirectory() as folder:
            print(f"==> {' '.join(versions)}", flush=True)
            venv.create(folder, with_pip=True)
            python = str(Path(folder, "bin", "python"))
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            installed = subprocess.run([*pip, *versions, *NEEDED], capture_output=True, text=True, check=False)
            if installed.returncode:
                sys.exit(installed.stdout + installed.stderr)
            pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", TEST]
            tested = subprocess.run(pytest, check=False)
            if tested.returncode:
                sys.exit(1)


if __name__ == "__main__":
    main()
