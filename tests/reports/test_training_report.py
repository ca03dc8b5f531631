"""The page of a training, from the files of its folder: affordable samples, curves, and the words for a paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scorefield.data import open_data
from scorefield.models.experiment import Experiment
from scorefield.process.grids import Uniform
from scorefield.reports import training_report as module
from scorefield.reports.training_report import training_report
from scorefield.sampling import ReverseDiffusion, Sampler
from scorefield.training.trainer import train
from training.test_simulated_run import simulated
from training.tiny import tiny, two_players

FEW = {"samples": 4, "sample_steps": 3, "steps": 7, "validate_every": 7, "checkpoint_every": 7}


def page(experiment: Experiment, folder: Path) -> str:
    train(experiment, folder)
    return training_report(folder, open_data(experiment.data)).read_text(encoding="utf-8")


def test_samples_are_drawn_where_they_are_cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = replace(tiny(**FEW), sampler=Sampler(ReverseDiffusion(), Uniform(3)))
    monkeypatch.setattr(module, "SHARE", 1.0)
    shown = page(experiment, tmp_path / "run")
    assert "4 samples, not chosen." in shown and "4 training examples." in shown
    assert "4 network evaluations each" in shown and "7 steps of 24 examples" in shown
    assert "song2021sde" in shown and "Loss of each noise level" in shown and "7 of 7 steps" in shown
    # 4 samples of 3 calls are 12, a training of 7 steps of 24 examples 504: dear at less than a 42nd of it.
    monkeypatch.setattr(module, "SHARE", 0.0237)
    again = training_report(tmp_path / "run", open_data(experiment.data)).read_text(encoding="utf-8")
    assert "No samples were drawn" in again and "network evaluations each" not in again


@pytest.mark.parametrize("experiment", [two_players(1, **FEW), simulated()], ids=["two players", "simulated"])
def test_every_kind_of_run_has_a_page(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", 1e9)
    shown = page(experiment, tmp_path / "run")
    assert "samples, not chosen." in shown and "For a paper" in shown
    assert ("critic" in shown) is (experiment.adversary is not None)
