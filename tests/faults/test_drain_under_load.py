"""Models that are scaled, switched and unregistered, and connections that are limited, under load: no call fails."""

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import until

from servegrpc.client import CallError

pytestmark = [pytest.mark.both_lanes, pytest.mark.slow]


class Load:
    """Calls a model from eight threads, each call after the one before, until it is stopped."""

    def __init__(self, client, model):
        self.answered = 0
        self.failed = []
        self._client = client
        self._model = model
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(8)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._stop.is_set():
            try:
                assert self._client.predict(self._model, "x").output == "x"
                self.answered += 1
            except CallError as error:
                self.failed.append(error.reason)
                if error.reason == "MODEL_NOT_FOUND":
                    return

    def wait(self, count):
        """Wait until so many more calls are answered."""
        goal = self.answered + count
        until(lambda: self.answered >= goal or self.failed)


@pytest.fixture
def once(server):
    """A client that tries each call once, so that every status is seen."""
    with server.client(attempts=1) as client:
        yield client


def test_scale(once, register):
    """Workers come and go under load → no call fails."""
    model = register("echo", workers=3, batch_size=4)
    with Load(once, model) as load:
        for workers in (1, 3, 2, 1):
            load.wait(100)
            once.scale(model, workers)
    assert load.failed == []


def test_switch_of_versions(once, register):
    """Another version becomes the default and the old one is unregistered, under load → no call fails."""
    model = register("echo", version="1.0")
    with Load(once, model) as load:
        load.wait(100)
        register("echo", name=model, version="2.0")
        once.set_default(model, "2.0")
        once.unregister(model, "1.0")
        load.wait(100)
    assert load.failed == []


def test_unregister(once, register):
    """A model is unregistered under load → calls are answered, or refused before they were taken."""
    model = register("echo", batch_size=4)
    with Load(once, model) as load:
        load.wait(100)
        once.unregister(model)
    assert set(load.failed) <= {"MODEL_NOT_FOUND", "DRAINING"}


def test_calls_of_one_connection(start_server, archive, tmp_path, gates):
    """One connection may run two calls at once → its third waits for one of them to end, and is answered."""
    config = tmp_path / "config.toml"
    config.write_text("max_streams_per_connection = 2\n")
    server = start_server("--config", config, "--workers", "3", archive("gate"))
    held = [gates(), gates()]
    with server.client() as client, ThreadPoolExecutor() as threads:
        running = [threads.submit(client.predict, "gate", gate.path) for gate in held]
        for gate in held:
            gate.wait_entered()
        third = threads.submit(client.predict, "gate", "")
        with urllib.request.urlopen(f"http://{server.metrics}/metrics") as page:
            assert 'servegrpc_accepted_requests_total{model_name="gate",model_version="1.0"} 2.0' in page.read().decode()
        held[0].open()
        assert third.result().output
        held[1].open()
        assert all(call.result().output for call in running)
