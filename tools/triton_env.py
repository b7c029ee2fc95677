"""Installs Triton's Python client into build/tritonclient, for the tests that put it on their path.

Apart from .venv, and without what it depends on: its pins hold protobuf, grpcio and others back, and the versions in .venv serve it well.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "build" / "tritonclient"
PACKAGES = ("tritonclient==2.73.0", "python-rapidjson==1.25", "ml-dtypes==0.5.4")


def main() -> None:
    """Make the folder anew; exit 1 when that fails."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(FOLDER)]
    if subprocess.run([*pip, *PACKAGES], check=False).returncode:
        shutil.rmtree(FOLDER, ignore_errors=True)
        sys.exit("error: Triton's client could not be installed; the lines above say why")


if __name__ == "__main__":
    main()
