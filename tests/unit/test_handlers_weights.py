"""Each weight format, made on the spot and loaded by BaseHandler."""

import base64
import importlib
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from servegrpc.handlers import BaseHandler
from servegrpc.worker.context import Context

MODEL_FILE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x)
"""
DOUBLER_ONNX = "CAgSADo/Cg4KAXgKAXgSAXkiA0FkZBIBZ1oUCgF4Eg8KDQgBEgkKAxIBbgoCCAJiFAoBeRIPCg0IARIJCgMSAW4KAggCQgQKABAN"
ROWS = [{"data": torch.tensor([1.0, 2.0])}, {"body": [3.0, 4.0]}]


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 3))


@pytest.fixture
def state(net) -> dict[str, torch.Tensor]:
    return {"layer.weight": net[0].weight.detach(), "layer.bias": net[0].bias.detach()}


def load(folder: Path, serialized: str | None = None, model_file: str | None = None, **config: object) -> tuple[BaseHandler, Context]:
    files = {"serializedFile": serialized, "modelFile": model_file}
    manifest = {"model": {key: value for key, value in files.items() if value}}
    context = Context(model_name="net", model_dir=str(folder), manifest=manifest, batch_size=2, gpu=None, model_yaml_config=config)
    handler = BaseHandler()
    handler.initialize(context)
    context.begin_batch(["a", "b"], [{}, {}])
    return handler, context


def write_model(folder: Path, name: str) -> str:
    (folder / name).write_text(MODEL_FILE)
    return name


def assert_predicts(loaded: tuple[BaseHandler, Context], net: torch.nn.Module) -> None:
    handler, context = loaded
    expected = net(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    torch.testing.assert_close(torch.tensor(handler.handle(ROWS, context)), torch.tensor(expected))


def save_torchscript(net: torch.nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(net, torch.zeros(1, 2)).save(str(path))


def test_eager_state_dict(tmp_path, net, state):
    """A model file and a state dict → the model's predictions, in evaluation mode."""
    torch.save(state, tmp_path / "net.pt")
    loaded = load(tmp_path, "net.pt", write_model(tmp_path, "eager_net.py"))
    assert_predicts(loaded, net)
    assert not loaded[0].model.training


@pytest.mark.parametrize(("name", "save"), [("net.pt", torch.save), ("net.safetensors", save_file)])
def test_eager_weights_are_mapped(name, save, tmp_path, state):
    """Weights of the model's dtypes, in either format → its parameters are pages of the file, which CPU workers share."""
    save(state, tmp_path / name)
    load(tmp_path, name, write_model(tmp_path, "mapped_net.py"))
    handler, _ = load(tmp_path, name, "mapped_net.py")
    for parameter in handler.model.parameters():
        assert str(tmp_path / name) in _mapping_at(parameter.data_ptr())


def test_state_dict_of_another_dtype_is_converted(tmp_path, net, state):
    """Half-precision weights for a float32 model → float32 parameters, as load_state_dict does."""
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "net.pt")
    handler, _ = load(tmp_path, "net.pt", write_model(tmp_path, "half_net.py"))
    assert handler.model.layer.weight.dtype == torch.float32


def test_old_format_state_dict(tmp_path, net, state):
    """A state dict in torch's format before 1.6 → loads, unmapped."""
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    assert_predicts(load(tmp_path, "net.pth", write_model(tmp_path, "old_net.py")), net)


def test_safetensors(tmp_path, net, state):
    """A model file and safetensors → the model's predictions."""
    save_file(state, tmp_path / "net.safetensors")
    assert_predicts(load(tmp_path, "net.safetensors", write_model(tmp_path, "safe_net.py")), net)


def test_model_file_without_weights(tmp_path):
    """Only a model file → the model as it is made."""
    handler, context = load(tmp_path, None, write_model(tmp_path, "bare_net.py"))
    assert len(handler.handle(ROWS, context)) == 2


def test_torchscript(tmp_path, net):
    """A .pt without a model file → TorchScript."""
    save_torchscript(net, tmp_path / "net.pt")
    assert_predicts(load(tmp_path, "net.pt"), net)


