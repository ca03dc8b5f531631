"""scorefield likelihood: the budget in print, files batch by batch, going on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.losses import DenoisingScoreMatching
from scorefield.models.model import Model
from scorefield.process import VP, LinearBetas, Tabulated
from scorefield.score import LevelLabel, NoiseForm
from scorefield.training.trainer import train
from training.tiny import tiny

FAST = ("-n", "5", "--batch-size", "2", "--rtol", "3e-2", "--probes", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model folder."""
    return train(tiny(steps=4, checkpoint_every=4), tmp_path_factory.mktemp("model") / "tiny")


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "likelihood.npz") as stored:
        return dict(stored)


def test_interrupted_and_taken_up_again_the_numbers_are_the_same(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["likelihood", str(model), *FAST, "--out", str(whole)]) == 0
    text = capsys.readouterr().out
    for words in ("nats:", "bits per dim:", "probes, standard error", "solver", "truncation", "prior", "90% interval"):
        assert words in text, words
    record = json.loads((whole / "likelihood.json").read_text())
    assert record["count"] == 5 and record["failed"] == 0 and record["budget"]["interval"]["level"] == 0.9

    asked: list[int] = []
    own = Model.log_prob

    def stops(self: Model, x: torch.Tensor, **named):  # type: ignore[no-untyped-def]
        asked.append(named["start"])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return own(self, x, **named)

    monkeypatch.setattr(Model, "log_prob", stops)
    assert main(["likelihood", str(model), *FAST, "--out", str(parts)]) == 130
    assert "1 batches of 3" in capsys.readouterr().err and not (parts / "likelihood.npz").exists()
    assert main(["likelihood", str(model), *FAST, "--out", str(parts)]) == 0
    assert asked == [0, 2, 2, 4], "the finished batch is not computed again"
    first, second = arrays(whole), arrays(parts)
    assert set(first) == set(second) and {"nats", "interval", "std_error", "solver_error", "per_probe"} <= set(first)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
    assert first["nats"].shape == (5,) and first["interval"].shape == (5, 2)


def test_a_folder_of_another_computation_is_not_mixed_with(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["likelihood", str(model), *FAST, "--out", str(tmp_path)]) == 0
    assert main(["likelihood", str(model), *FAST, "--seed", "1", "--out", str(tmp_path)]) == 2
    assert "another computation (other seed)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-n", "0"), "n=0 must be at least 1"),
        (("--seed", "-1"), "seed=-1"),
        (("--target-se", "0"), "target_se=0"),
        (("--method", "bound"), "no levels"),
        (("--batch-size", "0"), "batch_size=0"),
        (("--rtol", "0"), "must both be positive"),
    ],
)
def test_refused(model: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    assert main(["likelihood", str(model), *words]) == 2
    assert message in capsys.readouterr().err


def test_bound_of_a_model_that_knows_only_its_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its flow is refused with the way out; the bound is computed, and written beside."""
    table = Tabulated(LinearBetas(levels=30))
    base = tiny(steps=2, checkpoint_every=2)
    experiment = replace(
        base,
        process=VP(),
        form=NoiseForm(),
        time_input=LevelLabel(),
        levels=table,
        objective=DenoisingScoreMatching(levels=table),
    )
    folder = train(experiment, tmp_path / "ladder")
    assert main(["likelihood", str(folder), *FAST]) == 2
    assert "--method bound" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main(["likelihood", str(folder), "-n", "3", "--method", "bound", "--draws", "2", "--out", str(out)]) == 0
    assert "variational bound, bits per dim:" in capsys.readouterr().out
    found = arrays(out)
    assert found["bound_nats"].shape == (3,) and np.isfinite(found["bound_std_error"]).all()
    assert found["bound_nfe"].tolist() == [60] * 3
