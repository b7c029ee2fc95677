"""`ts.model_loader` and `ts.service`, as build scripts and unit tests use them: load a model's folder without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from servegrpc.worker.context import Context
from servegrpc.worker.handler_metrics import HandlerMetrics
from servegrpc.worker.loader import Entry, load_handler
from servegrpc.worker.ts.util import get_yaml_config

PREDICTION_METRIC = "PredictionTime"


class Service:
    """An entry point with its context; `service.handle(rows)` calls it."""

    def __init__(
        self,
        model_name: str,
        model_dir: str | Path,
        manifest: dict[str, object] | None,
        entry_point: Entry,
        gpu: int | None,
        batch_size: int | None,
        limit_max_image_pixels: bool = True,
        metrics_cache: HandlerMetrics | None = None,
    ) -> None:
        config_file = cast("dict[str, str]", (manifest or {}).get("model", {})).get("configFile")
        config = get_yaml_config(Path(model_dir, config_file)) if config_file else {}
        self.context = Context(
            model_name=model_name,
            model_dir=str(model_dir),
            manifest=manifest or {},
            batch_size=batch_size or 1,
            gpu=gpu,
            model_yaml_config=cast("dict[str, object]", config),
            metrics=metrics_cache,
            limit_max_image_pixels=limit_max_image_pixels,
        )
        self.entry_point = entry_point

    def handle(self, rows: list[object]) -> object:
        """Return what the handler makes of a batch of rows."""
        self.context.begin_batch([str(index) for index in range(len(rows))], [{}] * len(rows))
        return self.entry_point(rows, self.context)


class TsModelLoader:
    """Loads a model's folder as a worker does."""

    def load(
        self,
        model_name: str,
        model_dir: str | Path,
        handler: str,
        gpu_id: int | None = None,
        batch_size: int | None = None,
        envelope: str | None = None,
        limit_max_image_pixels: bool = True,
        metrics_cache: HandlerMetrics | None = None,
    ) -> Service:
        """Return the initialized handler; raises `servegrpc.worker.loader.LoadError`, or what the handler raises."""
        file = Path(model_dir, "MAR-INF", "MANIFEST.json")
        manifest = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        service = Service(model_name, model_dir, manifest, _not_loaded, gpu_id, batch_size, limit_max_image_pixels, metrics_cache)
        service.entry_point = load_handler(Path(model_dir), handler, service.context, envelope or "")
        return service


class ModelLoaderFactory:
    """Chooses a loader; there is one."""

    @staticmethod
    def get_model_loader() -> TsModelLoader:
        """Return the loader."""
        return TsModelLoader()


def _not_loaded(_data: object, _context: Context) -> object:
    raise RuntimeError("The handler is not loaded yet.")
