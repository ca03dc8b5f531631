"""The examples run, in a few steps of everything: they print what they promise and draw their figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
FIGURES = {"digits": "digits", "fashion_mnist": "fashion", "field": "field", "signal_deconvolution": "signals"}


def run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--fast", *flags], capture_output=True, text=True, timeout=900
    )


def test_every_example_is_tested_and_listed() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"report"}
    assert scripts == set(FIGURES)
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    assert all(f"examples/{name}.py" in page for name in scripts)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    done = run(name, "--out", str(tmp_path))
    if done.returncode and "skipped: " in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    for promised in ("root mean square error of the mean", "90% intervals hold", "residual test p ="):
        assert promised in done.stdout
    with Image.open(tmp_path / f"{FIGURES[name]}.png") as figure:
        assert len(set(figure.convert("L").tobytes())) > 50, "an empty figure"


@pytest.mark.slow
def test_absent_data_are_named(tmp_path: Path) -> None:
    done = run("fashion_mnist", "--data", str(tmp_path / "none"))
    assert done.returncode == 1 and "skipped: " in done.stderr and "--data" in done.stderr
