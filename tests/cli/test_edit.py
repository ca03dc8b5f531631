"""scorefield edit: what is known stays, files and numbers, going on after a stop, colours, energies, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scorefield.cli import main
from scorefield.cli.console.arguments import SOLVERS
from scorefield.cli.latents import Latents
from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.inverse import all_solvers
from scorefield.nets.energies.energy_resnet import EnergyResNet
from scorefield.recipes import recipe
from scorefield.training.trainer import train
from training.tiny import tiny

QUICK = ("-n", 2, "--samples", 3, "--steps", 4)


def run(model: object, action: str, *words: object) -> int:
    return main(["edit", action, str(model), *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], model: object, action: str, *words: object) -> str:
    assert run(model, action, *words) == 2
    return capsys.readouterr().err


def arrays(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a perceptron on small colour images."""
    folder = tmp_path_factory.mktemp("colour")
    np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 256, (80, 3, 4, 4), np.uint8))
    made = tiny(steps=2, checkpoint_every=2, validate_every=0)
    spec = DataSpec((3, 4, 4), 0, 255, 256, model_range=(-1.0, 1.0))
    source = DataSource(str(folder / "x.npy"), held_out=20, model_range=(-1.0, 1.0))
    return train(replace(made, data=source, spec=spec), folder / "tiny")


def test_choices_are_those_of_the_room() -> None:
    assert set(SOLVERS.split("|")) == {"auto", *all_solvers()}


