"""scorefield latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield.cli import main

LOOSE = ["--rtol", "0.002"]


def run(*words: str | Path) -> int:
    return main(["latents", *map(str, words), *LOOSE])


def test_encode_writes_examples_and_their_latents(tmp_path: Path) -> None:
    assert run("encode", "digits", "-n", "3", "--out", tmp_path) == 0
    with np.load(tmp_path / "latents.npz") as found:
        assert found["x"].shape == found["latents"].shape == (3, 1, 8, 8)
        assert 5.0 < found["latents"].std() < 20.0  # the prior's deviation is 11


def test_a_path_ends_at_its_examples(tmp_path: Path) -> None:
    assert run("interpolate", "digits", "-n", "2", "--points", "4", "--out", tmp_path) == 0
    with np.load(tmp_path / "interpolation.npz") as found:
        assert found["x"].shape == (4, 1, 8, 8)
        ends = np.abs(found["x"][[0, -1]] - found["ends"]).mean()
        across = np.abs(found["x"][[0, -1]] - found["ends"][::-1]).mean()
        assert ends < 0.5 < across  # grey values of 0 to 16
    with Image.open(tmp_path / "interpolation.png") as picture:
        assert picture.width > picture.height


def test_temperature_and_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("temperature", "digits", "-n", "2", "--points", "3", "--out", tmp_path) == 0
    with np.load(tmp_path / "temperature.npz") as found:
        ratio = np.linalg.norm(found["latents"][2]) / np.linalg.norm(found["latents"][0])
        assert ratio == pytest.approx((found["temperatures"][2] / found["temperatures"][0]) ** 0.5, rel=1e-4)
    assert run("compare", "digits", "--other", "digits", "-n", "4") == 0
    out = capsys.readouterr().out
    assert "correlation per dimension: 1.0000" in out and "shuffled" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare", "digits"), "--other MODEL"),
        (("encode", "digits", "--other", "digits"), "the other actions take one"),
        (("interpolate", "digits", "-n", "3"), "even number"),
        (("encode", "digits", "-n", "0"), "at least 1"),
        (("encode", "digits", "--seed", "-1"), "must not be negative"),
        (("encode", "digits", "-n", "100000"), "examples and -n 100000"),
    ],
)
def test_what_cannot_work(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err
