"""Set-up of the experiments on the bundled digits: data, network, NCSN's ladder, loss and sampler, and sample quality.

The network is a perceptron conditioned on the noise level; NCSN's own RefineNet takes about thirty times as long on a
CPU. As in NCSNv2, its output is divided by sigma and its weights are averaged: at sigma = 0.01 scores are of size 100,
and a perceptron, which has no normalisation layers, does not reach outputs of that size by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from scorefield.data import DataSource, open_data
from scorefield.data_spec import DataSpec
from scorefield.evaluation import examples
from scorefield.losses import DenoisingScoreMatching, Objective
from scorefield.metrics.energy_distance import distance_sums, energy_distance
from scorefield.models.experiment import Adam, Averaging, Experiment, Training
from scorefield.models.model import load
from scorefield.nets.mlp import MLP
from scorefield.plot.pictures import Theme, grid_of_axes, image_grid
from scorefield.process import Tabulated
from scorefield.recipes.ladders import annealed_langevin, ladder
from scorefield.score.parametrisation import LevelLabel, ScaledScoreForm
from scorefield.studies.papers.entry import SEEDS, STUDENT, Drawing, Job, mean_interval
from scorefield.training.trainer import train

SPEC = DataSpec((1, 8, 8), 0, 16, 17, model_range=(0.0, 1.0))
SOURCE = DataSource("digits", model_range=(0.0, 1.0))
NETWORK = MLP(width=256, depth=3, embedding="positional")
STEPS = 3000
"""Optimiser steps of a training."""
SAMPLES = 512
"""Samples drawn from each trained model."""
ETA = 0.2
"""Langevin step over sigma^2: the published 2e-5 at sigma = 0.01, in the convention x + e score + sqrt(2 e) z."""
CALLS = 1000
"""Network evaluations per sample, as published: 10 levels of 100 steps. An effort below 1 makes fewer."""
SHOWN = 48
"""Samples shown in a figure."""


def noise_levels(sigma_max: float = 1.0, sigma_min: float = 0.01, levels: int = 10) -> Tabulated:
    """Return NCSN's geometric ladder; with equal ends and `levels` = 1, a single level."""
    return ladder(sigma_min, sigma_max, levels, "geometric")


def experiment(name: str, process: Tabulated, job: Job, seed: int, objective: Objective | None = None) -> Experiment:
    """Return the experiment of one training on the digits.

    Args:
        name: Name of the experiment.
        process: Noise levels.
        job: Gives the numbers of optimiser and sampling steps.
        seed: Seed of the training.
        objective: Training objective; denoising score matching with lambda = sigma^2 if None.
    """
    calls = min(CALLS, job.scaled(CALLS, process.levels))
    sigma_min = float(process.sigma(torch.zeros(1, dtype=torch.float64) + process.t_min.sampling))
    return Experiment(
        name=name,
        data=SOURCE,
        spec=SPEC,
        process=process,
        network=NETWORK,
        form=ScaledScoreForm(),
        time_input=LevelLabel(descending=True),
        objective=objective or DenoisingScoreMatching(reduce="half_sum"),
        sampler=annealed_langevin(sigma_min, ETA * sigma_min**2, calls // process.levels, final="none"),
        optimiser=Adam(learning_rate=1e-3, warmup=0, clip=None),
        averaging=Averaging((0.995,)),
        training=Training(
            steps=job.scaled(STEPS, 10),
            batch_size=128,
            dequantise=True,
            seed=seed,
            log_every=100,
            validate_every=0,
            checkpoint_every=1000,
        ),
    )


@dataclass(frozen=True)
class Quality:
    """Quality of samples of digits.

    Args:
        distance: Squared energy distance to the held-out digits, pixels in [0, 1]; infinite where fewer than three
            samples are finite.
        recognisable: Share of samples whose distance to the nearest training digit is at most the 95 % quantile of that
            distance over held-out digits.
        finite: Share of samples without NaN or infinity.
    """

    distance: float
    recognisable: float
    finite: float


class DigitsEvaluator:
    """Measures the quality of samples against held-out and training digits."""

    def __init__(self) -> None:
        data = open_data(SOURCE)
        assert data.held_out is not None
        self.train, self.held_out = (SPEC.to_model(examples(s)[0]).flatten(1) for s in (data.train, data.held_out))
        self._inside = distance_sums(self.held_out, self.held_out)
        self.radius = float(self._nearest(self.held_out).quantile(0.95))

    def _nearest(self, x: Tensor) -> Tensor:
        return torch.cdist(x.double(), self.train.double()).min(dim=1).values

    def __call__(self, x: Tensor) -> Quality:
        """Return the quality of samples in model units, (N, 1, 8, 8) or (N, 64)."""
        flat = x.flatten(1)
        kept = flat[torch.isfinite(flat).all(dim=1)]
        if len(kept) < 3:
            return Quality(math.inf, 0.0, len(kept) / len(x))
        recognisable = float((self._nearest(kept) <= self.radius).double().sum()) / len(x)
        return Quality(energy_distance(kept, self.held_out, self._inside).number, recognisable, len(kept) / len(x))

    def uniform_noise(self, count: int, seed: int) -> Quality:
        """Return the quality of uniform noise, from which sampling starts."""
        return self(torch.rand(count, 64, generator=torch.Generator().manual_seed(seed)))

    def training_digits(self, count: int, seed: int) -> Quality:
        """Return the quality of training digits.

        Their energy distance is what a perfect model would have. Their recognisable share is always 1, as each is its
        own nearest training digit.
        """
        chosen = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))[:count]
        return self(self.train[chosen])


