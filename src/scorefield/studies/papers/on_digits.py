"""What the experiments on the bundled digits share: NCSN's ladder, loss and sampler with a small network, and quality.

The network is a perceptron that is told the level; NCSN's own RefineNet takes some thirty times as long on a CPU. Its
output is divided by sigma and its weights are averaged, as in NCSNv2: a perceptron has no normalisation to reach scores
of 100 with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
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
from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import Tabulated
from scorefield.recipes.ladders import annealed_langevin, ladder
from scorefield.score.parametrisation import LevelLabel, ScaledScoreForm
from scorefield.studies.papers.entry import Job, mean_interval
from scorefield.training.trainer import train

SPEC = DataSpec((1, 8, 8), 0, 16, 17, model_range=(0.0, 1.0))
SOURCE = DataSource("digits", model_range=(0.0, 1.0))
NETWORK = MLP(width=256, depth=3, embedding="positional")
STEPS = 3000
SAMPLES = 512
SEEDS = 3
ETA = 0.2
"""Langevin step over sigma^2: the published 2e-5 at sigma = 0.01, in the convention of the code."""
CALLS = 1000
"""Network calls of a sample, as published: 10 levels of 100. A smaller effort makes fewer."""
STUDENT = 4.303
"""97.5 % point of Student's law for the mean of three trainings."""
SHOWN = 48


def noise_levels(sigma_max: float = 1.0, sigma_min: float = 0.01, levels: int = 10) -> Tabulated:
    """NCSN's ladder, or one level where both ends are the same."""
    return ladder(sigma_min, sigma_max, levels, "geometric")


def experiment(name: str, process: Tabulated, job: Job, seed: int, objective: Objective | None = None) -> Experiment:
    """NCSN on the digits at the levels of a process; the loss is denoising score matching where none is given."""
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
    """How samples compare with digits that were held out.

    Args:
        distance: Squared energy distance to the held-out digits, pixels in [0, 1]; infinite with no finite sample.
        near: Share of samples as near to a training digit as 95 % of the held-out digits are.
        finite: Share without a bad number.
    """

    distance: float
    near: float
    finite: float


class Judge:
    """Measures samples against held-out digits."""

    def __init__(self) -> None:
        data = open_data(SOURCE)
        assert data.held_out is not None
        self.train, self.held_out = (SPEC.to_model(examples(s)[0]).flatten(1) for s in (data.train, data.held_out))
        self._inside = distance_sums(self.held_out, self.held_out)
        self.radius = float(self._nearest(self.held_out).quantile(0.95))

    def _nearest(self, x: Tensor) -> Tensor:
        return torch.cdist(x.double(), self.train.double()).min(dim=1).values

    def __call__(self, x: Tensor) -> Quality:
        """Of samples in model units, (N, 1, 8, 8)."""
        flat = x.flatten(1)
        kept = flat[torch.isfinite(flat).all(dim=1)]
        if len(kept) < 3:
            return Quality(math.inf, 0.0, len(kept) / len(x))
        near = float((self._nearest(kept) <= self.radius).double().sum()) / len(x)
        return Quality(energy_distance(kept, self.held_out, self._inside).number, near, len(kept) / len(x))

    def noise(self, count: int, seed: int) -> Quality:
        """Of uniform noise, from which sampling starts."""
        return self(torch.rand(count, 64, generator=torch.Generator().manual_seed(seed)))

    def real(self, count: int, seed: int) -> Quality:
        """Of training digits' distance: what a perfect model would have. Their nearest training digit is themselves."""
        chosen = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))[:count]
        return self(self.train[chosen])


@dataclass(frozen=True)
class Group:
    """Trainings that differ by their seed alone.

    Args:
        name: Of what they share.
        found: Quality of the samples of each.
        shown: Samples of the first, data units.
    """

    name: str
    found: list[Quality]
    shown: Tensor

    @property
    def distances(self) -> list[float]:
        """Energy distance of each training."""
        return [q.distance for q in self.found]

    def near(self) -> tuple[float, float]:
        """Mean share of recognisable samples and half its 95 % interval over trainings."""
        return mean_interval([q.near for q in self.found], STUDENT)

    def distance(self) -> tuple[float, float]:
        """Mean energy distance and half its 95 % interval over trainings."""
        return mean_interval(self.distances, STUDENT)


def group(job: Job, name: str, folder: str, process: Tabulated, judge: Judge, objective: Objective | None) -> Group:
    """Train with each seed in the job's folder, or go on there, sample and measure."""
    found, shown = [], None
    for seed in range(job.seed, job.seed + SEEDS):
        run = experiment(folder, process, job, seed, objective)
        job.observer.message(f"{name}, seed {seed}: {run.training.steps} steps")
        model = load(train(run, job.folder / "runs" / f"{folder}-{seed}", resume="auto", observer=job.observer))
        x = model.sample(job.scaled(SAMPLES, 16), seed=seed, batch_size=SAMPLES).x
        found.append(judge(SPEC.to_model(x)))
        shown = x[:SHOWN] if shown is None else shown
    assert shown is not None
    return Group(name, found, shown)


def dots(ax: Axes, theme: Theme, rows: list[tuple[str, list[float]]], lines: dict[str, float]) -> None:
    """A row of dots for each name, one dot per training, and vertical lines to compare with."""
    for k, (_, values) in enumerate(rows):
        shown = [v for v in values if math.isfinite(v)]
        ax.scatter(shown, [-k] * len(shown), s=22, color=theme.series[0], alpha=0.8, linewidths=0)
    for k, (name, value) in enumerate(lines.items()):
        ax.axvline(value, color=theme.series[1 + k], linestyle=":", linewidth=1.4, label=name)
    ax.set_yticks([-k for k in range(len(rows))], [name for name, _ in rows])
    ax.set_ylim(-len(rows) + 0.4, 0.6)
    ax.legend(fontsize=7.5, frameon=False, labelcolor=theme.ink, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)


def quality(theme: Theme, groups: list[Group], noise: Quality, real: Quality, size: tuple[float, float]) -> Figure:
    """Energy distances of each training, beside those of noise and of training digits.

    Args:
        theme: Colours.
        groups: A row each.
        noise: Of uniform noise.
        real: Of training digits.
        size: Height of the panel, and the room for the names left of it, inches.
    """
    height, beside = size
    figure, (ax,) = grid_of_axes(theme, 1, 1, (4.6, height), above=0.35, beside=beside, below=0.5)
    ax.set_xscale("log")
    lines = {"training digits": max(real.distance, 1e-3), "uniform noise": noise.distance}
    dots(ax, theme, [(t.name, t.distances) for t in groups], lines)
    ax.set_xlabel("squared energy distance", labelpad=2)
    return figure


def settings(job: Job) -> dict[str, Any]:
    """What every experiment here depends on."""
    calls = min(CALLS, job.scaled(CALLS, 10))
    return {
        "data": "bundled 8x8 digits in [0, 1], dequantised; 1437 for training, 360 held out",
        "network": f"{NETWORK}; its output is divided by sigma",
        "training": f"{job.scaled(STEPS, 10)} steps of 128 examples, Adam 1e-3, averages of the weights of decay 0.995",
        "sampling": f"Langevin steps of {ETA:g} sigma^2 (x + e score + sqrt(2 e) z), {calls} calls, not denoised",
        "trainings": SEEDS,
        "samples of each": job.scaled(SAMPLES, 16),
        "seed": job.seed,
    }
