"""Parts from outside the package, and what a file may import: nothing that the user did not name."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch

import scorefield as sf
from scorefield import _codec, _plugins
from scorefield.data import DataSource
from scorefield.models.experiment import Experiment
from scorefield.nets import MLP, Module, PlainNetwork
from test_skeleton import project_records
from training.tiny import tiny

MINE = """
    import math
    import torch
    from scorefield._codec import record
    from scorefield.process import Process, TimeLimits

    @record
    class Mine{n}(Process):
        def alpha(self, t): return torch.cos(math.pi * t / 2.02)
        def sigma(self, t): return torch.sin(math.pi * t / 2.02)
        @property
        def t_min(self): return TimeLimits(1e-3, 1e-3, 1e-3)
"""


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins without plugins and without trust."""
    monkeypatch.setattr(_plugins, "_allowed", set())
    monkeypatch.setattr(_plugins, "_in_use", {})
    monkeypatch.setattr(_plugins, "_announced", [])


def written(folder: Path, experiment: Experiment | dict[str, Any], **beside: Any) -> Path:
    """A model folder as far as its experiment.json."""
    folder.mkdir(parents=True, exist_ok=True)
    value = experiment if isinstance(experiment, dict) else _codec.encode(experiment)
    (folder / "experiment.json").write_text(json.dumps({"schema": 1, **beside, "value": value}))
    return folder


def experiment_with(**changes: Any) -> dict[str, Any]:
    return _codec.encode(tiny()) | changes