@dataclass(frozen=True)
class SeedGroup:
    """Trainings of one configuration that differ by their seed alone.

    Args:
        name: Name of the configuration.
        qualities: Quality of the samples of each training.
        shown: Samples of the first training, data units.
    """

    name: str
    qualities: list[Quality]
    shown: Tensor

    @property
    def distances(self) -> list[float]:
        """Squared energy distance of each training."""
        return [q.distance for q in self.qualities]

    def recognisable(self) -> tuple[float, float]:
        """Return the mean share of recognisable samples and half of its 95 % interval over trainings."""
        return mean_interval([q.recognisable for q in self.qualities], STUDENT)

    def distance(self) -> tuple[float, float]:
        """Return the mean squared energy distance and half of its 95 % interval over trainings."""
        return mean_interval(self.distances, STUDENT)


def train_group(
    job: Job, name: str, folder: str, process: Tabulated, evaluator: DigitsEvaluator, objective: Objective | None
) -> SeedGroup:
    """Train one configuration with `SEEDS` seeds, sample each model, and measure the samples.

    Args:
        job: Folder, first seed, effort and observer; a training found in the folder is resumed.
        name: Name of the configuration in tables and figures.
        folder: Name of its run folders, followed by the seed.
        process: Noise levels.
        evaluator: Measures the samples.
        objective: Training objective; denoising score matching if None.
    """
    qualities, shown = [], None
    for seed in range(job.seed, job.seed + SEEDS):
        run = experiment(folder, process, job, seed, objective)
        job.observer.message(f"{name}, seed {seed}: {run.training.steps} steps")
        model = load(train(run, job.folder / "runs" / f"{folder}-{seed}", resume="auto", observer=job.observer))
        x = model.sample(job.scaled(SAMPLES, 16), seed=seed, batch_size=SAMPLES).x
        qualities.append(evaluator(SPEC.to_model(x)))
        shown = x[:SHOWN] if shown is None else shown
    assert shown is not None
    return SeedGroup(name, qualities, shown)


# ------------------------------------------------------------------------------------------------ figures


def group_drawings(
    groups: dict[str, SeedGroup], noise: Quality, real: Quality, size: tuple[float, float]
) -> tuple[Drawing, ...]:
    """Return the figure of energy distances and one grid of samples per group.

    Args:
        groups: Trainings by the ending of their picture's file name.
        noise: Quality of uniform noise.
        real: Quality of training digits.
        size: Height of the figure's panel, and the room for the names left of it, inches.
    """
    return (
        Drawing(
            "quality",
            "Squared energy distance to held-out digits",
            "Each dot is one training. Smaller distances, further left, are better.",
            lambda theme: distance_figure(theme, list(groups.values()), noise, real, size),
        ),
        *(
            Drawing(
                f"samples-{ending}",
                f"Samples, {group.name}",
                "The first samples of the first training, not selected; all models are sampled with the same seed."
                " Black to white is 0 to 16; values are clipped in the figure only.",
                lambda theme, group=group: image_grid(group.shown, SPEC, 12, tile=40),
            )
            for ending, group in groups.items()
        ),
    )


