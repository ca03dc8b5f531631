"""Folders and files written before the packages were renamed still open and give the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import scorefield as sf
from scorefield import _codec
from scorefield.models.experiment import Experiment
from scorefield.models.run_folder import read_experiment
from scorefield.models.sample_folder import read_samples
from scorefield.models.sampler_files import read_table, read_tuned
from scorefield.recipes import RECIPES, recipe
from scorefield.training.trainer import train
from tolerance import SAMPLES_EQUAL

OLD = Path(__file__).parents[1] / "golden_folders" / "before_the_move"
EXPECTED = json.loads((OLD / "expected.json").read_text())
MODELS = ("score", "adversarial", "energy", "spiral", "conditional", "sampled")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_folder_opens_with_its_numbers(name: str) -> None:
    model, expected = sf.load(OLD / name, device="cpu"), EXPECTED[name]
    assert model.hash == expected["hash"] and model.weights == expected["weights"]
    torch.manual_seed(0)
    x, t = torch.randn(2, *model.data.shape), torch.tensor([0.3, 0.8], dtype=torch.float64)
    condition = {"class": 3} if name == "conditional" else None
    score = model.score(x, t, condition).flatten()[:8]
    torch.testing.assert_close(score, torch.tensor(expected["score"]), rtol=SAMPLES_EQUAL, atol=SAMPLES_EQUAL)
    if expected["sample"] is not None:
        drawn = model.sample(2, sampler="dpm", seed=1, condition=condition).x.flatten()[:8]
        torch.testing.assert_close(drawn, torch.tensor(expected["sample"]), rtol=SAMPLES_EQUAL, atol=SAMPLES_EQUAL)


def test_the_bundled_model_is_the_same() -> None:
    assert sf.load("digits", device="cpu").hash == EXPECTED["bundled"]["hash"]


@pytest.mark.parametrize("name", ["score", "adversarial", "energy", "spiral"])
def test_a_finished_run_can_be_resumed(name: str, tmp_path: Path) -> None:
    run = shutil.copytree(OLD / name, tmp_path / name)
    experiment = read_experiment(run)
    again = _codec.with_field(experiment, "training.steps", 8)
    train(again, run, resume="auto")
    assert (run / "checkpoints" / "latest").read_text() == "step_8"


def test_a_guidance_model_opens_and_guides() -> None:
    guided = sf.load(OLD / "score", device="cpu").guided(sf.load_guide(OLD / "guide"), scale=1.0)
    assert torch.isfinite(guided.sample(2, sampler="dpm", condition={"class": 3}).x).all()


def test_measured_and_tuned_samplers_are_read() -> None:
    model = sf.load(OLD / "sampled", device="cpu")
    table = read_table(OLD / "sampled", model.hash)
    assert table is not None and len(table.rows) > 5
    tuned = read_tuned(OLD / "sampled", model.name, model.hash)
    assert model.sampler("tuned") == tuned.sampler


def test_samples_are_read() -> None:
    assert read_samples(OLD / "samples").x.shape == (4, 1, 8, 8)


def test_every_recipe_reads_as_it_was_written() -> None:
    written = json.loads((OLD / "recipes.json").read_text())
    assert set(written) <= set(RECIPES)
    for name, value in written.items():
        assert _codec.loads(json.dumps(value), Experiment) == recipe(name), name
