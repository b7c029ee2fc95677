"""TorchServe's management service, by a client with its stubs: sentences, JSON and failures to the letter."""

import json
import os
import signal
import stat
from datetime import datetime

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from servers import until
from torchserve_stubs import TorchServeClient

BAD_REQUEST = "org.pytorch.serve.http.BadRequestException"
SERVER_ERROR = "org.pytorch.serve.http.InternalServerException"
NOT_FOUND = "org.pytorch.serve.archive.model.ModelNotFoundException"
VERSION_NOT_FOUND = "org.pytorch.serve.archive.model.ModelVersionNotFoundException"

DESCRIBED = """
def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") == "True":
        return [{"purpose": "grüße", "rows": data}]
    return ["fine"] * len(data)
"""

FIELDS = [
    "modelName", "modelVersion", "modelUrl", "runtime", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout",
    "startupTimeout", "maxRetryTimeoutInSec", "clientTimeoutInMills", "parallelType", "parallelLevel", "deviceType", "continuousBatching",
    "useJobTicket", "useVenv", "stateful", "sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize",
    "loadedAtStartup", "workers", "jobQueueStatus",
]  # fmt: skip


@pytest.mark.parametrize("method", ["DescribeModel", "ListModels", "RegisterModel", "ScaleWorker", "SetDefault", "UnregisterModel"])
def test_not_a_message(server, refused, method):
    """Bytes that are no message of the method → INVALID_ARGUMENT that says so, with a class on the second line as ever."""
    with grpc.insecure_channel(server.management) as channel:
        call = channel.unary_unary(f"/org.pytorch.serve.grpc.management.ManagementAPIsService/{method}")
        assert refused(call, b"\xff\xff\xff") == (
            "INVALID_ARGUMENT", f"The request is not a valid {method}Request message.", BAD_REQUEST,
        )  # fmt: skip


# --- ScaleWorker


def test_scale(torchserve, registered):
    """More workers, waiting → they are there; a version given is told."""
    name = registered()
    assert torchserve.manage("ScaleWorker", model_name=name, min_worker=2, synchronous=True) == f"Workers scaled to 2 for model: {name}"
    assert len(torchserve.describe(name)[0]["workers"]) == 2
    reply = torchserve.manage("ScaleWorker", model_name=name, model_version="1.0", min_worker=1, synchronous=True)
    assert reply == f"Workers scaled to 1 for model: {name}, version: 1.0"


LOADS_ONCE = """
import os

try:
    os.close(os.open({marker!r}, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    {later}


def handle(data, context):
    return data and ["fine"] * len(data)
"""


@pytest.mark.slow
def test_scale_to_what_cannot_be_had(torchserve, refused, registered, tmp_path):
    """More workers than load, waiting → INTERNAL, and those that there are serve on."""
    name = registered("once", code=LOADS_ONCE.format(marker=str(tmp_path / "marker"), later="raise"))
    expected = ("INTERNAL", f"Failed to start workers for model {name} version: 1.0", SERVER_ERROR)
    assert refused(torchserve.manage, "ScaleWorker", model_name=name, min_worker=2, synchronous=True) == expected
    assert torchserve.predict(name) == b"fine"


@pytest.mark.slow
def test_ping_without_a_worker(torchserve, registered, gate, tmp_path):
    """The only worker is killed → Ping is Unhealthy until the next one is ready, and then Healthy."""
    name = registered("again", code=LOADS_ONCE.format(marker=str(tmp_path / "marker"), later=f"open({gate.path!r}).read()"))
    ping = lambda: json.loads(torchserve.ping(Empty()).health)["status"]  # noqa: E731 - shown in the assertions
    assert ping() == "Healthy"
    os.kill(torchserve.describe(name)[0]["workers"][0]["pid"], signal.SIGKILL)
    gate.wait_entered()
    assert ping() == "Unhealthy"
    gate.open()
    until(lambda: ping() == "Healthy")
    assert torchserve.predict(name) == b"fine"


def test_scale_without_waiting(torchserve, registered):
    """More workers, not waiting → in progress."""
    assert torchserve.manage("ScaleWorker", model_name=registered(), min_worker=2) == "Processing worker updates..."


@pytest.mark.parametrize("least", [0, -3])
def test_scale_to_nothing(torchserve, registered, least):
    """No number, or one below zero → one worker: there is no way to say zero."""
    name = registered(workers=0)
    reply = torchserve.manage("ScaleWorker", model_name=name, min_worker=least, synchronous=True)
    assert reply == f"Workers scaled to 1 for model: {name}"
    assert torchserve.predict(name) == b"x"