def test_exported_program(tmp_path, net):
    """A .pt2 → the exported program."""
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (torch.zeros(2, 2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    assert_predicts(load(tmp_path, "net.pt2"), net)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling a library needs a C++ compiler")
def test_compiled_library(tmp_path, net):
    """A .so and pt2.export.aot_compile → the library's predictions."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch._export.aot_compile(net, (torch.zeros(2, 2),), options={"aot_inductor.output_path": str(tmp_path / "net.so")})
        loaded = load(tmp_path, "net.so", pt2={"export": {"aot_compile": True}})
    assert_predicts(loaded, net)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling a package needs a C++ compiler")
def test_compiled_package(tmp_path, net):
    """A .pt2 made by AOTInductor → the package's predictions."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(net, (torch.zeros(2, 2),))
        torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "net.pt2"))
        loaded = load(tmp_path, "net.pt2", pt2={"compile": {"enable": True}})  # which is already done
    assert_predicts(loaded, net)


def test_a_pt2_of_another_kind(tmp_path):
    """A .pt2 that is no such file → an error that says how to make one."""
    (tmp_path / "net.pt2").write_bytes(b"weights")
    with pytest.raises(RuntimeError, match=r'"net\.pt2" is no exported program.*torch\.export\.save'):
        load(tmp_path, "net.pt2")


def test_onnx_without_its_runtime(tmp_path, monkeypatch):
    """A .onnx file without ONNX Runtime → an error that says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an import of it then fails
    (tmp_path / "net.onnx").touch()
    with pytest.raises(RuntimeError, match="pip install onnxruntime"):
        load(tmp_path, "net.onnx")


def test_onnx(tmp_path):
    """A .onnx file with ONNX Runtime → the session's predictions (the file adds its input to itself)."""
    (tmp_path / "net.onnx").write_bytes(base64.b64decode(DOUBLER_ONNX))
    handler, context = load(tmp_path, "net.onnx")
    assert handler.handle(ROWS, context) == [[2.0, 4.0], [6.0, 8.0]]


class State(dict):
    """A state dict that only pickle can rebuild."""


def test_pickle_is_refused(tmp_path, state):
    """Weights that need pickle → an error that names the file and the setting."""
    torch.save(State(state), tmp_path / "net.pt")
    with pytest.raises(RuntimeError, match=r'"net\.pt" is not a plain state dict.*trusted_pickle: true'):
        load(tmp_path, "net.pt", write_model(tmp_path, "refused_net.py"))


def test_trusted_pickle_loads(tmp_path, net, state):
    """The same with trusted_pickle: true → loads."""
    torch.save(State(state), tmp_path / "net.pt")
    assert_predicts(load(tmp_path, "net.pt", write_model(tmp_path, "trusted_net.py"), trusted_pickle=True), net)


def test_trusted_whole_model_loads(tmp_path, monkeypatch):
    """A whole pickled model with its model file and trusted_pickle: true → that model."""
    write_model(tmp_path, "whole_net.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = importlib.import_module("whole_net").Net()
    torch.save(model, tmp_path / "net.pt")
    assert_predicts(load(tmp_path, "net.pt", "whole_net.py", trusted_pickle=True), model)


@pytest.mark.parametrize(
    ("serialized", "message"),
    [
        ("net.pth", r'No model could be loaded from "net\.pth"'),
        ("net.so", r"aot_compile: true"),
        (None, "neither weights nor a model file"),
    ],
)
def test_unloadable_archives_say_why(tmp_path, serialized, message):
    """Weights of an unknown kind, or none → an error that says what loads."""
    if serialized:
        (tmp_path / serialized).touch()
    with pytest.raises(RuntimeError, match=message):
        load(tmp_path, serialized)


def test_state_dict_without_model_file(tmp_path, state):
    """A state dict alone → an error that asks for the model file."""
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(RuntimeError, match="add its model file"):
        load(tmp_path, "net.pt")


@pytest.mark.parametrize("model_file", [None, "net_of_nothing.py"])
def test_missing_weights(tmp_path, model_file):
    """The manifest names weights that are not there → an error that names them."""
    with pytest.raises(RuntimeError, match=r'"gone\.pt" are missing'):
        load(tmp_path, "gone.pt", model_file and write_model(tmp_path, model_file))


def test_missing_model_file(tmp_path):
    """The manifest names a model file that is not there → an error that names it."""
    with pytest.raises(RuntimeError, match=r'"gone\.py" is missing'):
        load(tmp_path, None, "gone.py")


def test_model_file_with_two_classes(tmp_path):
    """A model file that defines two classes → an error that names both."""
    (tmp_path / "two_nets.py").write_text(MODEL_FILE + "\nclass Other(Net):\n    pass\n")
    with pytest.raises(ValueError, match="Net, Other"):
        load(tmp_path, None, "two_nets.py")


def _mapping_at(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(bound, 16) for bound in line.split()[0].split("-"))
        if low <= address < high:
            return line
    return ""
