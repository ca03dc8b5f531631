"""The wheel holds what it needs: installed in an empty environment, away from the checkout, the commands work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by `python -m build` from a copy of the tracked files."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    assert list(out.glob("*.tar.gz"))
    return made


@pytest.mark.slow
def test_the_wheel_holds_data_models_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("py.typed", "data/bundled/digits.npz", "models/bundled/digits/model.safetensors"):
        assert f"scorefield/{part}" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


@pytest.mark.slow
def test_the_wheel_works_where_nothing_else_is(wheel: Path, tmp_path: Path) -> None:
    """In an environment that holds the core dependencies alone."""
    venv.create(tmp_path / "empty", with_pip=True)
    scripts = tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(scripts / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    installed = subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], capture_output=True, text=True)
    if installed.returncode and "No matching distribution" in installed.stderr:
        pytest.skip("the package index cannot be reached")
    assert installed.returncode == 0, installed.stderr
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SCOREFIELD"))}

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(scripts / "scorefield"), *words],
            cwd=tmp_path,
            env={**clean, "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "digits" in run("recipes")
    run("demo", "--out", "demo", "--minutes", "0.3")
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    run("selftest", "--out", "selftest")
    certificate = json.loads((tmp_path / "selftest" / "certificate.json").read_text())
    assert certificate
