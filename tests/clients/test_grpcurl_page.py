"""The commands of docs/grpcurl.md, run in their order by `buf curl` against the real server: each prints what the page says."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from servers import Servers

from servegrpc.compat.open_inference import service_pb2
from servegrpc.compat.torchserve import inference_pb2 as torchserve_inference_pb2
from servegrpc.compat.torchserve import management_pb2 as torchserve_management_pb2
from servegrpc.v1 import inference_pb2, management_pb2

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "grpcurl.md").read_text()
BLOCK = re.compile(r"^```console\n\$ (grpcurl (?:.*\\\n)*.*)\n((?:.*\n)*?)```$", re.MULTILINE)
STEPS = BLOCK.findall(PAGE)
UPSTREAM = {  # the names of other projects' services
    "GRPCInferenceService": "inference.GRPCInferenceService",
    "InferenceAPIsService": "org.pytorch.serve.grpc.inference.InferenceAPIsService",
    "ManagementAPIsService": "org.pytorch.serve.grpc.management.ManagementAPIsService",
}
# What differs from run to run; its shape is compared.
NAMES = "probability|requestId|queue|handler|pid|id|residentMemoryBytes|registerTime|startTime|changeTime|lastInference|ns|memoryUsage"
PREDICTION = re.compile(r'("prediction": )"([^"]*)"')
OUTPUTS = re.compile(r'("rawOutputContents": \[\s*"[^"]*",\s*"[^"]*",\s*)"[^"]*"')  # digit, name; the third is the probability
OWN = re.compile(rf'(\\?"(?:{NAMES})\\?": )(\\?"[^"]*"|\[[^]]*\]|[\d.]+)')  # \\": in JSON that is a text in JSON


@pytest.fixture(scope="module")
def grpcurl(digits_archive, tmp_path_factory):
    """Run a command of the page; returns what it prints, on either stream."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "grpcurl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent}/grpcurl_by_buf.py "$@"\n')
    program.chmod(0o755)
    servers = Servers()
    server = servers("--model-store", digits_archive.parent, digits_archive.name)

    def run(command):
        command = command.replace("127.0.0.1:7070", server.inference).replace("127.0.0.1:7071", server.management)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    yield run
    servers.stop()


def plain(printed):
    """What is compared: messages without what differs from run to run, whatever their spaces."""
    ended = printed.replace("Message: Deadline Exceeded", "Message: context deadline exceeded")  # whichever end noticed first
    readable = PREDICTION.sub(lambda found: found[1] + base64.b64decode(found[2]).decode(), OUTPUTS.sub(r"\1…", ended))
    return "".join(OWN.sub(r"\1…", readable).split())


@pytest.mark.slow
def test_commands_print_what_the_page_says(grpcurl):
    """Each command of the page, in order → the output shown below it."""
    for command, output in STEPS:
        assert plain(grpcurl(command)) == plain(output), command


def test_page_has_every_call():
    """The methods of all three APIs, of health and of reflection → a command of the page for each."""
    files = (inference_pb2, management_pb2, service_pb2, torchserve_inference_pb2, torchserve_management_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    methods = {f"{UPSTREAM.get(service.name, service.full_name)}/{method.name}" for service in services for method in service.methods}
    others = {f"grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")} | {
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    }
    called = {command.split()[-1] for command, _ in STEPS}
    assert methods | others <= called
