"""The image without Docker: the instructions of docker/Dockerfile are run as they stand, below a clean folder instead of `/`."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from servegrpc.config import ServerConfig

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
PICTURE = REPOSITORY / "examples" / "digits" / "samples" / "seven.png"
COMPOSE = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())
SERVICES = pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"])
DEVICES = ("cpu", "cuda")


class Dockerfile:
    """The stages of the Dockerfile for one device, each a list of (instruction, rest of the line)."""

    def __init__(self, device):
        self._bases = {}
        self._stages = defaultdict(list)
        stage = ""
        text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
        for line in filter(None, text.replace("${DEVICE}", device).splitlines()):
            instruction, _, rest = line.partition(" ")
            if instruction == "FROM":
                base, _, stage = rest.partition(" AS ")
                self._bases[stage] = base
            elif stage in self._bases:
                self._stages[stage].append((instruction, rest))

    def steps(self, stage):
        """Return the instructions of a stage, those of the stages below it first."""
        return [*self.steps(self._bases[stage]), *self._stages[stage]] if stage in self._bases else []

    def last(self, instruction):
        """Return the rest of the last such line of the image itself, which is the stage without a name."""
        return [rest for word, rest in self._stages[""] if word == instruction][-1]


class Image:
    """What the instructions make: files below `root`, and environment variables.

    The packages that run this test are lent to it, so that pip has nothing to download and installs servegrpc alone.
    """

    def __init__(self, root):
        self.root = root
        self.folder = root
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as: no isolation, so the lent setuptools builds
        }

    def below_root(self, text):
        return re.sub(r"(?<![\w.:/])/(?=(opt|src|home|models)\b)", f"{self.root}/", text)

    def do(self, instruction, rest):
        rest = self.below_root(rest)
        match instruction:
            case "ENV":
                for name, _, value in (pair.partition("=") for pair in shlex.split(rest)):
                    self.environment[name] = value.replace("$PATH", self.environment["PATH"])
            case "WORKDIR":
                self.folder = Path(rest)
                self.folder.mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    copy_from_context(source, self.folder / target)
            case "RUN":
                ran = self.run("sh", "-c", re.sub(r"--index-url \S+", "", rest))  # PyTorch's index: torch is lent
                assert ran.returncode == 0, ran.stdout + ran.stderr
            case _:
                pytest.fail(f"do not know how to {instruction}")

    def run(self, *command):
        """Run a command in the image; returns the completed process."""
        pipes = {"capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(command, check=False, cwd=self.folder, env=self.environment, **pipes)


class Container:
    """The image's entrypoint, run with free ports on the same interfaces, and ready."""

    def __init__(self, image, dockerfile, *arguments):
        entrypoint = [re.sub(r":\d+$", ":0", image.below_root(word)) for word in json.loads(dockerfile.last("ENTRYPOINT"))]
        with (image.folder / "log").open("w") as log:
            pipes = {"stdout": subprocess.PIPE, "stderr": log, "text": True}
            self.process = subprocess.Popen([*entrypoint, "--gpus", "0", *arguments], cwd=image.folder, env=image.environment, **pipes)
        self.ready_line = self.process.stdout.readline()
        if not self.ready_line.startswith("ready "):
            self.stop()
            pytest.fail(f"no ready line, log:\n{(image.folder / 'log').read_text()}")
        self.inference, self.management = re.match(r"ready inference=(\S+) management=(\S+)", self.ready_line).groups()
        self._image, self._check = image, json.loads(dockerfile.last("HEALTHCHECK").partition(" CMD ")[2])

    def execute(self, *command):
        """Run a command beside the server, which has found a port that is not the default."""
        port = self.inference.rpartition(":")[2]
        return self._image.run("env", f"SERVEGRPC_ADDRESS=127.0.0.1:{port}", *command)

    def check_health(self):
        return self.execute(*self._check).returncode

    def stop(self):
        """Stop it as Docker does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdout.close()


def copy_from_context(source, target):
    """Copy a file into a folder, or a folder's content, as far as .dockerignore lets it through."""
    path = REPOSITORY / source
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    sent = [file for file in files if is_sent(file.relative_to(REPOSITORY))]
    assert sent, f"{source} is not in the build's context"
    for file in sent:
        copy = target / (file.name if path.is_file() else file.relative_to(path))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)


def is_sent(path):
    """Tell whether a file is in the build's context: the last line of .dockerignore that matches it or a folder above it decides."""
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if not line.startswith("#") and any(fnmatch(str(part), line.removeprefix("!")) for part in (path, *path.parents[:-1])):
            sent = line.startswith("!")
    return sent


def seconds(duration):
    assert duration.endswith("s")
    return float(duration[:-1])


@pytest.fixture(scope="module")
def dockerfile():
    return Dockerfile("cpu")


@pytest.fixture(scope="module")
def image(dockerfile, tmp_path_factory, digits_archive):
    """The image, with the digits archive in its model store."""
    image = Image(tmp_path_factory.mktemp("image"))
    for instruction, rest in dockerfile.steps("build"):
        image.do(instruction, rest)
    store = image.root / dockerfile.last("VOLUME").strip("/")
    store.mkdir()
    shutil.copy(digits_archive, store)
    image.do("WORKDIR", dockerfile.last("WORKDIR"))
    return image