def test_scale_with_a_most(torchserve, registered):
    """At least one, at most three → one now, and the description says both."""
    name = registered()
    torchserve.manage("ScaleWorker", model_name=name, min_worker=1, max_worker=3, synchronous=True)
    (described,) = torchserve.describe(name)
    assert (described["minWorkers"], described["maxWorkers"], len(described["workers"])) == (1, 3, 1)


def test_scale_refused(torchserve, refused, registered):
    """Bad numbers, no name, unknown model or version → the codes and texts that clients know."""
    name = registered()
    assert refused(torchserve.manage, "ScaleWorker", model_name=name, min_worker=3, max_worker=2) == (
        "INVALID_ARGUMENT", "max_worker cannot be less than min_worker.", BAD_REQUEST,
    )  # fmt: skip
    assert refused(torchserve.manage, "ScaleWorker", min_worker=1)[:2] == ("UNKNOWN", "Parameter model_name is required.")
    assert refused(torchserve.manage, "ScaleWorker", model_name="nobody") == ("NOT_FOUND", "Model not found: nobody", NOT_FOUND)
    assert refused(torchserve.manage, "ScaleWorker", model_name=name, model_version="9") == (
        "NOT_FOUND", f"Model version: 9 does not exist for model: {name}", VERSION_NOT_FOUND,
    )  # fmt: skip


# --- DescribeModel


def test_describe(torchserve, registered):
    """A model → every field, in TorchServe's order and form, with its worker."""
    name = registered()
    text = torchserve.manage("DescribeModel", model_name=name)
    (described,) = json.loads(text)
    assert list(described) == FIELDS
    assert text == json.dumps([described], indent=2)
    assert described["modelUrl"] == f"{name}-1.0.mar"
    (worker,) = described.pop("workers")
    assert list(worker) == ["id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"]
    assert datetime.fromisoformat(worker["startTime"]).tzinfo
    assert stat.S_ISDIR(os.stat(f"/proc/{worker['pid']}").st_mode)
    assert (worker["status"], worker["gpu"], worker["gpuUsage"]) == ("READY", False, "N/A")
    assert worker["memoryUsage"] > 0
    assert described["jobQueueStatus"] == {"remainingCapacity": 1000, "pendingRequests": 0}
    assert (described["maxRetryTimeoutInSec"], described["deviceType"], described["loadedAtStartup"]) == (300, "cpu", False)


@pytest.mark.parametrize(
    ("more", "numbers"),
    [
        ("sequenceTimeoutMSec: 90000\nmaxNumSequence: 5\nmaxSequenceJobQueueSize: 10", [90000, 5, 10]),
        ("", [0, 10_000, 100]),
    ],
    ids=["given", "defaults"],
)
def test_describe_sequences(torchserve, registered, more, numbers):
    """A model that keeps sequences → the numbers that hold for it are there."""
    (described,) = torchserve.describe(registered(config=f"sequenceBatching: true\nsequenceMaxIdleMSec: 60000\n{more}"))
    keys = ("stateful", "sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize")
    assert [described[key] for key in keys] == [True, 60000, *numbers]


def test_describe_versions(torchserve, registered):
    """Two versions → the default one, the one asked for, or all."""
    name = registered()
    registered(name=name, version="2.0")
    assert [one["modelVersion"] for one in torchserve.describe(name)] == ["1.0"]
    assert [one["modelVersion"] for one in torchserve.describe(name, model_version="2.0")] == ["2.0"]
    assert [one["modelVersion"] for one in torchserve.describe(name, model_version="all")] == ["1.0", "2.0"]


def test_describe_customized(torchserve, registered):
    """The handler asked too → what it says is the last field, as it is; nothing for a handler that says no object."""
    described, plain = registered("described", code=DESCRIBED), registered()
    assert torchserve.describe(described, customized=True)[0]["customizedMetadata"] == {"purpose": "grüße", "rows": [{}]}
    assert "customizedMetadata" not in torchserve.describe(described, model_version="all", customized=True)[0]
    assert "customizedMetadata" not in torchserve.describe(plain)[0]


