"""The examples run, in a few steps of everything: they print what they promise and draw their figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
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
    assert scripts == {*FIGURES, "own_parts"}
    page = "".join((EXAMPLES.parent / "docs" / name).read_text() for name in ("examples.md", "adding.md"))
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


@pytest.mark.slow
def test_parts_of_ones_own_work_in_another_process(tmp_path: Path) -> None:
    """Process, network, loss, sampler, metric, reader and recipe of one file of under 120 lines."""
    script = EXAMPLES / "own_parts.py"
    assert len(script.read_text().splitlines()) < 120
    made = subprocess.run([sys.executable, str(script), str(tmp_path / "own")], capture_output=True, text=True)
    assert made.returncode == 0 and "Samples: 500 of shape (2,)" in made.stdout, made.stderr

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scorefield", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    sampled = command(
        "sample", "own", "--plugin", str(script), "--sampler", "flow-midpoint", "--steps", "20", "-n", "400"
    )
    assert sampled.returncode == 0 and "Midpoint, 41 network calls each" in sampled.stdout, sampled.stderr
    with np.load(tmp_path / "samples" / "own" / "samples.npz") as stored:
        radius = np.linalg.norm(stored["x"] - [3.0, 0.0], axis=1)
    assert abs(np.median(radius) - 1.0) < 0.15
    measured = command("evaluate", "own", "--plugin", str(script), "--metrics", "mean-distance", "-n", "100")
    assert measured.returncode == 0 and "distance of means" in measured.stdout, measured.stderr
    ring = ("--data", "own/ring.xy", "--out", "again", "--set", "training.steps=5")
    trained = command("train", "own-ring", "--plugin", str(script), *ring)
    assert trained.returncode == 0 and (tmp_path / "again" / "model.safetensors").is_file(), trained.stderr
    without = command("sample", "own")
    assert without.returncode == 2 and "made with Cosine of own_parts: add --plugin own_parts" in without.stderr