@pytest.fixture
def container(image, dockerfile):
    """A container that serves digits."""
    container = Container(image, dockerfile, "digits.mar")
    yield container
    container.stop()


def test_hadolint_finds_nothing():
    """The Dockerfile, linted → no findings."""
    lint = subprocess.run([Path(sys.executable).parent / "hadolint", DOCKERFILE], check=False, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout


def test_context_holds_only_what_is_copied():
    """Files of the checkout → the context has those of the package, and no history, tests, models or bytecode."""
    assert is_sent(Path("servegrpc/v1/value_pb2.py"))
    for path in (".git/HEAD", ".venv/bin/pip", "tests/conftest.py", "digits.mar", "servegrpc/__pycache__/errors.pyc"):
        assert not is_sent(Path(path)), path


@pytest.mark.parametrize("device", DEVICES)
def test_each_device_installs_pinned_torch_before_the_source(device):
    """Either DEVICE → torch is a layer of its own, from CPU's index or PyPI, and every install keeps to the constraints."""
    installs = [rest for instruction, rest in Dockerfile(device).steps("build") if instruction == "RUN" and "pip install" in rest]
    assert [install.split()[-1] for install in installs] == ["torch", '".[server]"']
    assert all("constraints.txt" in install for install in installs)
    assert ("/whl/cpu" in installs[0]) == (device == "cpu")


def test_image_takes_the_environment_to_the_same_path(dockerfile):
    """The environment of the build stage → lies at the same path in the image, since its scripts name their Python."""
    option, source, target = dockerfile.last("COPY").split()
    assert (option, source) == ("--from=build", target)


def test_image_runs_as_a_user(dockerfile):
    """The image's user → a number other than root's."""
    assert int(dockerfile.last("USER")) > 0


def test_image_declares_what_its_server_uses(dockerfile):
    """EXPOSE and VOLUME → the ports and the model store of ENTRYPOINT."""
    entrypoint = json.loads(dockerfile.last("ENTRYPOINT"))
    assert dockerfile.last("EXPOSE").split() == [word.rpartition(":")[2] for word in entrypoint if ":" in word]
    assert dockerfile.last("VOLUME") == entrypoint[entrypoint.index("--model-store") + 1]


@SERVICES
def test_compose_builds_this_image(service):
    """A service's build → this Dockerfile, with a device that it knows."""
    build = service["build"]
    context = (REPOSITORY / "docker" / build["context"]).resolve()
    assert (context, context / build["dockerfile"]) == (REPOSITORY, DOCKERFILE)
    assert build["args"]["DEVICE"] in DEVICES
    assert Dockerfile(build["args"]["DEVICE"]).steps("build")


@SERVICES
def test_compose_agrees_with_the_image(service, dockerfile):
    """A service's volume, port and health check → those of the image, published to this machine only."""
    assert [volume.split(":")[-2] for volume in service["volumes"]] == [dockerfile.last("VOLUME")]
    assert [port.split(":") for port in service["ports"]] == [["127.0.0.1", "7070", dockerfile.last("EXPOSE").split()[0]]]
    times, _, check = dockerfile.last("HEALTHCHECK").partition(" CMD ")
    health = dict(service["healthcheck"])
    assert health.pop("test") == ["CMD", *json.loads(check)]
    assert {f"--{name.replace('_', '-')}={value}" for name, value in health.items()} == set(times.split())


@SERVICES
def test_compose_outwaits_a_drain(service):
    """`compose stop` → waits longer than the server may take to finish its calls and end its workers."""
    assert seconds(service["stop_grace_period"]) >= ServerConfig().drain_seconds + 15


def test_only_the_gpu_service_reserves_gpus():
    """The two services → the default one runs anywhere, the one for GPUs only when asked for."""
    reserving = {name for name, service in COMPOSE["services"].items() if "deploy" in service}
    assert reserving == {name for name, service in COMPOSE["services"].items() if "gpu" in service.get("profiles", [])}
    assert {COMPOSE["services"][name]["build"]["args"]["DEVICE"] for name in reserving} == {"cuda"}


@pytest.mark.slow
def test_image_holds_the_package_itself(image):
    """The build's commands → servegrpc is installed in the image's environment, not taken from the checkout."""
    found = image.run("python", "-c", "import servegrpc; print(servegrpc.__file__)")
    assert Path(found.stdout).is_relative_to(image.root / "opt")


@pytest.mark.slow
def test_container_is_healthy(container):
    """A container with a model → its health check succeeds."""
    assert container.check_health() == 0


@pytest.mark.slow
def test_container_keeps_management_to_itself(container):
    """A container → inference on all interfaces, management on loopback."""
    assert container.inference.startswith("0.0.0.0:")
    assert container.management.startswith("127.0.0.1:")


@pytest.mark.slow
def test_container_predicts(container):
    """A picture, sent by the image's own command → the digit on it."""
    predicted = container.execute("servegrpc", "predict", "digits", "-i", f"@{PICTURE}")
    assert json.loads(predicted.stdout)["digit"] == 7


@pytest.mark.slow
def test_container_stops_cleanly(container):
    """SIGTERM, as `docker stop` sends it → exit code 0, and the health check fails from then on."""
    assert container.stop() == 0
    assert container.check_health() == 1
