"""A server started and stopped from Python, through TorchServe's module."""

import pytest

import servegrpc.compat_api

pytestmark = pytest.mark.slow


@pytest.fixture
def launcher():
    servegrpc.compat_api.install()
    from ts import launcher

    yield launcher
    launcher.stop()


@pytest.fixture
def config(tmp_path):
    """TorchServe's configuration with free ports."""
    file = tmp_path / "config.properties"
    file.write_text("grpc_inference_port=0\ngrpc_management_port=0\nmetrics_address=http://127.0.0.1:0\nnumber_of_gpu=0\n")
    return file


def test_start_register_stop(launcher, config, archive, capfd):
    """A suite starts a server, registers a model and stops it → it served, and its lines came through the queue."""
    mar = archive("echo", name="launched")
    lines = launcher.start(model_store=mar.parent, snapshot_file=config, disable_token=True, enable_model_api=True)
    response = launcher.register_model("launched", mar.name)
    assert response.status_code == 200, response.text
    assert response.json()["status"].startswith('Model "launched" Version: 1.0 registered')
    assert launcher.register_model("other", "missing.mar").status_code == 404
    launcher.stop()
    said = list(iter(lines.get, None))
    assert any("worker ready" in line for line in said)


def test_does_not_start(launcher, config, tmp_path):
    """The server cannot start → RuntimeError with what it said."""
    config.write_text("grpc_inference_port=none")
    with pytest.raises(RuntimeError, match=r"The server did not start: .*grpc_inference_port"):
        launcher.start(model_store=tmp_path, snapshot_file=config)
