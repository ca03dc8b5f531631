"""A run that computes activations again is the same run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scorefield.models.weights import load_tensors
from scorefield.recipes import recipe
from scorefield.training.trainer import TrainingError, train


def test_the_run_is_the_same(tmp_path: Path) -> None:
    base = recipe("digits")
    training = replace(base.training, steps=2, batch_size=4, validate_every=0, sample_every=0)
    found = []
    for again in (False, True):
        run = tmp_path / str(again)
        train(replace(base, training=replace(training, checkpoint_activations=again)), run)
        found.append(load_tensors(run / "model.safetensors")[0]["raw"])
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_other_networks_refuse(tmp_path: Path) -> None:
    base = recipe("digits-mlp")
    with pytest.raises(TrainingError, match="for the U-Nets"):
        train(replace(base, training=replace(base.training, checkpoint_activations=True)), tmp_path / "run")
