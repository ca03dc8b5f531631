"""Sliced score matching on images with and without noise of deviation 0.01 (NCSN, figure 1)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses import Custom, SlicedScoreMatching
from scorefield.models.experiment import Adam, Averaging, Experiment, Training
from scorefield.nets.resscore import ResScore
from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import Levels, Process, Tabulated
from scorefield.score.parametrisation import ScaledTime, ScoreForm
from scorefield.studies.papers.entry import (
    SEEDS,
    STUDENT,
    Claim,
    Drawing,
    Entry,
    Findings,
    Job,
    Table,
    mean_interval,
)
from scorefield.training.trainable import TrainingError
from scorefield.training.trainer import train

NOISE = 0.01
NO_NOISE = 1e-9
"""Noise level of the trainings without noise, as a level must be positive: it is about a hundredth of the spacing of
float32 numbers near 0.06, so that it changes no pixel but exact zeros."""
CHANNELS = 8
"""Width of the network, a quarter of the published one."""
STEPS = 800
"""Optimiser steps of a training."""
BATCH = 64

SMALL = 1e3
"""Largest absolute loss that is drawn on the linear part of the scale."""
TICKS = sorted([0.0, *(sign * 10.0**k for sign in (-1, 1) for k in range(3, 12))])


def unweighted(process: Process, t: Tensor) -> Tensor:
    """Return the weighting lambda = 1; with one noise level a weighting is a constant factor."""
    return torch.ones_like(t)


@dataclass(frozen=True)
class Curve:
    """The loss curve of one training.

    Args:
        noise: Noise level.
        seed: Seed of the training.
        losses: Loss of every step up to the first that was not finite.
        steps: Number of steps planned; `losses` is shorter where the training ended with a loss that is not finite.
    """

    noise: float
    seed: int
    losses: np.ndarray
    steps: int

    @property
    def fluctuation(self) -> float:
        """Relative size of the fluctuations in the second half of the steps; infinite for a training that broke off.

        It is the root mean square of loss - m over the median of |m|, where m is the running median of the loss.
        """
        if len(self.losses) < self.steps:
            return math.inf
        half = self.losses[len(self.losses) // 2 :]
        trend = running_median(half)
        return float(np.sqrt(np.mean((half - trend) ** 2)) / np.median(np.abs(trend)))


def running_median(values: np.ndarray, window: int = 51) -> np.ndarray:
    """Return the median of each value's neighbourhood of `window` values, which is cut off at both ends."""
    side = min(window, len(values)) // 2
    return np.array([np.median(values[max(0, i - side) : i + side + 1]) for i in range(len(values))])


def experiment(noise: float, steps: int, seed: int) -> Experiment:
    """Return the published training on digits: no dequantisation, no EMA, no gradient clipping."""
    return Experiment(
        name="tiny-noise",
        data=DataSource("digits", model_range=(0.0, 1.0)),
        spec=DataSpec((1, 8, 8), 0, 16, 17, model_range=(0.0, 1.0)),
        process=Tabulated(Levels((noise,))),
        network=ResScore(CHANNELS),
        form=ScoreForm(),
        time_input=ScaledTime(0.0),
        objective=SlicedScoreMatching(weighting=Custom(unweighted), reduce="half_sum"),
        optimiser=Adam(learning_rate=1e-3, warmup=0, clip=None),
        averaging=Averaging(()),
        training=Training(
            steps=steps, batch_size=BATCH, seed=seed, log_every=1, validate_every=0, checkpoint_every=200
        ),
    )


def curve(job: Job, noise: float, seed: int, steps: int) -> Curve:
    """Train one network, resuming a run found in the folder, and read the loss of every step.

    A training that ends because its loss is not finite is part of the result, and is reported as a shorter curve.
    """
    name = "noise" if noise == NOISE else "no-noise"
    folder = job.folder / "runs" / f"{name}-{seed}"
    job.observer.message(f"{name}, seed {seed}: {steps} steps")
    try:
        train(experiment(noise, steps, seed), folder, resume="auto", observer=job.observer)
    except TrainingError as error:
        if "not finite" not in str(error):
            raise
        job.observer.message(str(error))
    return Curve(noise, seed, _losses(folder), steps)


def _losses(folder: Path) -> np.ndarray:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


