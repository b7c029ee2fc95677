"""`import ts…` is answered with our modules: the hook, in the process of the tests and in one where the real package is."""

import importlib.util
import subprocess
import sys

import pytest

from servegrpc.worker import ts_alias
from servegrpc.worker.ts_names import MODULES, REFUSED


@pytest.fixture(autouse=True, scope="module")
def installed():
    ts_alias.install()


def run(code, folder):
    """Run Python in a folder whose modules it can import; returns what it printed."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def test_names_are_ours():
    """A handler imports a class of TorchServe → it is the class that the worker uses."""
    from ts.context import Context
    from ts.metrics.dimension import Dimension

    from servegrpc.worker import context, handler_metrics

    assert Context is context.Context
    assert Dimension is handler_metrics.Dimension


def test_submodule_of_a_package():
    """A handler says `from ts.metrics import dimension`, or goes through the package → the module."""
    import ts.metrics
    from ts.metrics import dimension

    assert ts.metrics.dimension is dimension


def test_version():
    """A handler asks for TorchServe's version → the one whose behaviour is matched."""
    import ts

    assert ts.__version__ == "0.12.0"


def test_star_import():
    """A handler says `from ts.metrics.metric_type_enum import *` → all names of the module."""
    names = {}
    exec("from ts.context import *", names)
    assert {"Context", "RequestProcessor", "os"} <= set(names)


def test_unknown_name():
    """A handler imports a name that is not there → an ImportError that says so and where to look."""
    with pytest.raises(ImportError, match=r"ts\.utils\.util\.nothing: servegrpc has no such name; docs/torchserve-conformance\.md"):
        from ts.utils.util import nothing  # noqa: F401


def test_refused_name():
    """A handler imports a name that is not there for a reason → the reason."""
    with pytest.raises(ImportError, match=r"retrieve_msg: it reads and writes TorchServe's own socket"):
        from ts.protocol.otf_message_handler import retrieve_msg  # noqa: F401


def test_unknown_module():
    """A handler imports a module that TorchServe does not have either → ModuleNotFoundError."""
    with pytest.raises(ModuleNotFoundError, match=r"ts\.nothing: servegrpc has no such module"):
        import ts.nothing  # noqa: F401


def test_refused_module():
    """A handler imports a module that needs what is not here → ModuleNotFoundError with the reason."""
    with pytest.raises(ModuleNotFoundError, match="needs NVIDIA DALI"):
        import ts.torch_handler.dali_handler  # noqa: F401


def test_is_there_is_asked():
    """Code asks whether there is a name or a module, and there is none → no, as of any package; nothing is raised."""
    import ts.utils.util

    assert not hasattr(ts.utils.util, "nothing")
    assert getattr(ts.utils, "nothing", None) is None
    assert importlib.util.find_spec("ts.nothing") is None
    assert importlib.util.find_spec("ts.torch_handler.dali_handler") is None
    with pytest.raises(AttributeError, match=r"ts\.utils\.util\.nothing: servegrpc has no such name"):
        ts.utils.util.nothing  # noqa: B018


def test_unknown_name_of_a_package():
    """A handler imports from a package what is not there → an ImportError that says so too."""
    with pytest.raises(ImportError, match=r"ts\.utils\.nothing: servegrpc has no such name"):
        from ts.utils import nothing  # noqa: F401


def test_private_name():
    """Code looks for a private attribute → AttributeError as of any module, so that asking for it harms nothing."""
    import ts.context

    assert not hasattr(ts.context, "__wrapped__")
    assert "Context" in dir(ts.context)


def test_attribute_can_be_replaced(monkeypatch):
    """A user's test replaces a name of a module → others find the replacement."""
    monkeypatch.setattr("ts.context.Context", 42)
    import ts.context

    assert ts.context.Context == 42


def test_once(monkeypatch):
    """Installed again → one finder."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    ts_alias.install()
    assert len(sys.meta_path) == before


def test_wins_over_the_real_package(tmp_path):
    """The real package is installed, and even imported before → ours from then on, of all its modules."""
    (tmp_path / "ts").mkdir()
    (tmp_path / "ts" / "__init__.py").write_text("__version__ = 'real'")
    (tmp_path / "ts" / "context.py").write_text("Context = 'real'")
    code = "import ts.context; print(ts.__version__)\nfrom servegrpc.worker import ts_alias; ts_alias.install()\n"
    code += "import ts; from ts.context import Context; print(ts.__version__, Context.__module__)"
    assert run(code, tmp_path) == ["real", "0.12.0", "servegrpc.worker.context"]


def test_tables_agree():
    """A module is answered → it is not refused, and its package is answered too."""
    assert not set(MODULES) & set(REFUSED)
    assert {name.rpartition(".")[0] for name in MODULES} - {""} <= set(MODULES)
