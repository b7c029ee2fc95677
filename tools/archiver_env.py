"""Installs TorchServe's archiver into build/torch-model-archiver, for the tests that compare its archives with ours.

Apart from .venv, where its package `model_archiver` does not belong, and without what it depends on, which it runs without.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "build" / "torch-model-archiver"


def main() -> None:
    """Make the folder anew; exit 1 when that fails."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(FOLDER)]
    if subprocess.run([*pip, "torch-model-archiver==0.12.0"], check=False).returncode:
        shutil.rmtree(FOLDER, ignore_errors=True)
        sys.exit("error: torch-model-archiver could not be installed; the lines above say why")


if __name__ == "__main__":
    main()
