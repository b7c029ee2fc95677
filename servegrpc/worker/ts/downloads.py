"""`ts.utils.hf_utils` and the test helpers `model_dir`: files from elsewhere."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib import request

MODEL_FILES = ("*.json", "*.pt", "*.bin", "*.txt", "*.model", "*.pth", "*.safetensors", "original/*")


def download_hub_model(
    model_id: str = "meta-llama/Meta-Llama-3.1-8B-Instruct",
    revision: str = "main",
    model_path: str = ".cache",
    use_auth_token: bool | str = True,
) -> str:
    """Download the PyTorch files of a model on the Hugging Face hub below `model_path`; returns their folder. Needs huggingface_hub."""
    hub = importlib.import_module("huggingface_hub")
    return str(
        hub.snapshot_download(
            repo_id=model_id, revision=revision, allow_patterns=list(MODEL_FILES), cache_dir=model_path, token=use_auth_token
        )
    )


def download_model(model_url: str, model_dir: str | Path) -> None:
    """Download a file to `model.pt` in a folder."""
    with request.urlopen(model_url) as source, (Path(model_dir) / "model.pt").open("wb") as target:  # noqa: S310 - the caller's own URL
        shutil.copyfileobj(source, target)


def copy_files(src_dir: str | Path, dst_dir: str | Path, files: Mapping[str, str]) -> None:
    """Copy files from one folder to another: `{name there: name here}`."""
    for source, target in files.items():
        shutil.copyfile(Path(src_dir) / source, Path(dst_dir) / target)
