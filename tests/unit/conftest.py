"""Pools on the fake engine, and their timer."""

import pytest
from fakes import POOL_SPEC, FakeEngine

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
