"""Parts from outside the package: plugin modules, the names they add, and what a file may import.

A part is a record (process, network, step, objective, form), or a function under a name in a `Table` (recipe, sampler,
metric, reader). Importing the module that defines it is all that makes it known:

* in Python, `import mymodule`;
* on the command line, `--plugin mymodule` or `--plugin path/to/mymodule.py`, or the variable SCOREFIELD_PLUGINS;
* an installed package announces its module by an entry point of the group `scorefield.parts`. Announced modules are
  imported when a name or a type is asked for that is not known otherwise.

Files are data, and reading one must not run code that its author chose. A file may name functions and classes of
scorefield and of the plugins in use; any other import path in it is refused unless the user allows it by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

GROUP = "scorefield.parts"
"""Entry point group of packages that bring parts."""
VARIABLE = "SCOREFIELD_PLUGINS"
"""Environment variable with plugin modules or files, separated by commas."""

T = TypeVar("T")
_PATH = re.compile(r"^[A-Za-z_][\w.]+:[A-Za-z_][\w.]*$")
_in_use: dict[str, ModuleType] = {}
_allowed: set[str] = set()
_announced: list[str] | None = None


class PluginError(ImportError):
    """A plugin that cannot be imported; the message says which and why."""


# ---------------------------------------------------------------------------------------------------- plugins


def use(names: Iterable[str] = ()) -> None:
    """Import plugins, and those named by the environment variable SCOREFIELD_PLUGINS.

    Args:
        names: Modules ("mypackage.parts"; the current folder is searched too) or files ("parts/mine.py").

    Raises:
        PluginError: A module or file does not exist, or raises when it is imported.
    """
    for name in [*names, *filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(",")))]:
        module = _import_file(Path(name)) if name.endswith(".py") else _import_module(name)
        _in_use[module.__name__] = module


def _import_module(name: str) -> ModuleType:
    here = os.getcwd()
    sys.path.append(here)  # a script's own folder: the command's sys.path begins with the folder of the command
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):
            raise PluginError(f"the plugin {name} cannot be imported: {error}") from error
        raise PluginError(
            f"there is no plugin module {name!r}: it is neither installed nor a file {name.replace('.', '/')}.py in"
            f" {here}; name a module, or a file that ends in .py"
        ) from error
    except Exception as error:
        raise PluginError(f"the plugin {name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)


def _import_file(path: Path) -> ModuleType:
    """The module of a file, under the name of the file, as `import` would make it in the file's folder."""
    if not path.is_file():
        raise PluginError(f"there is no plugin file {path}")
    known = sys.modules.get(path.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() == path.resolve():
            return known
        raise PluginError(f"{path}: another module is called {path.stem!r}; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        raise PluginError(f"the plugin {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def load_announced() -> None:
    """Import, once, the modules that installed packages announce; one that fails is named in a warning."""
    global _announced
    if _announced is not None:
        return
    _announced = []
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist is not None else point.value
            warnings.warn(
                f"the parts that the package {package} announces cannot be imported: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            _announced.append(point.module)


def any_in_use() -> bool:
    """Whether plugins are in use or announced by installed packages, which are imported then."""
    if entry_points(group=GROUP):
        load_announced()
    return bool(_in_use or _announced)


def module_of(part: object) -> str:
    """The name by which the module of a class or function is imported elsewhere: a script's is that of its file."""
    name = str(getattr(part, "__module__", ""))
    if name == "__main__":
        return Path(getattr(sys.modules[name], "__file__", None) or name).stem
    return name


def find_module(name: str) -> ModuleType:
    """The module of that name; the running script is known by the name of its file and not imported again.

    Raises:
        ImportError: There is none.
    """
    script = sys.modules.get("__main__")
    if name not in sys.modules and script is not None and Path(getattr(script, "__file__", None) or "").stem == name:
        return script
    return importlib.import_module(name)


def is_own(module: str) -> bool:
    """Whether a module belongs to scorefield itself."""
    return module == "scorefield" or module.startswith("scorefield.")


# ---------------------------------------------------------------------------------------------------- trust


def is_import_path(text: str) -> bool:
    """Whether a text reads as "module:name" (a module of one letter is taken for a drive)."""
    return _PATH.match(text) is not None


def allow(names: Iterable[str]) -> None:
    """Let files name these modules ("mypackage.nets") or single objects ("mypackage.nets:MyNet") from now on.

    Raises:
        ValueError: A name that is neither.
    """
    for name in names:
        module, colon, attribute = name.partition(":")
        if not all(part.isidentifier() for part in module.split(".")) or bool(colon) != bool(attribute):
            raise ValueError(
                f"--trust {name!r} names neither a module (mypackage.nets) nor an object of one (os:getcwd)"
            )
        _allowed.add(name)


def is_trusted(path: str, also: Collection[str] = ()) -> bool:
    """Whether a file may name the object at "module:name".

    It may where the module is scorefield's, belongs to a plugin in use, or was allowed. An allowed module stands for
    its submodules too.

    Args:
        path: The import path.
        also: Further modules or objects that the user allows for this file.
    """
    if path in _allowed or path in also:
        return True
    module = path.partition(":")[0]
    trusted = ["scorefield", *_in_use, *(_announced or ()), *_allowed, *also]
    return any(module == name or module.startswith(f"{name}.") for name in trusted)


def is_named(path: str, also: Collection[str] = ()) -> bool:
    """Whether the user allowed this very object, and not only its module."""
    return ":" in path and (path in _allowed or path in also)


# ---------------------------------------------------------------------------------------------------- names


def _origin(part: object) -> object:
    """Module and name of a function or class; of a dataclass instance, those of the functions in it."""
    if is_dataclass(part) and not isinstance(part, type):
        return tuple(_origin(getattr(part, field.name)) for field in fields(part))
    name = getattr(part, "__qualname__", None)
    return part if name is None else (module_of(part), name)


class Table(dict[str, T]):
    """Parts by name, to which plugins add theirs with `add`.

    Args:
        kind: What the parts are, for messages.
        parts: Those of scorefield.
    """

    def __init__(self, kind: str, parts: dict[str, T]):
        super().__init__(parts)
        self.kind = kind

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name):
            load_announced()
        return super().__contains__(name)

    def __setitem__(self, name: str, part: T) -> None:
        # The same part again: a notebook's cell run twice, or a script that is imported as a module.
        if name in self.keys() and _origin(self[name]) != _origin(part):
            raise ValueError(f"there is already a {self.kind} called {name!r}; give this one another name")
        super().__setitem__(name, part)

    def add(self, name: str) -> Callable[[T], T]:
        """Decorator that enters a part under a name.

        Raises:
            ValueError: Another part has that name.
        """

        def enter(part: T) -> T:
            self[name] = part
            return part

        return enter
