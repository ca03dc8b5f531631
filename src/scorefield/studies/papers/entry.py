"""What an experiment of a paper is here, and what comes out of it."""

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


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and what became of it.

    Args:
        says: The statement.
        found: What was found, with its interval.
        held: Whether it held; None where what was found does not decide it.
    """

    says: str
    found: str
    held: bool | None


@dataclass(frozen=True)
class Table:
    """Numbers.

    Args:
        columns: Their names, with units.
        rows: As many cells as columns.
        caption: What they are.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Args:
        name: Of its file.
        title: What it shows.
        caption: How to read it.
        draw: Makes it in the colours of a theme; a picture of examples has none.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Theme], Figure | Image.Image]


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Args:
        claims: Of the paper.
        tables: Numbers with their intervals.
        drawings: Figures.
        settings: Everything the numbers depend on.
    """

    claims: tuple[Claim, ...]
    tables: tuple[Table, ...]
    drawings: tuple[Drawing, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """How to run an experiment.

    Args:
        folder: Where it may keep what it trains; a run found there is resumed.
        seed: Of everything random.
        effort: Factor on the numbers of particles, samples and training steps, and below 1 on the steps of long chains
            too; 1 is what the claims are judged at.
        observer: Told of progress.
    """

    folder: Path
    seed: int
    effort: float
    observer: Observer

    def scaled(self, count: int, least: int = 2) -> int:
        """A number under the job's effort."""
        return max(least, round(count * self.effort))


@dataclass(frozen=True)
class Entry:
    """A table or a figure of a paper.

    Args:
        name: On the command line.
        paper: Whose.
        item: Which table or figure.
        title: What it is about.
        shows: What the paper shows.
        state: Whether it runs on any machine, or needs more than time.
        minutes: About how long it takes on two cores; None where it does not run here.
        memory: GiB at most; None where it does not run here.
        run: Does it; None where it does not run here.
        instead: The commands that do it where there is an accelerator, or the weights.
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


class Crowd:
    """Noise of many particles at once, where a generator for each would take most of the time.

    Args:
        seed: Of all of it.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Standard normal noise."""
        z = philox(self.seed, 0, step, draw).standard_normal(tuple(like.shape), dtype=np.float32)
        return torch.from_numpy(z).to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Uniform noise on [0, 1)."""
        return torch.from_numpy(philox(self.seed, 0, step, draw).random(tuple(like.shape), dtype=np.float32)).to(like)


def wilson(successes: int, trials: int, deviations: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    p, z = successes / trials, deviations
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return middle - half, middle + half


def mean_interval(values: Sequence[float], deviations: float = 1.959964) -> tuple[float, float]:
    """(mean, half-width of its 95 % interval from the values' own spread); the half-width of one value is infinite."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, math.inf
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    return mean, deviations * math.sqrt(variance / n)
