"""The runs of multi-scale denoising score matching (Li et al. 2019): one energy for every noise level.

The published loss, sigma^-2 |x_0 - x + sigma_0^2 grad E|^2 summed over pixels, is |sigma score + z|^2 of the score that
an `EnergyForm` makes of E, at levels that each appear once in a batch. Sampling is annealed-temperature Langevin
dynamics, x - 2e-4 grad E + 0.02 sqrt(T) z from 0.5 + N(0, 1), with 500 steps at T = 100, 2000 from there to 1 and 200
to 0, and the final jump x - sigma_0^2 grad E. The noise levels decide the training alone: the temperatures are the same
for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.models.experiment import Adam, Averaging, Experiment
from scorefield.nets.energies.energy_resnet import EnergyResNet
from scorefield.process.grids import Uniform
from scorefield.recipes.ladders import as_recipe, ladder, training
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.temperature import NormalStart, TemperatureLangevin, TemperatureSchedule
from scorefield.score.energy import EnergyForm
from scorefield.score.parametrisation import ScaledTime


@dataclass(frozen=True)
class Settings:
    """Settings of a published run.

    Args:
        network: Configuration of the network.
        shape: (C, H, W).
        sigma_min: Smallest noise level, images in [0, 1].
        sigma_max: Largest noise level.
        spacing: Spacing of the levels.
        steps: Optimiser steps.
        learning_rate: Falls to 1e-6 along half a cosine.
        levels: Number of levels and batch size.
        sigma_0: Reference level.
    """

    network: EnergyResNet
    shape: tuple[int, int, int]
    sigma_min: float = 0.05
    sigma_max: float = 1.2
    spacing: Literal["geometric", "linear"] = "linear"
    steps: int = 300_000
    learning_rate: float = 5e-5
    levels: int = 128
    sigma_0: float = 0.1


def experiment(
    name: str, settings: Settings, *, data: DataSource, source: str, paper: dict[str, float] | None = None
) -> Experiment:
    """The experiment of a run; `data` says where the images are and how they are cut."""
    s = settings
    return Experiment(
        name=name,
        data=data,
        spec=DataSpec(s.shape, 0, 255, 256, model_range=(0.0, 1.0)),
        process=ladder(s.sigma_min, s.sigma_max, s.levels, s.spacing),
        network=s.network,
        form=EnergyForm(s.sigma_0),
        time_input=ScaledTime(0.0),
        objective=DenoisingScoreMatching(reduce="half_sum", stratified=True),
        sampler=annealed(s.sigma_0),
        optimiser=Adam(learning_rate=s.learning_rate, beta2=0.95, warmup=0, clip=None, cosine=s.steps),
        averaging=Averaging(()),
        training=training(s.steps, s.levels, seed=0),
        source=source,
        paper=paper,
    )


def annealed(sigma_0: float = 0.1, schedule: TemperatureSchedule | None = None) -> Sampler:
    """The published sampler, its step 0.2 sigma_0 and its start in proportion to the reference level."""
    walk = TemperatureLangevin(schedule or TemperatureSchedule(), 0.2 * sigma_0, sigma_0)
    start = NormalStart(0.5, sigma_0 * walk.schedule.high**0.5)
    return Sampler(walk, Uniform(walk.schedule.steps), start=start)


def small(name: str, settings: Settings, data: DataSource, spec: DataSpec) -> Experiment:
    """A run of laptop size: fewer levels, a warm-up, and an average of the weights, unlike the published ones."""
    made = experiment(name, settings, data=data, source=_SOURCE.format("smaller, on a CPU"))
    return replace(
        made,
        spec=spec,
        optimiser=replace(made.optimiser, warmup=50),
        averaging=Averaging((0.995,)),
        training=replace(made.training, log_every=50, validate_every=250, checkpoint_every=250, sample_every=0),
    )


def digits_energy() -> Experiment:
    """A small energy of the bundled 8x8 digits (Li et al. 2019): about three minutes on two cores."""
    network = EnergyResNet(32, 6)
    settings = Settings(network, (1, 8, 8), 0.05, 1.5, "geometric", steps=3000, learning_rate=1e-3, levels=64)
    spec = DataSpec((1, 8, 8), 0, 16, 17, model_range=_UNIT)
    return small("digits-energy", settings, DataSource("digits", model_range=_UNIT), spec)


def fashion_mnist_energy() -> Experiment:
    """A small energy of Fashion-MNIST (Li et al. 2019), about forty minutes on a core; its IDX files with --data."""
    network = EnergyResNet(16, 6)
    settings = Settings(network, (1, 32, 32), 0.1, 3.0, "geometric", steps=2600, learning_rate=1e-3, levels=64)
    spec = DataSpec((1, 32, 32), 0, 255, 256, model_range=_UNIT)
    return small("fashion-mnist-energy", settings, DataSource(pad=2, model_range=_UNIT), spec)


_SOURCE = "Li et al. 2019, arXiv:1910.07762, {}"
_UNIT = (0.0, 1.0)
_SMALL = EnergyResNet(64, 12)

Row = tuple[str, Settings, DataSource, dict[str, float] | None]
ROWS: dict[str, Row] = {
    "mdsm-cifar10": (
        "CIFAR-10",
        Settings(EnergyResNet(128, 18), (3, 32, 32)),
        DataSource(model_range=_UNIT),
        {"inception_score": 8.31, "fid": 31.7},
    ),
    # The release trains on the test split, almost certainly by mistake; this is the training split.
    "mdsm-fashion-mnist": (
        "Fashion-MNIST",
        Settings(_SMALL, (1, 32, 32), 0.1, 3.0, "geometric", steps=100_000, learning_rate=1e-4),
        DataSource(pad=2, model_range=_UNIT),
        None,
    ),
    "mdsm-mnist": (
        "MNIST (the constants of Fashion-MNIST; the release has no script for it)",
        Settings(_SMALL, (1, 32, 32), 0.1, 3.0, "geometric", steps=100_000, learning_rate=1e-4),
        DataSource(pad=2, model_range=_UNIT),
        None,
    ),
    "mdsm-celeba": (
        "CelebA at 32 pixels (the constants of CIFAR-10; the release has no script for it)",
        Settings(EnergyResNet(128, 18), (3, 32, 32)),
        DataSource(crop=(140, 140), size=32, flip=True, model_range=_UNIT),
        None,
    ),
}
"""Name -> (what, settings, data, published numbers)."""


def _recipe(name: str, row: Row) -> Callable[[], Experiment]:
    what, settings, data, paper = row
    summary, source = (
        f"An energy of {what.split(' (')[0]}, multi-scale denoising score matching (Li et al. 2019).",
        _SOURCE.format(what),
    )
    return as_recipe(name, summary, lambda: experiment(name, settings, data=data, source=source, paper=paper))


RECIPES: dict[str, Callable[[], Experiment]] = {
    "digits-energy": digits_energy,
    "fashion-mnist-energy": fashion_mnist_energy,
    **{name: _recipe(name, row) for name, row in ROWS.items()},
}
"""Name -> function, one per run."""
