"""Guides of trained models: trained by the one loop, stored with what they belong to, refused where they do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.data import DataError, DataSource, open_data
from scorefield.data_spec import DataSpec
from scorefield.models.experiment import Experiment, GuideExperiment
from scorefield.models.guidance import Guide
from scorefield.models.model import Model
from scorefield.nets import MLP, GuideMLP
from scorefield.process import VE, LinearBetas, Tabulated
from scorefield.recipes import recipe
from scorefield.score import Category, Guided, Quantity
from scorefield.score.guidance import noise_process
from scorefield.score.parametrisation import LevelLabel
from scorefield.training.guidance import FILE, guide_experiment, level_times, train_guide, with_data
from scorefield.training.trainer import train
from tolerance import FLOAT32
from training.tiny import fingerprint, tiny

SHORT = {"steps": 6, "batch_size": 16, "checkpoint_every": 3, "validate_every": 6, "validation_examples": 8, "keep": 3}


def model_of(experiment: Experiment, spec: DataSpec) -> Model:
    """A model with the weights it was born with, moved so that every one of them matters."""
    torch.manual_seed(3)
    full = replace(experiment, spec=spec)
    network = full.network.build(spec).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return Model(full, network)


def digits(experiment: Experiment | None = None, **training: object) -> Model:
    experiment = experiment or tiny()
    conditional = bool(training)
    experiment = replace(
        experiment,
        data=replace(experiment.data, conditional=conditional),
        training=replace(experiment.training, **training),  # type: ignore[arg-type]
    )
    return model_of(experiment, open_data(experiment.data).spec)


def trained(model: Model, out: Path, kind: str = "classifier", resume: str = "no", **settings: object) -> Guide:
    experiment = guide_experiment(model, kind)  # type: ignore[arg-type]
    experiment = replace(
        experiment,
        network=GuideMLP(width=8, depth=1),
        training=replace(experiment.training, **{**SHORT, **settings}),  # type: ignore[arg-type]
    )
    experiment, data = with_data(experiment, kind, model, open_data(experiment.data))  # type: ignore[arg-type]
    return train_guide(experiment, data, out, resume=resume)[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> Model:
    return digits()


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guide") / "classes"
    trained(model, out)
    return out


def test_a_folder_holds_what_it_belongs_to(model: Model, folder: Path) -> None:
    guide = sf.load_guide(folder)
    assert guide.experiment.process == model.process and guide.experiment.model_hash == model.hash
    assert guide.answer == Category("class", 10, tuple("0123456789")) and guide.step == 6
    record = json.loads((folder / FILE).read_text())
    assert record["guide_hash"] == guide.hash and record["model"] == model.name
    levels = record["held_out"]["levels"]
    assert len(levels) == 10 and levels[0]["sigma"] < levels[-1]["sigma"] and record["held_out"]["examples"] == 360
    assert record["held_out"]["loss_without_x"] == pytest.approx(np.log(10), abs=0.01)
    assert "p_t(y | x)" in (folder / "README.md").read_text()


def test_training_resumes_bit_for_bit(model: Model, folder: Path, tmp_path: Path) -> None:
    trained(model, tmp_path / "run", steps=3)
    trained(model, tmp_path / "run", resume="auto")
    resumed, straight = (  # but for the rows: a run logs at its last step
        {name: value for name, value in fingerprint(run).items() if name != "rows"}
        for run in (tmp_path / "run", folder)
    )
    assert resumed == straight and len(resumed) == 4


def test_a_guided_model_follows_the_sum(model: Model, folder: Path) -> None:
    guide = sf.load_guide(folder)
    guided = model.guided(guide, 2.0)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.01, 0.4, 1.0], dtype=torch.float64)
    condition = {"class": torch.tensor([1, 7, -1])}
    expected = model.score(x, t) + 2.0 * guide.as_score()(x, t, condition)
    assert (guided.score(x, t, condition) - expected).abs().max() <= FLOAT32 * expected.abs().max()
    assert torch.equal(guided.score(x, t, condition)[2], model.score(x, t)[2]) and not model.guidance
    sampler = model.sampler("em", 3)
    samples = guided.sample(2, sampler=sampler, condition={"class": 7})
    free = model.sample(2, sampler=sampler)
    assert samples.nfe.tolist() == [8, 8] and free.nfe.tolist() == [4, 4] and not torch.equal(samples.x, free.x)
    assert torch.equal(guided.sample(2, sampler=sampler).x, free.x)  # nothing is known, so nothing is guided to
    alone = guided.sample(1, start=1, sampler=sampler, condition={"class": 7}).x
    assert (alone - samples.x[1:]).abs().max() <= FLOAT32 * samples.x.abs().max()
    assert guided.guidance[0].guide == "classes" and guided.guidance[0].guide_hash == guide.hash
    with pytest.raises(ValueError, match="must be one of 0..9"):
        guided.sample(1, sampler=sampler, condition={"class": 10})


def test_classifier_free_models(folder: Path) -> None:
    model = digits(condition_dropout=0.1)
    x, t = torch.randn(2, 1, 8, 8), torch.full((2,), 0.5, dtype=torch.float64)
    free, known = model.score(x, t), model.score(x, t, {"class": 3})
    assert not torch.equal(free, known)
    guided = model.guided(scale=3.0)
    expected = free + 3.0 * (known - free)
    assert (guided.score(x, t, {"class": 3}) - expected).abs().max() <= FLOAT32 * expected.abs().max()
    assert guided.sample(1, sampler=model.sampler("em", 2), condition={"class": 3}).nfe.tolist() == [6]
    # A classifier's guidance is from the score of no class, which otherwise would be counted twice.
    both = model.guided(sf.load_guide(folder), 1.0).score(x, t, {"class": 3})
    apart = free + sf.load_guide(folder).as_score()(x, t, {"class": torch.tensor([3, 3])})
    assert (both - apart).abs().max() <= FLOAT32 * apart.abs().max()


def test_on_a_ladder_the_guide_hears_the_levels(tmp_path: Path) -> None:
    """A discrete model's levels decide its noise, in training and in steps; its flow has the process's own."""
    base, levels = tiny(), Tabulated(LinearBetas(levels=50))
    discrete = replace(base, levels=levels, time_input=LevelLabel(between="linear"))
    model = digits(discrete)
    guide = trained(model, tmp_path / "guide")
    assert guide.experiment.process == levels == noise_process(model.as_score())
    assert set(levels.position(level_times(levels, 10)).frac().tolist()) == {0.0}
    guided = model.guided(guide, 1.0)
    assert isinstance(score := guided.as_score(), Guided) and noise_process(score) == levels
    samples = guided.sample(1, sampler=model.sampler("ancestral"), condition={"class": 2})
    assert samples.nfe.tolist() == [2 * (1 + 50)] or samples.nfe.tolist() == [2 * 50]
    assert torch.isfinite(guided.encode(samples.x.clamp(0, 16), condition={"class": 2})).all()


# ------------------------------------------------------------------------------------------------ numbers


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """Vectors with two numbers each, a few of them not known."""
    path = tmp_path_factory.mktemp("numbers") / "measured.npz"
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 3)).astype(np.float32) * 2.0 + 1.0
    y = np.stack([3.0 * x[:, 0] + 5.0, x[:, 1] - x[:, 2]], 1)
    y[::10, 1] = np.nan
    np.savez(path, x=x, y=y, k=np.arange(200) % 3)
    source = DataSource(str(path), key="x", label_key="y")
    base = replace(recipe("vectors"), data=source, network=MLP(width=8, depth=1, embedding="positional"))
    return model_of(base, open_data(source).spec), path


def test_a_density_of_numbers(measured: tuple[Model, Path], tmp_path: Path) -> None:
    model, _ = measured
    guide = trained(model, tmp_path / "guide", "likelihood")
    assert isinstance(guide.answer, Quantity) and guide.answer.name == "y"
    assert guide.answer.offset[0] == pytest.approx(8.0, abs=1.0) and guide.answer.scale[0] == pytest.approx(
        6.0, abs=1.0
    )
    assert guide.experiment.spec == replace(model.data, conditions=(guide.answer.spec,))
    guided = model.guided(guide, 1.0)
    sampler = model.sampler("em", 3)
    samples = guided.sample(2, sampler=sampler, condition={"y": [8.0, 0.5]})
    assert torch.isfinite(samples.x).all() and not torch.equal(samples.x, model.sample(2, sampler=sampler).x)
    with pytest.raises(ValueError, match=r"condition 'y' has shape \(3,\); give \(2,\)"):
        guided.sample(1, condition={"y": [8.0, 0.5, 1.0]})


def test_numbers_are_conditions_of_training(measured: tuple[Model, Path], tmp_path: Path) -> None:
    """A table with a measured y trains a model of x given y; unknown rows are NaN, as those that drop-out makes."""
    _, path = measured
    base = recipe("vectors")
    source = DataSource(str(path), key="x", label_key="y", conditional=True)
    settings = {**SHORT, "condition_dropout": 0.5, "sample_every": 6, "samples": 4, "sample_steps": 2}
    experiment = replace(
        base, data=source, network=MLP(width=8, depth=1, embedding="positional"),
        training=replace(base.training, **settings),
    )  # fmt: skip
    data = open_data(source)
    assert (
        data.train.spec.conditions[0].kind == "vector"
        and data.train.fingerprint != open_data(replace(source, label_key="k")).train.fingerprint
    )
    _, condition = data.train.batch(range(40))
    assert condition["y"].shape == (40, 2) and condition["y"].isnan().any(1).sum() >= 1
    model = sf.load(train(experiment, tmp_path / "run"))
    samples = model.guided(scale=2.0).sample(2, sampler=model.sampler("em", 2), condition={"y": [8.0, 0.5]})
    assert samples.nfe.tolist() == [6, 6] and torch.isfinite(samples.x).all()


# ------------------------------------------------------------------------------------------------ refusals


def test_refuses_models_it_was_not_trained_for(model: Model, folder: Path, measured: tuple[Model, Path]) -> None:
    guide = sf.load_guide(folder)
    other = digits(replace(tiny(), process=VE(0.01, 11.0)))
    with pytest.raises(ValueError, match=r"under the process VP\(.*has VE\(.*train-guide"):
        other.guided(guide)
    with pytest.raises(ValueError, match=r"examples of shape \(1, 8, 8\); digits-mlp has \(1, 4, 4\)"):
        guide.check("digits-mlp", model.process, replace(model.data, shape=(1, 4, 4)))
    with pytest.raises(ValueError, match="in the units 0.0 to 16.0, 17 grey levels"):
        guide.check("digits-mlp", model.process, replace(model.data, high=255.0, levels=256))
    with pytest.raises(ValueError, match="trained with 'class' always known"):
        digits(condition_dropout=0.0).guided(guide)
    with pytest.raises(ValueError, match="every condition known, and classifier-free guidance"):
        digits(condition_dropout=0.0).guided(scale=2.0)
    with pytest.raises(ValueError, match="knows no conditions, .*scorefield train-guide digits-mlp"):
        model.guided(scale=2.0)


def test_refuses_folders_of_the_other_kind(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="is a guidance model, which draws no samples by itself; .*edit class digits-mlp --guide"
    ):
        sf.load(folder)
    with pytest.raises(FileNotFoundError, match="there is no folder .* of a guidance model"):
        sf.load_guide(tmp_path / "none")
    with pytest.raises(ValueError, match="is a model and no guidance model"):
        sf.load_guide(Path(sf.load("digits").folder or ""))


def test_refuses_data_without_the_labels(model: Model, measured: tuple[Model, Path]) -> None:
    vectors, path = measured
    unlabelled = guide_experiment(vectors, "classifier", str(path))
    with pytest.raises(DataError, match="label"):
        open_data(replace(unlabelled.data, label_key=None))
    numbers = open_data(unlabelled.data)
    with pytest.raises(DataError, match="are numbers; use --kind likelihood"):
        with_data(unlabelled, "classifier", vectors, numbers)
    with pytest.raises(DataError, match="are classes; use --kind classifier"):
        with_data(unlabelled, "likelihood", vectors, open_data(replace(unlabelled.data, label_key="k")))
    with pytest.raises(DataError, match="noisy examples of the model's own data"):
        with_data(unlabelled, "likelihood", model, numbers)
    with pytest.raises(ValueError, match="a guidance model draws no samples"):
        replace(unlabelled, training=replace(unlabelled.training, sample_every=5))
    assert isinstance(unlabelled, GuideExperiment)
