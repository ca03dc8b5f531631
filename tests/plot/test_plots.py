"""The public plots draw what they say, on given axes or new ones, and label it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.process import GeometricSigmas, Tabulated

mpl.use("Agg")
from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No figure outlives its test."""
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sf.Model:
    """A model of the plane after a few steps."""
    x = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    return sf.fit(x, steps=3, out=tmp_path_factory.mktemp("run") / "plane", progress=False)


def gaussian() -> sf.oracles.Gaussian:
    mean, covariance = torch.tensor([1.0, -0.5]), torch.tensor([[1.0, 0.3], [0.3, 0.5]])
    return sf.oracles.Gaussian(sf.VP(), mean=mean.double(), covariance=covariance.double())


def test_importing_plots_needs_no_matplotlib() -> None:
    import subprocess
    import sys

    code = "import sys, scorefield.plot; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_points_of_vectors_are_all_drawn(model: sf.Model) -> None:
    samples = model.sample(30, sampler="dpm", steps=3)
    ax = sf.plot.samples(samples)
    (points,) = ax.collections
    np.testing.assert_allclose(points.get_offsets(), samples.x.numpy(), rtol=1e-6)
    assert ax.get_xlabel() == "coordinate 0" and ax.get_ylabel() == "coordinate 1"
    _, given = plt.subplots()
    assert sf.plot.samples(np.array([[0.0, 1.0], [2.0, 3.0]]), ax=given) is given


def test_names_and_units_are_on_the_axes() -> None:
    spec = sf.DataSpec((2,), low=0, high=1, channel_names=("speed", "heading"), units="m/s")
    ax = sf.plot.samples(torch.rand(4, 2), spec)
    assert ax.get_xlabel() == "speed (m/s)" and ax.get_ylabel() == "heading (m/s)"
    assert ax.get_xlim() == pytest.approx((-0.05, 1.05))


def test_images_signals_and_histograms() -> None:
    digits = sf.load("digits")
    ax = sf.plot.samples(digits.sample(4, sampler="dpm", steps=3))
    assert len(ax.images) == 1 and "0 to 16" in ax.get_title()
    signals = torch.stack([torch.arange(10.0), torch.ones(10)])[None].expand(3, 2, 10)
    assert len(sf.plot.samples(signals).lines) == 6
    assert sf.plot.samples(torch.randn(50, 1)).get_ylabel() == "count"
    with pytest.raises(ValueError, match="need a spec"):
        sf.plot.samples(torch.rand(2, 3, 4, 4))
    with pytest.raises(ValueError, match="no examples"):
        sf.plot.samples(torch.rand(0, 2))


def test_a_score_field_holds_the_scores(model: sf.Model) -> None:
    exact = gaussian()
    ax = sf.plot.score_field(exact, t=0.3, limits=(-2, 2), points=5)
    (arrows,) = ax.collections
    place = torch.stack([torch.tensor(arrows.X), torch.tensor(arrows.Y)], dim=1).double()
    expected = exact(place, torch.full((25,), 0.3, dtype=torch.float64))
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], axis=1), expected.numpy(), rtol=1e-6)
    assert "t = 0.3" in ax.get_title() and "model units" in ax.get_xlabel()
    assert len(sf.plot.score_field(model, points=4).collections[0].U) == 16
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\)"):
        sf.plot.score_field(sf.load("digits"))
    with pytest.raises(ValueError, match="two increasing ends"):
        sf.plot.score_field(model, limits=(1, -1))


def test_trajectories_end_in_the_samples(model: sf.Model) -> None:
    drawn = model.sample(6, sampler="dpm", steps=4, seed=3)
    ax = sf.plot.trajectories(model, 6, sampler="dpm", steps=4, seed=3)
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), drawn.x.numpy(), rtol=1e-5)
    assert len(ax.lines) == 6 and len(ax.lines[0].get_xdata()) >= 4
    assert len(sf.plot.trajectories(np.zeros((5, 3, 1))).lines) == 3
    with pytest.raises(ValueError, match="drawn of vectors"):
        sf.plot.trajectories(np.zeros((5, 3)))


def test_a_heat_map_holds_the_density(model: sf.Model) -> None:
    exact = gaussian()
    ax = sf.plot.log_density(exact, t=0.2, points=9)
    line = torch.linspace(-3, 3, 9, dtype=torch.float64)
    at = torch.tensor([[float(line[6]), float(line[2])]], dtype=torch.float64)  # x right of the middle, y below it
    expected = exact.log_prob(at, torch.tensor([0.2], dtype=torch.float64))
    assert float(ax.images[0].get_array()[2, 6]) == pytest.approx(float(expected[0]), rel=1e-6)
    assert ax.figure.axes[1].get_ylabel() == "log density (nats)"
    assert sf.plot.log_density(model, points=3).get_xlabel() == "coordinate 0 (data units)"


def test_noise_levels_of_processes_ladders_and_models(model: sf.Model) -> None:
    ax = sf.plot.noise_levels(sf.VP())
    t, alpha = ax.lines[0].get_data()
    np.testing.assert_allclose(alpha, sf.VP().alpha(torch.tensor(t)).numpy())
    assert [line.get_label() for line in ax.lines] == ["alpha(t)", "sigma(t)"]
    assert sf.plot.noise_levels(sf.VE(0.01, 50.0)).get_yscale() == "log"
    assert len(sf.plot.noise_levels(model).lines) == 2
    ladder = Tabulated(GeometricSigmas(0.1, 1.0, 7))
    assert len(sf.plot.noise_levels(ladder).lines[0].get_xdata()) == 7


def test_training_curves(model: sf.Model, tmp_path: Path) -> None:
    assert model.folder is not None
    for run in (model, model.folder, str(model.folder)):
        ax = sf.plot.training(run)
        assert {"training"} <= {line.get_label() for line in ax.lines}
    with pytest.raises(FileNotFoundError, match=r"no metrics\.jsonl"):
        sf.plot.training(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="no losses yet"):
        sf.plot.training(tmp_path)