def elsewhere(code: str, *, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in a folder."""
    path = os.pathsep.join(map(str, (Path(sf.__file__).parents[1], Path(__file__).parent)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
    )


# ------------------------------------------------------------------------------------------------ a stranger's folder


def callable_fields() -> Iterator[tuple[str, str]]:
    """(tag, field) of every record field that holds a function or class."""
    for tag, cls in project_records().items():
        for name, hint in get_type_hints(cls).items():
            parts = (hint, *get_args(hint))
            if any((get_origin(part) or part) is Callable for part in parts) and name in cls.__dataclass_fields__:
                yield tag, name


def test_there_are_fields_that_hold_functions() -> None:
    """Else the test below would show nothing."""
    assert {("GeneralSDE", "drift"), ("Module", "target"), ("Custom", "function")} <= set(callable_fields())


@pytest.mark.parametrize(("tag", "name"), sorted(callable_fields()))
def test_a_function_of_another_package_is_refused(tag: str, name: str) -> None:
    cls = _codec.record_types()[tag]
    required = {f.name: None for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    text = json.dumps({"schema": 1, "value": {"type": tag, **required, name: "os:abort"}})
    order = [name, *(n for n in required if n != name)]
    data = json.loads(text)
    data["value"] = {"type": tag, **{n: data["value"][n] for n in order}}
    with pytest.raises(_codec.CodecError, match=rf"{name}.*'os:abort'.*--trust os:abort"):
        _codec.loads(json.dumps(data), cls)


@pytest.mark.parametrize(
    "target",
    ["os:getcwd", "evil:run", "scorefield._files:os.abort", "scorefield._files:shutil.rmtree", "builtins:exec"],
)
def test_data_of_another_package_are_refused(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is imported, also a module that lies beside the folder."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = _codec.encode(DataSource()) | {"path": target}
    folder = written(tmp_path / "model", experiment_with(data=source))
    with pytest.raises(_codec.CodecError, match=rf"data\.path.*{target}.*--trust {target}"):
        sf.load(folder)
    assert "evil" not in sys.modules


def test_a_kind_that_imports_is_refused_whatever_its_path(tmp_path: Path) -> None:
    source = _codec.encode(DataSource()) | {"path": "antigravity", "kind": "object"}
    with pytest.raises(_codec.CodecError, match=r"data\.path.*antigravity"):
        sf.load(written(tmp_path, experiment_with(data=source)))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("target", ["subprocess:Popen", "os:system", "scorefield._files:os.system"])
def test_a_network_of_another_package_is_refused(target: str, tmp_path: Path) -> None:
    network = {"type": "Module", "target": target, "settings": {}}
    with pytest.raises(_codec.CodecError, match=rf"network\.target.*{target}.*sf\.load"):
        sf.load(written(tmp_path, experiment_with(network=network)))


def test_what_the_user_trusts_is_read() -> None:
    """A module, or one object of it; for one file, or for the process."""
    file = json.dumps({"schema": 1, "value": {"type": "Custom", "function": "textwrap:dedent"}})
    cls = _codec.record_types()["Custom"]
    for trust in (["textwrap"], ["textwrap:dedent"], ["os", "textwrap"]):
        assert _codec.loads(file, cls, trust).function is textwrap.dedent  # type: ignore[attr-defined]
    with pytest.raises(_codec.CodecError, match="textwrap:dedent"):
        _codec.loads(file, cls, ["textwrap:indent", "text", "textwrap.dedent"])
    _plugins.allow(["textwrap:dedent"])
    assert _codec.loads(file, cls).function is textwrap.dedent  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "os:", ":abort", "os abort", "../evil"])
def test_trust_names_a_module_or_an_object(name: str) -> None:
    with pytest.raises(ValueError, match="names neither a module"):
        _plugins.allow([name])


def test_what_the_user_types_needs_no_trust() -> None:
    """--set and Python code are the user's own words."""
    made = _codec.with_field(tiny(), "data.path", "os:getcwd")
    assert made.data.path == "os:getcwd"
    assert DataSource("os:getcwd").path == "os:getcwd"


# ------------------------------------------------------------------------------------------------ plugins


def plugin(folder: Path, n: int, more: str = "") -> str:
    (folder / f"mine{n}.py").write_text(textwrap.dedent(MINE.format(n=n)) + textwrap.dedent(more))
    return f"mine{n}"


def test_a_file_says_which_plugin_made_it(tmp_path: Path) -> None:
    """Written with it in one process, refused by name without it in another, read with it."""
    name = plugin(tmp_path, 1)
    made = elsewhere(
        f"""
        import {name}
        from scorefield import _codec
        from training.tiny import tiny
        from dataclasses import replace
        from scorefield.training.trainer import train
        from scorefield.score import LogSigma
        train(replace(tiny(steps=2, validate_every=0), process={name}.Mine1(), time_input=LogSigma()), "run")
        """,
        folder=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())["plugins"] == {"Mine1": name}
    with pytest.raises(_codec.CodecError, match=rf"process: made with Mine1 of {name}: add --plugin {name}"):
        sf.load(tmp_path / "run")
    load = "import scorefield as sf; print(type(sf.load('run').process).__name__)"
    use = f"from scorefield import _plugins; _plugins.use(['{name}']); "
    assert elsewhere(use + load, folder=tmp_path).stdout == "Mine1\n"
    assert elsewhere(f"import {name}; " + load, folder=tmp_path).stdout == "Mine1\n"
    file = f"from scorefield import _plugins; _plugins.use(['{name}.py']); "
    assert elsewhere(file + load, folder=tmp_path).stdout == "Mine1\n"
    variable = "from scorefield import _plugins; _plugins.use(); " + load
    assert elsewhere(variable, folder=tmp_path, SCOREFIELD_PLUGINS=name).stdout == "Mine1\n"


def test_a_plugin_may_be_named_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions and classes of a plugin in use, but not what it imported from elsewhere."""
    monkeypatch.chdir(tmp_path)
    plugin(tmp_path, 2, "import os\nfrom os import abort\ndef weight(process, t): return t\n")
    _plugins.use(["mine2"])
    cls = _codec.record_types()["Custom"]

    def read(target: str) -> Any:
        return _codec.loads(json.dumps({"schema": 1, "value": {"type": "Custom", "function": target}}), cls)

    assert read("mine2:weight").function.__name__ == "weight"
    for target in ("mine2:abort", "mine2:os.abort"):
        with pytest.raises(_codec.CodecError, match=r"\(posix|\(os|\(nt"):
            read(target)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "no_such_plugin", "there is no plugin module 'no_such_plugin'"),
        (None, "no/such.py", "there is no plugin file"),
        ("import no_such_package\n", "broken3", "broken3 cannot be imported: No module named 'no_such_package'"),
        ("1 / 0\n", "broken4", "broken4 cannot be imported: ZeroDivisionError"),
        ("1 / 0\n", "broken5.py", r"broken5\.py cannot be imported: ZeroDivisionError"),
        ("", "json.py", "another module is called 'json'"),
    ],
)
def test_a_plugin_that_cannot_be_imported(
    text: str | None, name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / f"{name.removesuffix('.py')}.py").write_text(text)
    with pytest.raises(_plugins.PluginError, match=message):
        _plugins.use([name])


def test_installed_packages_announce_parts(tmp_path: Path) -> None:
    """By an entry point, imported when a name is asked for that is not known otherwise; a broken one is a warning."""
    plugin(tmp_path, 6, "from scorefield.recipes import RECIPES\nRECIPES.add('announced')(lambda: 6)\n")
    info = tmp_path / "announcer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: announcer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scorefield.parts]\nmine = mine6\nbroken = no_such_module_7\n")
    code = """
        import sys, warnings
        import scorefield.recipes as r
        assert "mine6" not in sys.modules
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            print(r.recipe("announced"), [str(w.message) for w in seen])
        """
    done = elsewhere(code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('6 ["the parts that the package announcer announces cannot be imported: Module')


def test_a_name_is_given_once() -> None:
    table = _plugins.Table("thing", {"a": len})
    with pytest.raises(ValueError, match="already a thing called 'a'"):
        table["a"] = abs
    table["a"] = len
    table.add("b")(abs)
    assert list(table) == ["a", "b"]


# ------------------------------------------------------------------------------------------------ networks


class Plain(torch.nn.Module):
    """x and c alone."""

    def __init__(self, shape: tuple[int, ...], width: int = 4):
        super().__init__()
        self.layer = torch.nn.Linear(shape[0] + 1, width)
        self.out = torch.nn.Linear(width, shape[0])

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(torch.cat([x, c[:, None]], dim=1)).tanh())


class Conditional(Plain):
    """With a condition."""

    multiple = 1

    def forward(self, x: torch.Tensor, c: torch.Tensor, condition: Any) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x + 0.0 * condition["class"][:, None], c)


def wrong_shape(shape: tuple[int, ...]) -> torch.nn.Module:
    class Flat(torch.nn.Module):
        def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return x.sum(1)

    return Flat()


SPEC = sf.DataSpec((3,))
LABELLED = sf.DataSpec((3,), conditions=(sf.ConditionSpec("class", "class", 2),))


def test_a_plain_module_is_a_network() -> None:
    x, c = torch.randn(5, 3), torch.rand(5)
    network = Module(Plain, width=7).build(SPEC)
    assert isinstance(network, PlainNetwork) and network(x, c).shape == x.shape
    assert Module(Plain, {"width": 7}) == Module(Plain, width=7)
    known = {"class": torch.zeros(5, dtype=torch.int64)}
    assert Module(Conditional).build(LABELLED)(x, c, known).shape == x.shape
    made = Module(lambda data: MLP(width=4, depth=1).build(data)).build(SPEC)
    assert not isinstance(made, PlainNetwork)


def test_a_module_that_is_made_already_is_used_and_not_saved() -> None:
    instance = Plain((3,))
    network = Module(instance).build(SPEC)
    assert isinstance(network, PlainNetwork) and network.module is instance
    with pytest.raises(_codec.CodecError, match="an instance of Plain cannot be saved"):
        _codec.dumps(Module(instance))
    with pytest.raises(ValueError, match="is already made and takes no settings"):
        Module(instance, width=3)


def test_modules_that_do_not_fit_are_explained() -> None:
    with pytest.raises(ValueError, match=r"forward\(x, c\) takes no condition, and the data have 'class'"):
        Module(Plain).build(LABELLED)
    with pytest.raises(ValueError, match=r"Plain cannot be made with \{'depth': 3\}"):
        Module(Plain, depth=3).build(SPEC)
    with pytest.raises(ValueError, match=r"returned \(5,\) for examples of shape \(5, 3\)"):
        Module(wrong_shape).build(SPEC)(torch.randn(5, 3), torch.rand(5))
    with pytest.raises(TypeError, match="made a list"):
        Module(list).build(SPEC)  # type: ignore[arg-type]
    for path in ("no_such_package:Net", "torch.nn:NoSuch", "torch.nn", ":Net"):
        with pytest.raises(ValueError, match=r"cannot be imported|is no import path"):
            Module(path)


def test_a_run_with_a_module_is_a_model_folder(tmp_path: Path) -> None:
    """Trained, resumed and read back in this process without further trust; refused by name in another."""
    name = "nets8"
    (tmp_path / f"{name}.py").write_text(
        "import math, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, shape, width):\n"
        "        super().__init__()\n"
        "        n = math.prod(shape)\n"
        "        self.a, self.b = torch.nn.Linear(n + 1, width), torch.nn.Linear(width, n)\n"
        "    def forward(self, x, c):\n"
        "        return self.b(self.a(torch.cat([x.flatten(1), c[:, None]], 1)).tanh()).reshape(x.shape)\n"
    )
    code = f"""
        from dataclasses import replace
        from training.tiny import tiny
        from scorefield.nets import Module
        from scorefield.training.trainer import train
        import scorefield as sf
        made = replace(tiny(steps=2, validate_every=0), network=Module("{name}:Net", width=5))
        train(made, "run")
        train(replace(made, training=replace(made.training, steps=3)), "run", resume="auto")
        print(sf.load("run").sample(2, sampler="dpm").x.shape)
        """
    made = elsewhere(code, folder=tmp_path)
    assert made.stdout == "torch.Size([2, 1, 8, 8])\n", made.stderr
    load = "import scorefield as sf; print(sf.load('run').step)"
    refused = elsewhere(load, folder=tmp_path)
    assert (
        refused.returncode == 1 and f"names '{name}:Net', which is code outside scorefield ({name})" in refused.stderr
    )
    trusting = load.replace("'run'", f"'run', trust=['{name}:Net']")
    assert elsewhere(trusting, folder=tmp_path).stdout == "3\n"


def test_a_network_of_a_notebook_trains_there(tmp_path: Path) -> None:
    """Classes of an interactive session can be trained with and loaded in it; elsewhere the message says what to do."""
    code = """
        import torch
        from dataclasses import replace
        from training.tiny import tiny
        from scorefield.nets import Module
        from scorefield.training.trainer import train
        import scorefield as sf
        class Net(torch.nn.Module):
            def __init__(self, data):
                super().__init__()
                self.a = torch.nn.Linear(64, 64)
            def forward(self, x, c):
                return self.a(x.flatten(1)).reshape(x.shape)
        train(replace(tiny(steps=2, validate_every=0), network=Module(Net)), "run")
        print(sf.load("run").step)
        """
    assert elsewhere(code, folder=tmp_path).stdout == "2\n"
    with pytest.raises(_codec.CodecError, match="the notebook that wrote it defined; define it in a module"):
        sf.load(tmp_path / "run")
