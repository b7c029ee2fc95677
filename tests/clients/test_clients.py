"""The example programs of `clients/`, built as its README says and run against the real server with the digits example."""

import os
import re
import subprocess
import sys

import pytest
from toolchains import BUILT, CLIENTS, PICTURE, ROOT, build, require, run

NODE = ("node", CLIENTS / "typescript/node_modules")
TRITON = ROOT / "build" / "tritonclient"
GO_PACKAGES = "/usr/share/gocode/src/google.golang.org/grpc"

# By the name it prints: what it needs, what builds it, how it is run.
PROGRAMS = {
    "python-raw": ((), None, [sys.executable, CLIENTS / "python/raw_stubs.py"]),
    "python-sync": ((), None, [sys.executable, CLIENTS / "python/sync_client.py"]),
    "python-async": ((), None, [sys.executable, CLIENTS / "python/async_client.py"]),
    "typescript": (NODE, "typescript", ["node", CLIENTS / "typescript/dist/client.js"]),
    "javascript": (NODE, None, ["node", CLIENTS / "typescript/dynamic.mjs"]),
    "go": (("go", GO_PACKAGES), "go", [BUILT / "go-client"]),
    "java": (("javac", "/usr/share/java/grpc-netty.jar"), "java", [BUILT / "java-client"]),
    "cpp": (("cmake", "grpc_cpp_plugin", "/usr/include/grpcpp/grpcpp.h"), "cpp", [BUILT / "cpp/client"]),
    "ruby": ((("ruby", "-rgrpc", "-e", ""),), None, ["ruby", f"-I{CLIENTS}/ruby/lib", CLIENTS / "ruby/client.rb"]),
}
SPELLED = ("t", "th", "thr", "thre", "three")


def lines(name):
    """What every program prints that walks all steps."""
    return [
        "server: SERVING",
        "models: digits",
        "picture: digit 3, three, by digits 1.0",
        "tensor: digit 1, one, by digits 1.0",
        *(f"stream: digit 3, {name}, by digits 1.0" for name in SPELLED),
        "session: digit 3, three, by digits 1.0",
        "session: digit 1, one, by digits 1.0",
        "deadline: DEADLINE_EXCEEDED",
        "no-such-model: NOT_FOUND MODEL_NOT_FOUND",
        f"registered: digits-{name} 1.0",
        f"unregistered: digits-{name}",
        f"{name} OK",
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first build of a language
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_walks_all_steps(digits_server, name):
    """A program gets the addresses and a picture → it prints the same lines as all the others, and OK at the end."""
    needs, target, command = PROGRAMS[name]
    require("make", *needs)
    if target:
        build(target)
    assert run(*command, digits_server.inference, digits_server.management, PICTURE).splitlines() == lines(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_says_what_it_needs(name):
    """A program gets no addresses → one line that names them, and no success."""
    needs, target, command = PROGRAMS[name]
    require("make", *needs)
    if target:
        build(target)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert re.fullmatch(r"usage: .* ADDRESS MANAGEMENT \[PICTURE\]\n", result.stderr)


@pytest.mark.slow
def test_torchserve_client_walks_its_steps(digits_server):
    """A client of TorchServe's → what there is of the steps in TorchServe's API, in TorchServe's words."""
    program = CLIENTS / "python/torchserve_client.py"
    assert run(sys.executable, program, digits_server.inference, digits_server.management, PICTURE).splitlines() == [
        "server: Healthy",
        "models: digits",
        "picture: digit 3, three",
        *(f"stream: digit 3, {name}" for name in SPELLED),
        *(f"session: digit 3, {name}" for name in SPELLED * 2),
        "deadline: DEADLINE_EXCEEDED",
        "no-such-model: INTERNAL Model not found: no-such-model",
        'registered: Model "digits-python-torchserve" Version: 1.0 registered with 1 initial workers',
        'unregistered: Model "digits-python-torchserve" unregistered',
        "python-torchserve OK",
    ]


@pytest.mark.slow
def test_triton_client_walks_its_steps(digits_server):
    """Triton's client → what there is of the steps in the Open Inference Protocol."""
    require(TRITON)
    environment = {**os.environ, "PYTHONPATH": f"{TRITON}:{os.environ.get('PYTHONPATH', '')}"}
    program = CLIENTS / "python/triton_client.py"
    output = run(sys.executable, program, digits_server.inference, digits_server.management, PICTURE, env=environment)
    assert output.splitlines() == [
        "server: live",
        "models: digits",
        "picture: digit 3, three, by digits 1.0",
        "tensor: digit 1, one, by digits 1.0",
        *(f"stream: digit 3, {name}, by digits 1.0" for name in SPELLED),
        "session: digit 3, three, by digits 1.0",
        "session: digit 1, one, by digits 1.0",
        "deadline: DEADLINE_EXCEEDED",
        "no-such-model: NOT_FOUND",
        "unloaded: digits UNAVAILABLE",
        "loaded: digits READY",
        "python-triton OK",
    ]


@pytest.mark.slow
def test_php_stubs_are_valid():
    """The stubs of a language whose gRPC Debian has not → PHP reads every file without complaint."""
    require("make", "php")
    build("php")