def test_describe_refused(torchserve, refused, registered):
    """Unknown model or version → NOT_FOUND; where the handler would be asked, INTERNAL."""
    name = registered(workers=0)
    unknown, version = "Model not found: nobody", f"Model version: 9 does not exist for model: {name}"
    assert refused(torchserve.describe, "nobody") == ("NOT_FOUND", unknown, NOT_FOUND)
    assert refused(torchserve.describe, "nobody", model_version="all") == ("NOT_FOUND", unknown, NOT_FOUND)
    assert refused(torchserve.describe, "") == ("NOT_FOUND", "Model not found: ", NOT_FOUND)
    assert refused(torchserve.describe, name, model_version="9") == ("NOT_FOUND", version, VERSION_NOT_FOUND)
    assert refused(torchserve.describe, "nobody", customized=True) == ("INTERNAL", unknown, NOT_FOUND)
    assert refused(torchserve.describe, name, customized=True) == ("INTERNAL", "InternalServerException.()", SERVER_ERROR)


def test_describe_what_was_given_at_the_start(start_server, archive):
    """A model of the command line → loadedAtStartup."""
    client = TorchServeClient(start_server(archive("echo")))
    assert client.describe("echo")[0]["loadedAtStartup"] is True
    client.close()


# --- ListModels


def test_list(torchserve, put):
    """Three models in pages → sorted, with a token only while more follows; no limit is 100."""
    names = sorted(put(name=name)[0] for name in ("b", "a", "c"))
    for name in names:
        torchserve.manage("RegisterModel", url=f"{name}-1.0.mar")
    entries = [{"modelName": name, "modelUrl": f"{name}-1.0.mar"} for name in names]

    def page(**fields):
        text = torchserve.manage("ListModels", **fields)
        assert text == json.dumps(json.loads(text), indent=2)
        return json.loads(text)

    assert page() == {"models": entries}
    assert page(limit=2) == {"nextPageToken": "2", "models": entries[:2]}
    assert page(limit=2, next_page_token=2) == {"models": entries[2:]}
    assert page(limit=3) == page(limit=-1) == page(limit=1000) == {"models": entries}
    assert page(limit=2, next_page_token=-1) == page(limit=2)
    assert page(next_page_token=100) == {"models": []}


# --- SetDefault, UnregisterModel


def test_set_default(torchserve, refused, registered):
    """Another version → it is the default; unknown ones → NOT_FOUND, in words of this rpc."""
    name = registered()
    registered(name=name, version="2.0")
    reply = torchserve.manage("SetDefault", model_name=name, model_version="2.0")
    assert reply == f'Default version successfully updated for model "{name}" to "2.0"'
    assert torchserve.describe(name)[0]["modelVersion"] == "2.0"
    for version in ("3.3.3", ""):
        expected = ("NOT_FOUND", f"Model version {version} does not exist for model {name}", VERSION_NOT_FOUND)
        assert refused(torchserve.manage, "SetDefault", model_name=name, model_version=version) == expected
    assert refused(torchserve.manage, "SetDefault", model_name="zzz", model_version="1") == ("NOT_FOUND", "Model not found: zzz", NOT_FOUND)


def test_unregister(torchserve, refused, registered):
    """The default while others are there → UNKNOWN as ever, but with a text; others, and the last one → gone."""
    name = registered()
    registered(name=name, version="2.0")
    for version in ("", "1.0"):
        code, text, _ = refused(torchserve.manage, "UnregisterModel", model_name=name, model_version=version)
        assert (code, text) == ("UNKNOWN", f"Cannot remove default version for model {name}")
    assert torchserve.manage("UnregisterModel", model_name=name, model_version="2.0") == f'Model "{name}" unregistered'
    assert torchserve.manage("UnregisterModel", model_name=name) == f'Model "{name}" unregistered'
    assert refused(torchserve.manage, "UnregisterModel", model_name=name) == ("NOT_FOUND", f"Model not found: {name}", NOT_FOUND)


def test_unregister_refused(torchserve, refused, registered):
    """No name, or an unknown version → the codes and texts that clients know."""
    name = registered()
    assert refused(torchserve.manage, "UnregisterModel") == ("INVALID_ARGUMENT", "Parameter url is required.", BAD_REQUEST)
    assert refused(torchserve.manage, "UnregisterModel", model_name=name, model_version="7") == (
        "NOT_FOUND", f"Model version: 7 does not exist for model: {name}", VERSION_NOT_FOUND,
    )  # fmt: skip