def distance_figure(
    theme: Theme, groups: list[SeedGroup], noise: Quality, real: Quality, size: tuple[float, float]
) -> Figure:
    """Draw the energy distance of each training, with lines for uniform noise and for training digits.

    Args:
        theme: Colours.
        groups: Trainings; each group is a row of dots.
        noise: Quality of uniform noise.
        real: Quality of training digits.
        size: Height of the panel, and the room for the names left of it, inches.
    """
    height, beside = size
    figure, (ax,) = grid_of_axes(theme, 1, 1, (4.6, height), above=0.35, beside=beside, below=0.5)
    ax.set_xscale("log")
    for k, group in enumerate(groups):
        shown = [v for v in group.distances if math.isfinite(v)]
        ax.scatter(shown, [-k] * len(shown), s=22, color=theme.series[0], alpha=0.8, linewidths=0)
    # Unbiased estimates may be negative, which a logarithmic axis cannot show.
    lines = {"training digits": max(real.distance, 1e-3), "uniform noise": noise.distance}
    for k, (name, value) in enumerate(lines.items()):
        ax.axvline(value, color=theme.series[1 + k], linestyle=":", linewidth=1.4, label=name)
    ax.set_yticks([-k for k in range(len(groups))], [group.name for group in groups])
    ax.set_ylim(-len(groups) + 0.4, 0.6)
    ax.legend(fontsize=7.5, frameon=False, labelcolor=theme.ink, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    ax.set_xlabel("squared energy distance", labelpad=2)
    return figure


@dataclass(frozen=True)
class IntervalRow:
    """A number with its interval in a figure.

    Args:
        label: Name of the row.
        value: The number.
        half: Half of its 95 % interval.
        colour: Number of the colour in the theme.
    """

    label: str
    value: float
    half: float
    colour: int = 0


def interval_figure(
    theme: Theme, panels: dict[str, list[IntervalRow]], size: tuple[float, float], beside: float
) -> Figure:
    """Draw energy distances with 95 % intervals, one panel per title and one row per number.

    Args:
        theme: Colours.
        panels: Title -> rows, from top to bottom.
        size: Width and height of a panel, inches.
        beside: Room for the labels left of a panel, inches.
    """
    figure, axes = grid_of_axes(theme, 1, len(panels), size, beside=beside, above=0.3, below=0.5)
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        for k, row in enumerate(rows):
            ax.errorbar(
                row.value, -k, xerr=row.half, fmt="o", markersize=4, color=theme.series[row.colour], elinewidth=1
            )
        ax.set_yticks([-k for k in range(len(rows))], [row.label for row in rows])
        ax.set_title(title, fontsize=9, color=theme.ink)
        ax.locator_params(axis="x", nbins=4)
        ax.set_xlabel("squared energy distance", labelpad=2)
    return figure


def settings(job: Job) -> dict[str, Any]:
    """Return the settings that all experiments with this network share, for the report."""
    calls = min(CALLS, job.scaled(CALLS, 10))
    return {
        "data": "bundled 8x8 digits in [0, 1], dequantised; 1437 for training, 360 held out",
        "network": f"{NETWORK}; its output is divided by sigma",
        "training": f"{job.scaled(STEPS, 10)} steps of 128 examples, Adam 1e-3, EMA of the weights of decay 0.995",
        "sampling": f"Langevin steps of {ETA:g} sigma^2 (x + e score + sqrt(2 e) z), {calls} network evaluations, not"
        " denoised",
        "trainings": SEEDS,
        "samples of each training": job.scaled(SAMPLES, 16),
        "seed": job.seed,
    }
