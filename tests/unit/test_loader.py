"""Finding and initializing a model's handler, by TorchServe's rules."""

import asyncio
import json
import sys

import pytest

from servegrpc.worker.context import Context
from servegrpc.worker.loader import LONGEST_CAUSE, LoadError, borrows_inputs, describe, is_async, load_handler, yields

ONE_CLASS = """
class Handler:
    def initialize(self, context):
        self.greeting = f"hello from {context.model_name}"

    def handle(self, data, context):
        return [self.greeting] * len(data)
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a handler from files by name; returns its entry point. Modules it imports are forgotten after the test."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = dict(sys.modules)

    def load(handler, *, config=None, envelope="", **files):
        for name, code in files.items():
            (tmp_path / f"{name}.py").write_text(code)
        context = Context(model_name="m", model_dir=str(tmp_path), manifest={}, batch_size=1, gpu=None, model_yaml_config=config or {})
        return load_handler(tmp_path, handler, context, envelope)

    yield load
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
            sys.modules.update({name: before[name]} if name in before else {})


def problem_of(load, tmp_path, handler, **files):
    """Return what is told of a handler that cannot be loaded."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever the handler raises
        load(handler, **files)
    return describe(caught.value, tmp_path)


def test_class(load):
    """The module has one class → it is initialized with the context, and its handle is the entry."""
    assert load("own", own=ONE_CLASS)(["x", "y"], None) == ["hello from m"] * 2


def test_class_without_initialize(load):
    """The class has no initialize → it is used as it is."""
    assert load("own", own="class H:\n    def handle(self, data, context): return data")([1], None) == [1]


def test_imported_classes_do_not_count(load):
    """The module imports other classes → only its own counts."""
    code = f"from collections import OrderedDict\nfrom pathlib import Path\n{ONE_CLASS}"
    assert load("own", own=code)(["x"], None) == ["hello from m"]


def test_function(load):
    """The module has a function handle → it is called without data first, and wins over a class."""
    code = f"calls = []\ndef handle(data, context):\n    calls.append(data)\n    return calls\n{ONE_CLASS}"
    assert load("own", own=code)(["x"], None) == [None, ["x"]]


def test_async_function(load):
    """The module has an asynchronous function handle → it too is called without data first."""
    code = "calls = []\nasync def handle(data, context):\n    calls.append(data)\n    return calls"
    assert asyncio.run(load("own", own=code)(["x"], None)) == [None, ["x"]]


def test_async_initialize(load):
    """The class has an asynchronous initialize → it has run to its end when the model is loaded."""
    code = ONE_CLASS.replace("def initialize(self, context):", "async def initialize(self, context):\n        await asyncio.sleep(0)")
    assert load("own", own=f"import asyncio\n{code}")(["x"], None) == ["hello from m"]


@pytest.mark.parametrize("handler", ["own:serve", "own.py:serve"])
def test_named_function(load, handler):
    """The handler names a function → that one is the entry, not handle."""
    code = "def serve(data, context): return 'serve'\ndef handle(data, context): return 'handle'"
    assert load(handler, own=code)([], None) == "serve"


@pytest.mark.parametrize("handler", ["own", "own.py", "some/folder/own.py"])
def test_names(load, handler):
    """The handler is named with or without .py or the folder it came from → its file in the archive is found."""
    assert load(handler, own=ONE_CLASS)(["x"], None) == ["hello from m"]


def test_file_in_a_folder(load, tmp_path):
    """The handler's file is in a folder of the archive → it is found there, and so are its neighbours."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "near.py").write_text("ANSWER = 42")
    (tmp_path / "code" / "own.py").write_text("import near\ndef serve(data, context): return near.ANSWER")
    assert load("code/own.py:serve")([], None) == 42


def test_no_file_outside(load, tmp_path):
    """The handler's path leads out of the archive → only its name counts."""
    (tmp_path.parent / "outside.py").write_text("def handle(data, context): ...")
    assert problem_of(load, tmp_path, "../outside.py").startswith("there is no outside.py in the archive")


def test_package(load, tmp_path):
    """The archive has a package of that name → it is imported."""
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("def handle(data, context): return 42")
    assert load("own_package")([], None) == 42


def test_module_of_a_package(load, tmp_path):
    """The handler is named as a module of a package, with dots → it is imported."""
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "service.py").write_text("def serve(data, context): return 42")
    assert load("own_package.service:serve")([], None) == 42


