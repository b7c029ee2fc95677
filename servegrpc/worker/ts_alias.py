"""Answers `import ts…` with our modules, so that handlers written for TorchServe run unchanged.

`install` puts a finder before all others. Workers call it before they load a handler, `servegrpc.compat_api` for a user's own tests. The
names of an alias module are those of `worker.ts_names`, each looked up where it lives when it is first asked for. What we do not have fails
with a message that says so.
"""

from __future__ import annotations

import dis
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

from servegrpc.worker.ts_names import MODULES, REFUSED

WHERE = "docs/torchserve-conformance.md lists what there is"

Modules = Mapping[str, Mapping[str, str]]  # module → name → "module:attribute", or "module" for a module


class AliasModule(ModuleType):
    """A module of ours under another's name. Its attributes are those of its table, and may be replaced like any module's."""

    def __init__(self, name: str, names: Mapping[str, str], submodules: frozenset[str]) -> None:
        super().__init__(name)
        self.__all__ = [name for name, target in names.items() if not name.startswith("__") and _is_installed(target)]
        self._names = names
        self._submodules = submodules

    def __getattr__(self, name: str) -> object:
        if name in self._names:
            module, _, attribute = self._names[name].partition(":")
            value: object = importlib.import_module(module)
            for part in attribute.split(".") if attribute else ():
                value = getattr(value, part)
            setattr(self, name, value)
            return value
        if name in self._submodules:
            return importlib.import_module(f"{self.__name__}.{name}")
        reason = REFUSED.get(f"{self.__name__}.{name}", "servegrpc has no such name")
        message = f"{self.__name__}.{name}: {reason}; {WHERE}."
        if _imports(sys._getframe(1)):
            raise ImportError(message, name=self.__name__)
        raise AttributeError(message, name=name, obj=self)  # hasattr, and getattr with a default, take this alone for "no"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._names, *self._submodules})


def _imports(frame: FrameType) -> bool:
    """Return whether a frame is at `from … import …`: Python would put words of its own in place of an AttributeError's."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"


def _is_installed(target: str) -> bool:
    """Tell whether a name can be looked up: `import *` leaves out what needs a package that is not there."""
    root = target.partition(":")[0].partition(".")[0]
    return root in sys.modules or importlib.util.find_spec(root) is not None


class AliasFinder(MetaPathFinder, Loader):
    """Finds the modules of a table; those of its packages that are not there fail with a reason."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self._parents = {name.rpartition(".")[0] for name in modules}
        self._roots = {name.partition(".")[0] for name in modules}

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002 - importlib's signature
        """Return the spec of one of our modules, None for other packages' modules."""
        if fullname.partition(".")[0] not in self._roots:
            return None
        if fullname not in self.modules:
            if sys._getframe(2).f_code.co_name != "_find_and_load_unlocked":  # importlib's import; others ask whether it is there
                return None
            reason = REFUSED.get(fullname, "servegrpc has no such module")
            raise ModuleNotFoundError(f"{fullname}: {reason}; {WHERE}.", name=fullname)
        return ModuleSpec(fullname, self, origin="servegrpc", is_package=fullname in self._parents or not self.modules[fullname])

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the module; its names are looked up later."""
        children = {name.rpartition(".")[2] for name in self.modules if name.rpartition(".")[0] == spec.name}
        return AliasModule(spec.name, self.modules[spec.name], frozenset(children))

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: there is no code to run."""

    def forget(self) -> None:
        """Drop what was imported of these packages from elsewhere."""
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in self._roots and not isinstance(module, AliasModule):
                del sys.modules[name]


def install(modules: Modules = MODULES) -> None:
    """Answer imports of these modules from now on in this process, even when the real package is installed; once is enough."""
    if any(isinstance(finder, AliasFinder) and finder.modules is modules for finder in sys.meta_path):
        return
    finder = AliasFinder(modules)
    finder.forget()
    sys.meta_path.insert(0, finder)
