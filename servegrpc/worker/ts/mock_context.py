"""`MockContext`, with which users test their handlers without a server."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from uuid import uuid4

import torch

from servegrpc.worker.context import Context
from servegrpc.worker.ts.metrics import MetricsStore
from servegrpc.worker.ts.util import get_yaml_config


class MockContext(Context):
    """A context as a handler gets it, made from the files of a model. Set `explain` to have the handler explain."""

    def __init__(
        self,
        model_pt_file: str | None = "model.pt",
        model_dir: str | Path = ".",
        model_file: str | None = "model.py",
        gpu_id: str | int | None = "0",
        model_name: str = "mnist",
        model_yaml_config_file: str | None = None,
    ) -> None:
        files = {"serializedFile": model_pt_file, "modelFile": model_file}
        config = get_yaml_config(Path(model_dir, model_yaml_config_file)) if model_yaml_config_file else None
        super().__init__(
            model_name=model_name,
            model_dir=str(model_dir),
            manifest={"model": {key: name for key, name in files.items() if name}},
            batch_size=1,
            gpu=int(gpu_id) if gpu_id not in (None, "") and torch.cuda.is_available() else None,
            model_yaml_config=cast("dict[str, object]", config or {}),
            metrics=MetricsStore(uuid4(), model_name),
        )
        self.explain = False
        self.begin_batch([str(uuid4())], [{}])

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a header of the request; "explain" is "True" when `explain` is set. Requests after the first have none."""
        if key == "explain" and self.explain:
            return "True"
        return super().get_request_header(idx, key) if idx == 0 else None