@pytest.mark.parametrize("handler", ["nowhere.service", "own.serve", "own..serve", "json.nothing"])
def test_no_module_of_a_package(load, tmp_path, handler):
    """There is no such package, or no such module in it → the error says so."""
    assert problem_of(load, tmp_path, handler, own=ONE_CLASS).startswith(f"there is no {handler}.py in the archive")


def test_package_that_cannot_be_imported(load, tmp_path):
    """The package around the handler's module imports what is not there → the error is the package's own."""
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("import not_installed_here")
    problem = problem_of(load, tmp_path, "own_package.service")
    assert problem.startswith("own_package/__init__.py, line 1: ModuleNotFoundError: No module named 'not_installed_here'")


def test_named_class(load):
    """The handler names one of two classes → that one."""
    assert load("own:B", own="class A: ...\nclass B:\n    def handle(self, data, context): return 'B'")([], None) == "B"


def test_archive_file_wins(load):
    """The archive has a file named as a module of Python's → the archive's is used."""
    assert load("json", json=ONE_CLASS)(["x"], None) == ["hello from m"]


def test_archive_file_wins_over_default(load):
    """The archive has a file named as a default handler → the archive's is used."""
    assert load("image_classifier", image_classifier=ONE_CLASS)(["x"], None) == ["hello from m"]


def test_imports_its_neighbours(load):
    """The handler imports another file of the archive → that is found."""
    assert load("own", own="import near\ndef handle(data, context): return near.ANSWER", near="ANSWER = 42")([], None) == 42


@pytest.mark.slow
def test_default_handler(load, tmp_path):
    """The handler is one of ours and the archive has no such file → ours is loaded."""
    assert "The archive has neither weights nor a model file" in problem_of(load, tmp_path, "image_classifier")


def test_default_handler_that_is_not_here(load, tmp_path):
    """The handler is one of TorchServe's that we do not have → the error says why, and what to do."""
    assert "needs NVIDIA DALI" in problem_of(load, tmp_path, "dali_image_classifier")


def test_unknown(load, tmp_path):
    """There is no such file and no such default handler → the error names both."""
    assert problem_of(load, tmp_path, "nothing") == 'there is no nothing.py in the archive, and no default handler "nothing".'


def test_no_entry(load, tmp_path):
    """The module has neither function nor class → the error says what it needs."""
    problem = problem_of(load, tmp_path, "own:serve", own="X = 1")
    assert problem == 'own.py needs a function "serve" or exactly one class; classes there: none.'


def test_two_classes(load, tmp_path):
    """The module has two classes → the error names them."""
    problem = problem_of(load, tmp_path, "own", own="class A: ...\nclass B: ...")
    assert problem.endswith("classes there: A, B. To choose one, name the handler own.py:A.")


def test_class_without_handle(load, tmp_path):
    """The class has no handle → the error names it."""
    assert problem_of(load, tmp_path, "own", own="class A: ...") == "class A in own.py has no method handle(data, context)."


def test_raises(load, tmp_path):
    """The handler's code raises deep inside → the error names the innermost line of the archive."""
    code = "import near\ndef handle(data, context):\n    near.go()"
    assert problem_of(load, tmp_path, "own", own=code, near="\ndef go():\n    int('x')").startswith("near.py, line 3: ValueError: invalid")


def test_syntax_error(load, tmp_path):
    """The handler's file has a syntax error → the error names the line."""
    assert problem_of(load, tmp_path, "own", own="x = 1\ndef :") == "own.py, line 2: SyntaxError: invalid syntax"


def test_missing_package(load, tmp_path):
    """The handler imports a package that is not installed → the error names it and the line."""
    problem = problem_of(load, tmp_path, "own", own="import not_installed_here")
    assert problem.startswith("own.py, line 1: ModuleNotFoundError: No module named 'not_installed_here'; install not_installed_here where")


def test_import_that_is_not_there(load, tmp_path):
    """The handler imports a name of TorchServe that is not here → the error says where to look."""
    problem = problem_of(load, tmp_path, "own", own="\nfrom ts.utils.util import nothing")
    assert problem.startswith("own.py, line 2: ImportError: ts.utils.util.nothing: servegrpc has no such name; docs/")


