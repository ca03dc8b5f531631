"""Tests of the package as a whole: imports, public names, completeness of packages, records, and project files."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import scorefield
from scorefield._codec import dumps, loads, record_types

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(code: str, **environment: str) -> str:
    """Return the standard output of a new interpreter that finds the package where this one does."""
    path = os.pathsep.join([str(Path(scorefield.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------------------ imports

BARE = """
import json, pkgutil, sys

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(f"{event} {arguments} during an import")

sys.addaudithook(no_network)
references = "torchvision torch_fidelity scipy sklearn"
extras = "pyarrow datasets webdataset gradio tensorboard wandb diffusers msgpack"
for name in f"{references} {extras}".split():
    sys.modules[name] = None  # importing it raises ModuleNotFoundError

import scorefield
packages = [m.name for m in pkgutil.iter_modules(scorefield.__path__) if m.ispkg and m.name != "cli"]
for package in packages:
    __import__(f"scorefield.{package}")
by_packages = sorted(m for m in sys.modules if m.startswith("scorefield"))
modules = [m.name for m in pkgutil.walk_packages(scorefield.__path__, "scorefield.") if "__main__" not in m.name]
for name in modules:
    __import__(name)
import torch
found = {"packages": packages, "modules": modules, "by_packages": by_packages, "cuda": torch.cuda.is_available()}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Modules imported by an interpreter that has only the core dependencies, and no network, CUDA or programs."""
    empty = str(tmp_path_factory.mktemp("empty"))
    return json.loads(run(BARE, PATH=empty, HOME=empty, CUDA_VISIBLE_DEVICES="", CC="", CXX=""))


def test_imports_without_compiler_cuda_network_or_optional_packages(bare: dict[str, Any]):
    package = Path(scorefield.__file__)
    sources = [path for path in package.parent.rglob("*.py") if path != package and path.name != "__main__.py"]
    assert len(bare["modules"]) == len(sources)
    assert not bare["cuda"]


def test_a_package_imports_all_its_modules(bare: dict[str, Any]):
    """Importing a package registers all its records and makes all subclasses known; `cli`, which is lazy, is exempt."""
    inside = tuple(f"scorefield.{package}." for package in bare["packages"])
    assert [m for m in bare["modules"] if m.startswith(inside) and m not in bare["by_packages"]] == []


def test_importing_the_package_costs_nothing():
    heavy = run("import scorefield, sys; dir(scorefield); print([m for m in ('torch', 'numpy') if m in sys.modules])")
    assert heavy.strip() == "[]"


# ------------------------------------------------------------------------------------------------ public names


@pytest.mark.parametrize("name", sorted(scorefield._HOME))
def test_public_names_resolve(name: str):
    value = getattr(scorefield, name)
    assert value is getattr(scorefield, name)
    assert name in dir(scorefield)


def test_type_checkers_see_the_same_table():
    tree = ast.parse(Path(scorefield.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imports == scorefield._HOME


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'scorefield' has no attribute 'no_such_name'"):
        _ = scorefield.no_such_name


# ------------------------------------------------------------------------------------------------ records


def project_records() -> dict[str, type]:
    for module in pkgutil.walk_packages(scorefield.__path__, "scorefield."):
        if not module.name.startswith("scorefield.cli"):
            __import__(module.name)
    return {tag: cls for tag, cls in record_types().items() if cls.__module__.startswith("scorefield.")}


def test_every_record_can_be_read_and_its_defaults_survive_a_file():
    for tag, cls in project_records().items():
        get_type_hints(cls)  # raises for names that are imported for type checkers only; so would reading a file
        fields = [f for f in dataclasses.fields(cls) if f.init]
        if all(f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING for f in fields):
            value: Any = cls()
            assert loads(dumps(value), cls) == value, tag


# ------------------------------------------------------------------------------------------------ files


def files() -> Iterator[Path]:
    """Yield the project's files: those that git tracks, or those of a source archive."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        yield from (path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file())
    else:
        for folder in ("src", "tests", "docs", "benchmarks"):
            yield from (
                path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
            )


def test_no_file_contains_a_path_of_a_developers_machine():
    # The pattern is split, because this file would match it otherwise.
    homes = re.compile(rb"(?<![\w.])(/(wor" + rb"k|hom" + rb"e|roo" + rb"t|User" + rb"s)/|C:\\\\Users)\w")
    found = [str(p.relative_to(ROOT)) for p in files() if b"\0" not in (text := p.read_bytes()) and homes.search(text)]
    assert found == []


def test_one_version_everywhere():
    assert PROJECT["dynamic"] == ["version"]  # read from scorefield._version when built
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {scorefield.__version__}\n" in citation
    assert f"## [{scorefield.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_installed_for_development_is_pinned():
    pinned = {re.split(r"[=<>~]", line)[0].lower().replace("_", "-") for line in constraints()}
    wanted = [
        *PROJECT["dependencies"],
        *(p for extra in ("dev", "docs") for p in PROJECT["optional-dependencies"][extra]),
    ]
    assert {re.split(r"[\[=<>~]", name)[0].lower() for name in wanted} <= pinned


def test_torch_is_pinned_without_a_build():
    (torch_pin,) = (line for line in constraints() if line.startswith("torch=="))
    assert "+" not in torch_pin


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pages() -> list[Path]:
    return [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if blocks(page)]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_examples_of_the_pages_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The blocks of a page run from top to bottom; a block may use the results of those above it."""
    monkeypatch.chdir(tmp_path)
    script = types.ModuleType("__main__")  # as in a notebook, so that classes defined on a page can be saved and read
    monkeypatch.setitem(sys.modules, "__main__", script)
    for number, code in enumerate(blocks(page)):
        exec(compile(code, f"{page.name}, block {number}", "exec"), script.__dict__)


def test_hooks_fetch_nothing():
    repositories = re.findall(r"^\s*- repo: *(\S+)", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert repositories == ["local"]


def test_types_travel_with_the_package():
    assert (Path(scorefield.__file__).parent / "py.typed").exists()


def test_every_package_lists_its_modules() -> None:
    """The docstring of a package is its front page: a module that it does not mention cannot be found from there."""
    missing = {}
    for front in sorted((ROOT / "src" / "scorefield").glob("*/**/__init__.py")):
        page = ast.get_docstring(ast.parse(front.read_text())) or ""
        names = [p.stem for p in front.parent.glob("*.py") if p.stem not in ("__init__", "__main__")]
        names += [p.parent.name for p in front.parent.glob("*/__init__.py")]
        absent = [name for name in names if not re.search(rf"\b{name}\b", page)]
        if absent:
            missing[str(front.parent.relative_to(ROOT))] = absent
    assert not missing
