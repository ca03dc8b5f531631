"""The Python API as a user meets it: fit, load, sample, evaluate, posterior, and what they look like in print."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield._codec import CodecError
from scorefield.data import DataError
from scorefield.inverse import GaussianNoise, Mask
from scorefield.models.networks import build_network
from scorefield.training.trainable import TrainingError

PUBLIC = """ConditionSpec DataSpec Experiment Model Module Observation Sampler Samples SubVP Tabulated VE VP evaluate
fit load load_guide oracles plot posterior recipe record train""".split()


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """A table of two correlated columns."""
    z = np.random.default_rng(0).standard_normal((300, 2))
    return (z @ np.array([[2.0, 0.0], [1.5, 0.5]]).T + [10.0, -3.0]).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(table: np.ndarray) -> sf.Model:
    return sf.fit(table, steps=30, progress=False)


def test_the_public_names() -> None:
    assert sorted(sf._HOME) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(sf, name).__doc__


# ------------------------------------------------------------------------------------------------ fit


def test_an_array_becomes_a_model(table: np.ndarray, fitted: sf.Model) -> None:
    """Standardised by its own moments; the temporary run folder lives with the model."""
    assert fitted.data.shape == (2,) and not fitted.data.bounded and fitted.step == 30
    train = torch.from_numpy(table)
    assert torch.allclose(torch.tensor(fitted.data.offset), train.mean(0), atol=0.3)
    assert fitted.folder is not None and (fitted.folder / "model.safetensors").is_file()
    samples = fitted.sample(5, sampler="dpm", steps=4)
    assert samples.x.shape == (5, 2) and samples.spec == fitted.data


def test_a_temporary_run_is_removed_with_the_model(table: np.ndarray) -> None:
    model = sf.fit(table, steps=2, progress=False)
    folder = model.folder
    assert folder is not None and folder.is_dir()
    del model
    gc.collect()
    assert not folder.exists()


def test_a_kept_run_is_resumed(table: np.ndarray, tmp_path: Path) -> None:
    first = sf.fit(table, steps=4, out=tmp_path / "run", progress=False, seed=1)
    more = sf.fit(table, steps=6, out=tmp_path / "run", progress=False, seed=1)
    once = sf.fit(table, steps=6, progress=False, seed=1)
    assert (first.step, more.step) == (4, 6) and more.hash == once.hash != first.hash
    assert sf.load(tmp_path / "run").hash == more.hash
    with pytest.raises(TrainingError, match=r"training\.seed"):
        sf.fit(table, steps=8, out=tmp_path / "run", progress=False, seed=2)


class Frame:
    """As much of a DataFrame as is used."""

    def __init__(self, **columns: object):
        self._columns = {name: np.asarray(column) for name, column in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def to_numpy(self) -> np.ndarray:
        return np.stack(list(self._columns.values()), axis=1)


def test_a_table_keeps_its_names(table: np.ndarray) -> None:
    model = sf.fit(Frame(height=table[:, 0], weight=table[:, 1]), steps=2, progress=False)
    assert model.data.channel_names == ("height", "weight")


def test_tables_that_cannot_be_fitted_are_explained(table: np.ndarray) -> None:
    names = np.array(["a", "b"] * 150)
    with pytest.raises(DataError, match="columns name of the table are not numbers.*select_dtypes"):
        sf.fit(Frame(height=table[:, 0], name=names))
    with pytest.raises(DataError, match=r"missing in the columns height \(2\).*dropna"):
        sf.fit(Frame(height=np.r_[np.nan, np.nan, table[2:, 0]], weight=table[:, 1]))


def test_a_real_data_frame(table: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table, columns=["height", "weight"])
    assert sf.fit(frame, steps=2, progress=False).data.channel_names == ("height", "weight")


def test_a_path_and_images(tmp_path: Path) -> None:
    """8-bit images are grey levels; the shape chooses the recipe."""
    x = np.random.default_rng(1).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    small = {"network.channels": 8, "network.blocks": 1, "training.batch_size": 8}
    model = sf.fit(tmp_path / "x.npy", recipe=sf.recipe("images").with_fields(small), steps=1, progress=False)
    assert model.data.levels == 256 and model.data.shape == (1, 8, 8)
    assert model.experiment.data.path == str(tmp_path / "x.npy")
    with pytest.raises(DataError, match="a path brings its own labels"):
        sf.fit(tmp_path / "x.npy", condition=np.zeros(24, dtype=int))


def test_conditions_are_classes_or_numbers(table: np.ndarray) -> None:
    labels = (table[:, 0] > 10).astype(int)
    model = sf.fit(table, condition=labels, steps=2, progress=False)
    (known,) = model.data.conditions
    assert (known.kind, known.size) == ("class", 2)
    assert model.sample(3, sampler="dpm", steps=3, condition={"class": 1}).x.shape == (3, 2)
    model = sf.fit(table, condition=torch.from_numpy(table[:, :1]) ** 2, steps=2, progress=False)
    (known,) = model.data.conditions
    assert (known.kind, known.size) == ("vector", 1)
    with pytest.raises(DataError, match=r"condition has shape \(2,\).*for 300 examples"):
        sf.fit(table, condition=[0, 1])
    with pytest.raises(DataError, match="classes are numbered from 0"):
        sf.fit(table, condition=-labels)
    with pytest.raises(DataError, match="NaN"):
        sf.fit(table, condition=np.full(300, np.nan))


def test_settings_that_cannot_be_are_refused(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="minutes=-1 and steps=None must be positive"):
        sf.fit(table, minutes=-1)
    with pytest.raises(ValueError, match="minutes=None and steps=0"):
        sf.fit(table, steps=0)
    with pytest.raises(ValueError, match="no recipe 'vector'. Did you mean vectors"):
        sf.fit(table, recipe="vector")
    with pytest.raises(DataError, match="NaN or infinity"):
        sf.fit(np.full((20, 2), np.nan, dtype=np.float32))


def test_fields_change_by_dotted_path() -> None:
    base = sf.recipe("digits")
    made = base.with_fields({"training.steps": 100, "process": sf.VP(), "network.channels": "16"})
    assert (made.training.steps, made.process, made.network.channels) == (100, sf.VP(), 16)  # type: ignore[attr-defined]
    assert base == sf.recipe("digits")
    with pytest.raises(CodecError, match=r"training\.step: .*no such field.*steps"):
        base.with_fields({"training.step": 1})


# ------------------------------------------------------------------------------------------------ use


def test_steps_are_those_of_the_sampler(fitted: sf.Model) -> None:
    assert {int(n) for n in fitted.sample(2, sampler="edm", steps=5).nfe} == {11}  # two a step, and the final denoising
    assert {int(n) for n in fitted.sample(2, steps=7).nfe} == {8}  # the model's own sampler, and the final denoising


def test_a_posterior_from_a_matrix_a_function_and_a_name(fitted: sf.Model) -> None:
    y = torch.tensor([12.0])
    matrix = sf.Observation(np.array([[1.0, 0.0]]), y, 0.1)
    found = sf.posterior(fitted, matrix, 4, sampler="dpm", solver="pigdm")
    assert found.x.shape == (4, 2) and found.good.all()
    function = sf.Observation(lambda x: x[:, :1], y, GaussianNoise(0.1))
    assert sf.posterior(fitted, function, 2, solver="dps").x.shape == (2, 2)
    strict = sf.Observation(Mask(torch.tensor([True, False]), (2,)), y, GaussianNoise(0.1))
    again = fitted.posterior(strict, 4, sampler="dpm", solver="pigdm")
    torch.testing.assert_close(again.x, found.x)


def test_a_mask_takes_its_part_of_whole_examples() -> None:
    model = sf.load("digits")
    x = model.sample(2, sampler="dpm", steps=3).x
    one = sf.Observation("mask:right", x[0], 0.5).for_examples((1, 8, 8))
    both = sf.Observation("mask:right", x, 0.5).for_examples((1, 8, 8))
    torch.testing.assert_close(one.observed, x[0, :, :, :4].flatten())
    torch.testing.assert_close(both.observed[0], one.observed)
    with pytest.raises(ValueError, match="no operator"):
        sf.Observation("maks:right", x[0], 0.5).for_examples((1, 8, 8))
    with pytest.raises(TypeError, match="a list is no operator"):
        sf.Observation([1.0], x[0], 0.5).for_examples((1, 8, 8))  # type: ignore[arg-type]


def test_an_evaluation_of_a_model_and_of_samples(fitted: sf.Model, table: np.ndarray) -> None:
    found = sf.evaluate(fitted, n=64, sampler="dpm", steps=4, metrics=("energy-distance", "sliced-wasserstein"))
    assert set(found) == {"sliced-wasserstein", "energy-distance"}
    assert float(found["energy-distance"]) > 0 and found["energy-distance"].value.interval is not None
    assert len(repr(found).splitlines()) == 3 and "95 % interval" in repr(found)
    same = sf.evaluate(table[:150], table[150:], metrics="energy-distance")
    assert abs(float(same["energy-distance"])) < 0.3 and not same.real
    shifted = sf.evaluate(table[:150] + 5, table[150:], metrics="energy-distance")
    assert float(shifted["energy-distance"]) > 1
    with pytest.raises(ValueError, match="no metric is called 'fidd'"):
        sf.evaluate(fitted, metrics="fidd")
    with pytest.raises(DataError, match="give real data as reference"):
        sf.evaluate(table)


def test_train_returns_the_folder(tmp_path: Path) -> None:
    run = sf.train(sf.recipe("digits-mlp").with_fields({"training.steps": 2, "network.width": 8}), out=tmp_path / "run")
    assert sf.load(run).step == 2


# ------------------------------------------------------------------------------------------------ print


def test_what_is_printed_is_two_lines(fitted: sf.Model) -> None:
    """No dump of tensors: process, data, network; number, range, failures, cost."""
    samples = fitted.sample(3, sampler="dpm", steps=3)
    density = fitted.log_prob(samples.x)
    posterior = sf.posterior(fitted, sf.Observation(np.eye(2), samples.x[0], 0.5), 2, solver="pigdm")
    for value, words in (
        (fitted, ("VP(", "shape (2,)", "parameters", "weights ema:")),
        (samples, ("3 of shape (2,)", "0 failed", "network evaluations", "seed 0")),
        (density, ("3 examples", "nats", "0 failed", "network evaluations")),
        (posterior, ("2 samples of shape (2,)", "residual", "0 failed", "PiGDM")),
    ):
        text = repr(value)
        assert len(text.splitlines()) == 2 and "tensor(" not in text, text
        for word in words:
            assert word in text, text


def test_notebooks_show_a_picture(fitted: sf.Model) -> None:
    for model in (fitted, sf.load("digits")):
        html = model.sample(2, sampler="dpm", steps=3)._repr_html_()
        assert html.startswith("<img ") and "data:image/png;base64," in html and "<pre>Samples: 2" in html
        assert "<script" not in html


def test_values_that_are_not_finite_are_counted() -> None:
    model = sf.load("digits")
    samples = model.sample(2, sampler="dpm", steps=3)
    samples.x[0, 0, 0, 0] = torch.nan
    assert "(1 not finite)" in repr(samples)


def test_a_model_loads_without_plotting_libraries() -> None:
    heavy = "[m for m in ('matplotlib', 'accelerate') if m in sys.modules]"
    code = f"import sys, scorefield as sf; sf.load('digits'); print({heavy})"
    path = os.pathsep.join([str(Path(sf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_network_made_already_is_used_as_it_is() -> None:
    """For scores and samples, without saving."""
    net = torch.nn.Module()
    net.forward = lambda x, c: 0.0 * x  # type: ignore[method-assign]
    experiment = sf.recipe("vectors").with_fields({"spec": sf.DataSpec((2,))})
    object.__setattr__(experiment, "network", sf.Module(net))
    model = sf.Model(experiment, build_network(experiment))
    x = torch.randn(3, 2)
    assert torch.equal(model.score(x, 0.5), torch.zeros(3, 2))