def test_import_in_an_import(load, tmp_path):
    """A module that the handler imports cannot import another → the error names the file that tried, and the cause."""
    near = "try:\n    import not_installed_here\nexcept ImportError as error:\n    raise ImportError('near needs more') from error"
    problem = problem_of(load, tmp_path, "own", own="import near", near=near)
    assert problem == "near.py, line 4: ImportError: near needs more (from ModuleNotFoundError: No module named 'not_installed_here')"


def test_exits(load, tmp_path):
    """The handler's code exits → the error says so."""
    assert problem_of(load, tmp_path, "own", own="import sys\nsys.exit('no weights')") == "own.py, line 2: SystemExit: no weights"


def test_no_paths(load, tmp_path):
    """The exception's message has the archive's folder in it → it is left out."""
    code = "from pathlib import Path\n(Path(__file__).parent / 'weights.pt').read_bytes()"
    problem = problem_of(load, tmp_path, "own", own=code)
    assert problem == "own.py, line 2: FileNotFoundError: [Errno 2] No such file or directory: 'weights.pt'"


def test_no_paths_of_installed_modules(load, tmp_path):
    """The handler imports a name that an installed module does not have → the error names both, and no path of this machine."""
    problem = problem_of(load, tmp_path, "own", own="from os.path import nothing")
    assert problem == "own.py, line 1: ImportError: cannot import name 'nothing' from 'posixpath'"


@pytest.mark.parametrize("module", ["own", "near"])
def test_parentheses_that_are_no_path(load, tmp_path, module):
    """The message of an ImportError ends in parentheses with something else, or names a file of the archive → they stay."""
    problem = problem_of(load, tmp_path, "own", own=f"raise ImportError('see ({module}.py)')")
    assert problem == f"own.py, line 1: ImportError: see ({module}.py)"


def test_loaderror_is_told_as_it_is():
    """A LoadError is described → its own words."""
    assert describe(LoadError("do this."), None) == "do this."


def test_describes_in_one_line(tmp_path):
    """The exception's message has several lines → they become one, since it goes into status messages and log lines."""
    assert describe(RuntimeError("first\n\tsecond"), tmp_path) == "RuntimeError: first second"


def test_describes_in_few_words(tmp_path):
    """The exception's message is very long → its beginning."""
    described = describe(RuntimeError("x" * 1_000_000), tmp_path)
    assert described.startswith("RuntimeError: xxx")
    assert len(described) == LONGEST_CAUSE


def test_describes_what_is_no_text(tmp_path):
    """The exception's message is no Unicode text → it can be sent all the same."""
    assert describe(RuntimeError("\ud800"), tmp_path) == "RuntimeError: ?"


@pytest.mark.parametrize(
    ("code", "borrows"),
    [
        ("class H:\n    borrow_inputs = True\n    def handle(self, data, context): ...", True),
        ("class H:\n    borrow_inputs = 'yes'\n    def handle(self, data, context): ...", False),
        ("class H:\n    def handle(self, data, context): ...", False),
        ("def handle(data, context): ...\nhandle.borrow_inputs = True", True),
        ("def handle(data, context): ...", False),
    ],
    ids=["class", "class, not True", "class without", "function", "function without"],
)
def test_borrows_inputs(load, code, borrows):
    """A handler says borrow_inputs = True, or something else, or nothing → it borrows only when it says True."""
    assert borrows_inputs(load("own", own=code)) is borrows


ASYNC = "class H:\n    async def handle(self, data, context): return data"


@pytest.mark.parametrize(
    ("code", "asynchronous"),
    [
        (ASYNC, True),
        ("class H:\n    async def handle(self, data, context):\n        yield data", True),
        ("class H:\n    def handle(self, data, context): ...", False),
        ("async def serve(data, context): ...", True),
    ],
    ids=["method", "generator", "plain", "function"],
)
def test_is_async(load, code, asynchronous):
    """A handler is `async def`, in any form, or not → the runner can tell."""
    namespace = {}
    exec(code, namespace)
    entry = namespace.get("serve") or namespace["H"]().handle
    assert is_async(entry) is asynchronous


@pytest.mark.parametrize(
    ("code", "yielding"),
    [
        (ASYNC, False),
        ("class H:\n    async def handle(self, data, context):\n        yield data", True),
        ("class H:\n    def handle(self, data, context):\n        yield data", True),
        ("def serve(data, context):\n    yield data", True),
        ("def serve(data, context): ...", False),
    ],
    ids=["asynchronous", "asynchronous generator", "generator", "function that yields", "function"],
)
def test_yields(code, yielding):
    """A handler that is a generator, asynchronous or not → known to yield."""
    namespace = {}
    exec(code, namespace)
    assert yields(namespace.get("serve") or namespace["H"]().handle) is yielding