def test_inpainting_keeps_what_is_known_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("digits", "inpaint", "--mask", "right", "--batch-size", 3, *QUICK, "--solver", "ddrm", "--out", tmp_path)
    assert run(*words) == 0
    assert "5 network calls" in capsys.readouterr().out and (tmp_path / "answers.png").is_file()
    found = arrays(tmp_path)
    assert found["answers"].shape == (2, 3, 1, 8, 8) and found["observed"].shape == (2, 32)
    known = found["answers"][..., :4].reshape(2, 3, 32)
    assert np.array_equal(known, np.broadcast_to(found["observed"][:, None].astype(known.dtype), known.shape))
    np.testing.assert_allclose(found["mean"], found["answers"].mean(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["std"], found["answers"].std(1, ddof=1), rtol=1e-4, atol=1e-5)
    assert (found["std"][..., 4:].max(), found["std"][..., :4].max()) > (0.1, 0.0)
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["residual"] == 0.0 and numbers["why"] == "as asked" and numbers["solver"]["type"] == "DDRM"
    (tmp_path / "batches" / "answers_00000001.npz").unlink()
    assert run(*words) == 0
    assert all(np.array_equal(value, found[name]) for name, value in arrays(tmp_path).items())
    assert "other seed" in refused(capsys, *words, "--seed", 1)


def test_every_answer_is_its_own_whatever_the_batches(tmp_path: Path) -> None:
    words = ("digits", "inpaint", *QUICK, "--solver", "replacement", "--sampler", "em", "--noise", 1)
    assert run(*words, "--batch-size", 3, "--out", tmp_path / "a") == 0
    assert run(*words, "--batch-size", 6, "--out", tmp_path / "b") == 0
    a, b = (arrays(tmp_path / name)["answers"] for name in "ab")
    np.testing.assert_allclose(a, b, atol=1e-3)
    assert np.abs(a[0, 0] - a[0, 1]).max() > 0.1


def test_restoring_measurements_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("digits", "restore", "--operator", "downsample:2", "--noise", 0.5, *QUICK, "--solver", "ddrm")
    assert run(*words, "--out", tmp_path / "own") == 0
    own = arrays(tmp_path / "own")
    assert "error of the mean" in json.loads((tmp_path / "own" / "numbers.json").read_text())
    given = (*words, "--measured", tmp_path / "own" / "observed.npy")
    assert run(*given, "--out", tmp_path / "given") == 0
    assert np.array_equal(arrays(tmp_path / "given")["answers"], own["answers"])
    numbers = json.loads((tmp_path / "given" / "numbers.json").read_text())
    assert "error of the mean" not in numbers and len(numbers["residual p-values"]) == 2
    np.save(tmp_path / "y.npy", np.zeros((2, 5, 5)))
    assert "downsample:2 gives (n, 1, 4, 4)" in refused(capsys, *words, "--measured", tmp_path / "y.npy")


def test_batches_of_another_operator_are_not_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two matrices in a file of one name, and the same y."""
    np.save(tmp_path / "y.npy", np.zeros((2, 3)))
    words = (
        "digits",
        "restore",
        "--operator",
        f"matrix:{tmp_path / 'A.npy'}",
        "--noise",
        1,
        *QUICK,
        "--solver",
        "ddrm",
    )
    words = (*words, "--measured", tmp_path / "y.npy", "--out", tmp_path / "out")
    np.save(tmp_path / "A.npy", np.eye(3, 64))
    assert run(*words) == 0
    np.save(tmp_path / "A.npy", np.eye(3, 64, 5))
    assert "other operator" in refused(capsys, *words)


def test_colours(coloured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(coloured, "colorize", *QUICK, "--solver", "replacement", "--sampler", "em", "--out", tmp_path) == 0
    found = arrays(tmp_path)
    grey = found["answers"].mean(axis=2, keepdims=True)
    np.testing.assert_allclose(grey, np.broadcast_to(found["observed"][:, None], grey.shape), atol=2e-2)
    assert np.abs(found["answers"][0, 0] - found["answers"][0, 1]).max() > 1.0
    assert "images of 3 channels" in refused(capsys, "digits", "colorize")


def test_an_energy_is_inpainted_at_falling_temperatures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = recipe("digits-energy")
    training = replace(made.training, steps=2, batch_size=16, checkpoint_every=2, validate_every=0)
    model = train(replace(made, network=EnergyResNet(4, 6), training=training), tmp_path / "narrow")
    assert run(model, "inpaint", "--mask", "centre", "-n", 2, "--samples", 2, "--steps", 20, "--out", tmp_path) == 0
    assert "falling temperatures" in capsys.readouterr().out
    found = arrays(tmp_path)
    known = np.ones((8, 8), bool)
    known[2:6, 2:6] = False
    assert np.array_equal(found["answers"][:, 1][..., known][:, 0], found["observed"].astype(np.float32))
    assert json.loads((tmp_path / "numbers.json").read_text())["sampler"]["step"]["type"] == "TemperatureLangevin"


def test_interpolation_is_that_of_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("scorefield.cli.latents.run", asked.append)
    assert run("digits", "interpolate", "-n", 4, "--points", 3, "--rtol", 0.1) == 0
    assert asked == [Latents("interpolate", "digits", n=4, points=3, rtol=0.1, out=Path("edit/digits/interpolate"))]


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mask.npy", np.eye(5))
    assert "5, 5" in refused(capsys, "digits", "inpaint", "--mask", tmp_path / "mask.npy")
    assert "takes the place of" in refused(capsys, "digits", "inpaint", "--solver", "ddrm", "--sampler", "pc")
    assert "no sampler 'emm'" in refused(capsys, "digits", "inpaint", "--sampler", "emm")
    assert "at least 1" in refused(capsys, "digits", "inpaint", "--samples", 0)
    told = refused(capsys, "digits", "inpaint", "--solver", "dps")
    assert "divides by the noise" in told and "this observation: ddrm, diffpir, pigdm, repaint, replacement" in told
    measured = ("digits", "restore", "--operator", "downsample:2", "--measured", tmp_path / "y.npy")
    for y, message in (
        (np.array(["4"]), "not real numbers"),
        (np.ones((2, 1, 4, 4), complex), "complex128, not real numbers"),
        (np.zeros((0, 1, 4, 4)), "has shape (0, 1, 4, 4)"),
    ):
        np.save(tmp_path / "y.npy", y)
        assert message in refused(capsys, *measured)
    (tmp_path / "y.npy").write_bytes(b"")
    assert "no .npy file" in refused(capsys, *measured)
