"""Definitions shared by all experiments: an entry of the list, its findings, noise, and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from scorefield._random import philox
from scorefield.plot.pictures import Theme
from scorefield.training.observer import Observer

Paper = Literal["NCSN", "NCSNv2", "MDSM", "ACSM", "Score-SDE", "All"]
State = Literal["runs here", "needs CUDA", "needs weights"]

PAPERS: Mapping[Paper, str] = {
    "NCSN": "Song and Ermon 2019, Generative modeling by estimating gradients of the data distribution",
    "NCSNv2": "Song and Ermon 2020, Improved techniques for training score-based generative models",
    "MDSM": "Li, Chen and Sommer 2019, Learning energy-based models in high-dimensional spaces with multi-scale"
    " denoising score matching",
    "ACSM": "Jolicoeur-Martineau et al. 2021, Adversarial score matching and improved sampling for image generation",
    "Score-SDE": "Song et al. 2021, Score-based generative modeling through stochastic differential equations",
    "All": "what the papers have in common",
}

NORMAL = 1.959964
"""97.5 % point of the standard normal distribution."""
SEEDS = 3
"""Trainings of each configuration where an interval over trainings is given."""
STUDENT = 4.303
"""97.5 % point of Student's t distribution with `SEEDS` - 1 degrees of freedom."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and whether it held in this experiment.

    Args:
        statement: The claim.
        found: What was found, with its interval.
        held: Whether the claim held; None where the findings do not decide it.
    """

    statement: str
    found: str
    held: bool | None


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Args:
        columns: Names of the columns, with units.
        rows: Rows with as many cells as there are columns.
        caption: What the numbers are.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str


@dataclass(frozen=True)
class Drawing:
    """A figure, drawn when the report is written.

    Args:
        name: File name without its ending.
        title: What the figure shows.
        caption: How to read it.
        draw: Function that draws the figure in the colours of a theme; a grid of images is the same in every theme.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Theme], Figure | Image.Image]


@dataclass(frozen=True)
class Findings:
    """Results of an experiment.

    Args:
        claims: Claims of the paper with their verdicts.
        tables: Numbers with their intervals.
        drawings: Figures.
        settings: Everything on which the numbers depend.
    """

    claims: tuple[Claim, ...]
    tables: tuple[Table, ...]
    drawings: tuple[Drawing, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """How an experiment is run.

    Args:
        folder: Folder for the run folders of trained models; a run found there is resumed.
        seed: Seed of every random draw.
        effort: Factor on the numbers of particles, samples and training steps; below 1 also on the length of long
            chains. Claims are meant to be judged at 1.
        observer: Receives progress messages.
    """

    folder: Path
    seed: int
    effort: float
    observer: Observer

    def scaled(self, count: int, least: int = 2) -> int:
        """Return `count` times the effort, rounded, but not below `least`."""
        return max(least, round(count * self.effort))


@dataclass(frozen=True)
class Entry:
    """A table or a figure of a paper in the list of experiments.

    Args:
        name: Name on the command line.
        paper: The paper it is from.
        item: Which table, figure or section.
        title: What it is about.
        shows: What the paper shows.
        state: Whether it runs on any machine, or needs an accelerator or published weights.
        minutes: Approximate time on two CPU cores; None where it does not run here.
        memory: Peak memory, GiB; None where it does not run here.
        run: Function that runs the experiment; None where it does not run here.
        instead: Commands that do the same on a machine with an accelerator, or with the weights.
    """

    name: str
    paper: Paper
    item: str
    title: str
    shows: str
    state: State = "runs here"
    minutes: float | None = None
    memory: float | None = None
    run: Callable[[Job], Findings] | None = None
    instead: tuple[str, ...] = ()


class BatchNoise:
    """Noise source that fills a whole batch from one generator, keyed by (seed, step, draw).

    It is faster than the library's noise, which has one generator per example, but a particle's noise depends on the
    size of the batch and on the particle's place in it.

    Args:
        seed: Seed of every draw.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Return standard normal noise with the shape, dtype and device of `like`."""
        z = philox(self.seed, 0, step, draw).standard_normal(tuple(like.shape), dtype=np.float32)
        return torch.from_numpy(z).to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Return uniform noise on [0, 1) with the shape, dtype and device of `like`."""
        return torch.from_numpy(philox(self.seed, 0, step, draw).random(tuple(like.shape), dtype=np.float32)).to(like)


def wilson(successes: int, trials: int, deviations: float = NORMAL) -> tuple[float, float]:
    """Return Wilson's 95 % interval (low, high) of a proportion."""
    p, z = successes / trials, deviations
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return middle - half, middle + half


def mean_interval(values: Sequence[float], deviations: float = NORMAL) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % interval, mean +- deviations s / sqrt(n).

    Args:
        values: n independent values; of a single one the half-width is infinite.
        deviations: 97.5 % point of the distribution of the standardised mean: `STUDENT` for `SEEDS` trainings.
    """
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, math.inf
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    return mean, deviations * math.sqrt(variance / n)