def test_callable_object_is_async():
    """The entry is an object with an asynchronous __call__ → it is asynchronous."""

    class Entry:
        async def __call__(self, data, context): ...

    assert is_async(Entry())


SUM = "def handle(data, context):\n    return data and [sum(row) for row in data]"


@pytest.mark.parametrize(("config", "envelope"), [({"serviceEnvelope": "json"}, ""), ({}, "json"), ({"serviceEnvelope": "json"}, "body")])
def test_envelope(load, config, envelope):
    """The model, or else the server, asks for an envelope → the handler gets what is in it, and the caller an envelope."""
    entry = load("own", own=SUM, config=config, envelope=envelope)
    assert [json.loads(reply) for reply in entry([{"body": '{"instances": [[1, 2], [3, 4]]}'}], None)] == [{"predictions": [3, 7]}]


def test_envelope_body(load):
    """The model asks for the envelope body → the handler gets bare inputs."""
    entry = load("own", own=SUM, config={"serviceEnvelope": "body"})
    assert entry([{"body": [1, 2]}, {"data": [3]}], None) == [3, 3]


def test_unknown_envelope(load, tmp_path):
    """model-config.yaml names an envelope that there is not → the error lists those there are."""
    with pytest.raises(LoadError, match="serviceEnvelope takes body, json, kserve, kservev2"):
        load("own", own=ONE_CLASS, config={"serviceEnvelope": "soap"})


def test_envelope_on_async_handler(load):
    """An asynchronous handler is given an envelope → the error says what to take off."""
    with pytest.raises(LoadError, match="take off serviceEnvelope"):
        load("own", own=ASYNC, envelope="json")


def test_declared_metrics(load, tmp_path):
    """The archive has a metrics.yaml → its metrics are there when the handler is initialized."""
    (tmp_path / "metrics.yaml").write_text("model_metrics:\n  counter:\n    - {name: Seen, unit: count, dimensions: [Kind]}")
    code = "def handle(data, context):\n    global metrics\n    if data is None:\n        metrics = context.metrics\n    return metrics"
    assert load("own", own=code)([], None).get_metric("Seen").dimension_names == ["Kind"]


def test_declared_in_model_config(load):
    """model-config.yaml has metricsConfig, and asks for declared metrics only → they are there, and others are dropped."""
    declared = {"model_metrics": {"gauge": [{"name": "Load", "unit": "percent", "dimensions": []}]}}
    code = "def handle(data, context):\n    global metrics\n    if data is None:\n        metrics = context.metrics\n    return metrics"
    metrics = load("own", own=code, config={"metricsConfig": declared, "declaredMetricsOnly": True})([], None)
    metrics.add_counter("Other", 1)
    assert (metrics.cache_keys()[0], metrics.drain()) == ("gauge:Load", [])


@pytest.mark.parametrize("content", [b"accuracy: 0.9", b"a: [", b"\xff"], ids=["other", "no YAML", "no text"])
def test_other_metrics_file(load, tmp_path, content):
    """The archive's metrics.yaml is about something else → the model loads."""
    (tmp_path / "metrics.yaml").write_bytes(content)
    assert load("own", own=ONE_CLASS)(["x"], None) == ["hello from m"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model_metrics: {summary: []}", "it takes counter, gauge and histogram"),
        ("model_metrics: {counter: 3}", "'int' object is not iterable"),
        ("model_metrics: {counter: [[name, unit, dimensions]]}", "list indices"),
    ],
)
def test_metrics_file_that_cannot_be_used(load, tmp_path, caplog, content, words):
    """The archive's metrics.yaml has what cannot be declared → the model loads, as TorchServe reads no such file; the log says why."""
    (tmp_path / "metrics.yaml").write_text(content)
    assert load("own", own=ONE_CLASS)(["x"], None) == ["hello from m"]
    assert words in caplog.text


def test_bad_declared_metrics(load, tmp_path):
    """The key metricsConfig has a type that is none → the model does not load, and the error says what there is."""
    with pytest.raises(KeyError, match="it takes counter, gauge and histogram"):
        load("own", own=ONE_CLASS, config={"metricsConfig": {"model_metrics": {"summary": []}}})
