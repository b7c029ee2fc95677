"""Pools and managers on the fake engine, and their timer."""

import json

import pytest
from fakes import POOL_SPEC, FakeEngine, Script

from servegrpc.core.manager import ModelManager
from servegrpc.core.model import ModelSettings
from servegrpc.core.placement import DeviceSlots
from servegrpc.core.pool import WorkerPool
from servegrpc.core.timer import Timer


@pytest.fixture
def timer():
    timer = Timer()
    yield timer
    timer.close()


@pytest.fixture
def make(timer):
    """Make a pool on a fake engine, with the settings given. A call of its handler has taken `pace` seconds lately."""

    def make(timer=timer, gpus=0, on_change=lambda: None, pace=0.003, **settings):
        engine = FakeEngine()
        pool = WorkerPool(POOL_SPEC, ModelSettings(**settings), engine, DeviceSlots(gpus, 4), timer, on_change)
        pool._pace.learn(pace, 1)
        return pool, engine

    return make


@pytest.fixture
def serving(make):
    """Make an active pool with that many workers; returns it, its engine and the workers."""

    def serving(workers=1, **settings):
        pool, engine = make(**settings)
        pool.scale(workers)
        for worker in engine.workers:
            worker.become_ready()
        return pool, engine, list(engine.workers)

    return serving


@pytest.fixture
def make_manager(tmp_path):
    """Make managers, with folders as archives in `tmp_path / "store"`; all are closed after the test."""
    managers = []

    def make_manager(engine=None, gpus=0, **kwargs):
        engine = engine or FakeEngine({"echo.py": Script(), "broken.py": Script(load_error="broken.py, line 2: bad")})
        manager = ModelManager(
            engine=engine,
            timer=Timer(),
            slots=DeviceSlots(gpus, 4),
            model_store=tmp_path / "store",
            unpack_root=tmp_path / "unpacked",
            **kwargs,
        )
        managers.append(manager)
        return manager

    yield make_manager
    for manager in managers:
        manager.close(0.0)


@pytest.fixture
def manager(make_manager):
    return make_manager()


@pytest.fixture
def stored(tmp_path):
    """Write a model folder to the store; returns its name."""

    def stored(name="digits", version="1.0", handler="echo.py", config=None):
        folder = tmp_path / "store" / f"{name}-{version}-{handler}"
        (folder / "MAR-INF").mkdir(parents=True)
        model = {"modelName": name, "modelVersion": version, "handler": handler}
        if config:
            (folder / "model-config.yaml").write_text(config)
            model["configFile"] = "model-config.yaml"
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"runtime": "python", "model": model}))
        return folder.name

    return stored