def figure_1(job: Job) -> Findings:
    """Train three networks with and three without the noise, from the same weights and with the same batches."""
    steps = job.scaled(STEPS, 8)
    seeds = range(job.seed, job.seed + SEEDS)
    noisy = [curve(job, NOISE, seed, steps) for seed in seeds]
    bare = [curve(job, NO_NOISE, seed, steps) for seed in seeds]
    rows = []
    for name, curves in (("none", bare), (f"{NOISE:g}", noisy)):
        ends = [float(np.median(c.losses[-max(1, len(c.losses) // 10) :])) for c in curves]
        sizes = ", ".join(f"{c.fluctuation:.3g}" for c in curves)
        least = min(float(c.losses.min()) for c in curves)
        most = max(float(c.losses[len(c.losses) // 2 :].max()) for c in curves)
        rows.append((name, sizes, ", ".join(f"{e:.3g}" for e in ends), least, most))
    return Findings(
        claims=_claims(noisy, bare),
        tables=(
            Table(
                ("noise", "fluctuation", "median loss, last tenth", "smallest loss", "largest loss, second half"),
                tuple(rows),
                "Fluctuation and median have one number for each training. Fluctuation: root mean square of the loss"
                " about its running median over 51 steps, relative to the size of that median, in the second half of"
                " the steps.",
            ),
        ),
        drawings=(
            Drawing(
                "figure-1",
                "Sliced score matching loss",
                "Left without noise, right with noise of deviation 0.01. The scale is linear near zero and logarithmic"
                f" beyond {SMALL:g}. Thin lines are losses of single batches, thick lines their running medians;"
                f" {SEEDS} trainings each.",
                lambda theme: _curves(theme, bare, noisy),
            ),
        ),
        settings={
            "data": "bundled 8x8 digits in [0, 1] (the paper: CIFAR-10), no dequantisation",
            "network": f"ResScore({CHANNELS}), a quarter of the published width",
            "loss": "sliced score matching, one Gaussian direction, |s|^2 in closed form",
            "training": f"{steps} steps of {BATCH} (the paper: 50,000 of 128), Adam 1e-3",
            "without noise": f"a level of {NO_NOISE:g}, below the rounding of the pixels",
            "trainings": SEEDS,
            "seed": job.seed,
        },
    )


def _claims(noisy: list[Curve], bare: list[Curve]) -> tuple[Claim, ...]:
    with_noise, without = ([c.fluctuation for c in curves] for curves in (noisy, bare))
    fluctuation, half = mean_interval(with_noise, STUDENT)
    broken = sum(math.isinf(v) for v in without)
    if broken == len(without):
        found, unstable = f"all {broken} trainings ended with a loss that is not finite", True
    else:
        pairs = zip(without, with_noise, strict=True)
        logs = [math.log(a / b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
        mean, spread = mean_interval(logs, STUDENT) if logs else (0.0, math.inf)
        low, high = (math.exp(min(mean + k * spread, 700.0)) for k in (-1, 1))
        found = (
            f"fluctuation relative to the trend {', '.join(f'{v:.3g}' for v in without)}, which is {math.exp(mean):.3g}"
            f" [{low:.3g}, {high:.3g}] times that with noise"
        )
        found += f"; {broken} of {len(without)} trainings ended with a loss that is not finite" if broken else ""
        unstable = True if low > 2 else False if high < 2 else None
    final = ", ".join(f"{float(np.median(c.losses[-len(c.losses) // 4 :])):.3g}" for c in noisy)
    return (
        Claim(
            "Without noise the loss fluctuates wildly (here: at least twice as much as with noise, relative to its"
            " trend)",
            found,
            unstable,
        ),
        Claim(
            "With noise of deviation 0.01 it converges (here: its fluctuation is below half of its trend)",
            f"fluctuation relative to the trend {fluctuation:.3g} +- {half:.2g}; median loss of the last quarter"
            f" {final}",
            True if fluctuation + half < 0.5 else False if fluctuation - half > 0.5 else None,
        ),
    )


def _curves(theme: Theme, bare: list[Curve], noisy: list[Curve]) -> Figure:
    figure, axes = grid_of_axes(theme, 1, 2, (3.0, 2.4), above=0.3, beside=0.7, below=0.5)
    every = np.concatenate([c.losses for c in (*bare, *noisy)])
    low, high = min(1.5 * float(every.min()), -SMALL), max(1.5 * float(every.max()), SMALL)
    for ax, title, curves in ((axes[0], "without noise", bare), (axes[1], "with noise 0.01", noisy)):
        for k, c in enumerate(curves):
            steps = np.arange(1, len(c.losses) + 1)
            ax.plot(steps, c.losses, color=theme.series[k], linewidth=0.5, alpha=0.45)
            ax.plot(steps, running_median(c.losses), color=theme.series[k], linewidth=1.3)
        ax.set_yscale("symlog", linthresh=SMALL)
        ax.set(ylim=(low, high), yticks=[v for v in TICKS if low <= v <= high])
        ax.set_title(title, fontsize=9, color=theme.ink)
        ax.set_xlabel("step", labelpad=2)
    return figure


ENTRIES = (
    Entry(
        name="ncsn-figure-1",
        paper="NCSN",
        item="figure 1",
        title="Sliced score matching with and without tiny noise",
        shows="On CIFAR-10 the sliced score matching loss of a residual network fluctuates wildly over 50,000 steps;"
        " with Gaussian noise of deviation 0.01 added to the pixels it converges.",
        minutes=9.0,
        memory=0.6,
        run=figure_1,
    ),
)
