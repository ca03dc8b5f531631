"""Errors of estimated scores where the density is low: two modes, a perceptron, sliced score matching (NCSN, figure 2).

The data are the mixture 0.8 N((5, 5), I) + 0.2 N((-5, -5), I). A perceptron is trained by sliced score matching; its
error is measured by classes of density, and Langevin dynamics is run with the estimated and with the true score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.losses import SlicedScoreMatching
from scorefield.nets.mlp import ToyMLP
from scorefield.plot.pictures import PAPER, Theme, grid_of_axes
from scorefield.process import GeometricSigmas, Tabulated
from scorefield.score.network import NetworkScore
from scorefield.score.oracles import Points
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
from scorefield.studies.papers.langevin_mode_weights import MODES, STEP, WEIGHT, ChainResult, chain, components

STEPS = 10_000
"""Optimiser steps of a training."""
BATCH = 128
PARTICLES = 2000
HALF_WIDTH = 8.0
"""Half of the side of the square on which scores are compared and chains start."""
ARROWS = 20
"""Arrows along each side of the figure."""
MASS = (0.5, 0.9, 0.99)
"""Shares of the probability, densest region first, that bound the classes of density."""


@dataclass(frozen=True)
class Field:
    """Estimated and true scores on a grid.

    Args:
        x: Points of [-8, 8]^2, (N, 2).
        log_p: Log density of the data at the points, (N,).
        estimated: Scores of the network, (N, 2).
        true: Scores of the mixture, (N, 2).
    """

    x: Tensor
    log_p: Tensor
    estimated: Tensor
    true: Tensor

    @property
    def error(self) -> Tensor:
        """Norm of the difference of the two scores, (N,)."""
        return (self.estimated - self.true).norm(dim=1)

    def rms(self, chosen: Tensor) -> tuple[float, float]:
        """Return the root mean squares of the error and of the true score over a mask of points, (N,)."""
        return tuple(float(v[chosen].square().mean().sqrt()) for v in (self.error, self.true.norm(dim=1)))  # type: ignore[return-value]


def mixture() -> Points:
    """Return the data as two points perturbed at the single noise level 1, at which the network is trained."""
    return components(Tabulated(GeometricSigmas(1.0, 1.0, 1)))


def fit(truth: Points, steps: int, seed: int, job: Job) -> NetworkScore:
    """Train the published perceptron by sliced score matching with one direction per example.

    Args:
        truth: The data distribution with its process.
        steps: Optimiser steps.
        seed: Seed of the weights and of the training.
        job: Its observer is called every 100 steps.
    """
    torch.manual_seed(seed)
    score = NetworkScore(ToyMLP().build(DataSpec((2,))), truth.process, ScoreForm(), ScaledTime(0.0))
    objective = SlicedScoreMatching(reduce="half_sum")
    optimiser = torch.optim.Adam(score.network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    modes = MODES.float()
    for step in range(steps):
        first = torch.rand(BATCH, generator=generator) < WEIGHT
        x0 = torch.where(first[:, None], modes[0], modes[1])
        loss = objective(score, x0, objective.draw(truth.process, x0, generator)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 100 == 99:
            job.observer.step(step + 1, steps, float(loss.detach()))
    return score


def field(score: NetworkScore, truth: Points, side: int) -> Field:
    """Return both scores on a grid of side^2 points."""
    line = torch.linspace(-HALF_WIDTH, HALF_WIDTH, side)
    x = torch.cartesian_prod(line, line)
    t = torch.ones(len(x), dtype=torch.float64)
    with torch.no_grad():
        return Field(x, truth.log_prob(x, t), score(x, t), truth(x, t))


def thresholds(truth: Points, seed: int) -> list[float]:
    """Return the log densities above which the shares `MASS` of the probability lie."""
    x = truth.sample(20_000, 1.0, seed=seed)
    log_p = truth.log_prob(x, torch.ones(len(x), dtype=torch.float64))
    return [float(log_p.quantile(1.0 - share)) for share in MASS]


def regions(log_p: Tensor, bounds: list[float]) -> dict[str, Tensor]:
    """Return the classes of density as name -> mask, densest class first.

    Args:
        log_p: Log densities of the points of the grid.
        bounds: Result of `thresholds`.
    """
    names = [f"the densest {MASS[0]:.0%} of the mass"]
    names += [f"{a:.0%} to {b:.0%}" for a, b in zip(MASS, MASS[1:], strict=False)]
    names.append(f"the last {1 - MASS[-1]:.0%}, {float((log_p < bounds[-1]).double().mean()):.0%} of the area")
    upper, lower = [float("inf"), *bounds], [*bounds, -float("inf")]
    return {n: (log_p >= low) & (log_p < high) for n, low, high in zip(names, lower, upper, strict=True)}


def figure_2(job: Job) -> Findings:
    """Train three networks, measure their errors by density, and run Langevin dynamics with both scores."""
    steps, n, truth = job.scaled(STEPS, 20), job.scaled(PARTICLES, 200), mixture()
    scores = []
    for seed in range(job.seed, job.seed + SEEDS):
        job.observer.message(f"perceptron, seed {seed}: {steps} steps")
        scores.append(fit(truth, steps, seed, job))
    fields = [field(score, truth, 100) for score in scores]
    where = regions(fields[0].log_p, thresholds(truth, job.seed))
    errors = {name: [f.rms(chosen)[0] for f in fields] for name, chosen in where.items()}
    job.observer.message(f"Langevin dynamics, {n} particles")
    ends = [
        ChainResult(
            name, "1", f"1000 of {STEP}", chain(s, epsilon=STEP, steps=1000, sigma_end=1.0, particles=n, seed=job.seed)
        )
        for name, s in (("estimated score", scores[0]), ("true score", truth))
    ]
    rows = [(name, *mean_interval(errors[name], STUDENT), fields[0].rms(chosen)[1]) for name, chosen in where.items()]
    return Findings(
        claims=_claims(errors, ends),
        tables=(
            Table(
                ("region", "error of the score", "95 % +-", "norm of the true score"),
                tuple(rows),
                f"Root mean squares over a grid on [-8, 8]^2, by the density of the data; means over {SEEDS} trainings,"
                " intervals by Student's t.",
            ),
            Table(
                ("Langevin dynamics with the", "share in the first mode", "95 % from", "to"),
                tuple((e.name, e.weight, *e.interval) for e in ends),
                f"Share of {n} particles, started uniformly on the square, after 1000 steps x + (e / 2) score +"
                f" sqrt(e) z with e = {STEP}; the weight of the first mode is {WEIGHT}.",
            ),
        ),
        drawings=(
            Drawing(
                "figure-2",
                "Density, true scores and estimated scores",
                "Shading is the density of the data, and in the right panel the error of the estimated score. Arrows"
                " have the same scale in all panels.",
                lambda theme: _panels(theme, fields[0], field(scores[0], truth, ARROWS)),
            ),
            Drawing(
                "samples",
                "Langevin dynamics with estimated and with true scores",
                "Particles were started uniformly on the square; the titles give the shares in the two modes.",
                lambda theme: _samples(theme, ends),
            ),
        ),
        settings={
            "data": "0.8 N((5, 5), I) + 0.2 N((-5, -5), I)",
            "network": "perceptron 2-128-128-2, softplus",
            "training": f"sliced score matching with |s|^2 in closed form, {steps} steps of {BATCH}, Adam 1e-3",
            "trainings": SEEDS,
            "particles": n,
            "seed": job.seed,
        },
    )


def _claims(errors: dict[str, list[float]], ends: list[ChainResult]) -> tuple[Claim, ...]:
    dense, *_, sparse = errors.values()
    mean, half = mean_interval([math.log(b / a) for a, b in zip(dense, sparse, strict=True)], STUDENT)
    low, ratio, high = (math.exp(mean + k * half) for k in (-1, 0, 1))
    shares = "; ".join(f"{e.name} {e.weight:.3f} [{e.interval[0]:.3f}, {e.interval[1]:.3f}]" for e in ends)
    excluded = [not e.interval[0] <= WEIGHT <= e.interval[1] for e in ends]
    return (
        Claim(
            "The estimated score is reliable only where the density of the data is high (here: its error is at least"
            " twice as large where it is low)",
            f"the error in the region of the last 1 % of the mass is {ratio:.1f} [{low:.1f}, {high:.1f}] times that in"
            " the region of the densest half",
            True if low > 2 else False if high < 2 else None,
        ),
        Claim(
            "Langevin dynamics gives the modes wrong weights, both with estimated and with true scores",
            f"share in the mode of weight {WEIGHT}: {shares}",
            all(excluded),
        ),
    )


def _panels(theme: Theme, fine: Field, coarse: Field) -> Figure:
    """Draw the density with the true and with the estimated scores, and the error."""
    figure, axes = grid_of_axes(theme, 1, 3, (2.6, 2.6), above=0.3)
    side = round(len(fine.x) ** 0.5)
    extent = (-HALF_WIDTH, HALF_WIDTH, -HALF_WIDTH, HALF_WIDTH)
    shade = _shade()
    x, y = coarse.x.T.numpy()
    shown = (("true scores", fine.log_p.exp(), coarse.true), ("estimated scores", fine.log_p.exp(), coarse.estimated))
    for ax, (title, background, arrows) in zip(axes, shown, strict=False):
        # Transposed, because the first coordinate runs along the rows of the grid and to the right in the figure.
        ax.imshow(background.reshape(side, side).T.numpy(), origin="lower", extent=extent, cmap=shade)
        u, v = arrows.T.numpy()
        ax.quiver(x, y, u, v, color=theme.series[0], scale=160.0, width=0.004)
        ax.set_title(title, fontsize=9, color=theme.ink)
    axes[2].imshow(fine.error.reshape(side, side).T.numpy(), origin="lower", extent=extent, cmap=shade)
    largest = float(fine.error.max())
    axes[2].set_title(f"error, up to {largest:.1f}", fontsize=9, color=theme.ink)
    for ax in axes:
        ax.grid(False)
        ax.set(xlim=extent[:2], ylim=extent[2:])
    return figure


def _shade() -> LinearSegmentedColormap:
    """Return a colour map from transparent to a colour that is visible on light and on dark pages."""
    red, green, blue = to_rgb(PAPER.series[1])
    ends = np.array([[red, green, blue, 0.0], [red, green, blue, 0.85]])
    return LinearSegmentedColormap.from_list("shade", ends)


def _samples(theme: Theme, ends: list[ChainResult]) -> Figure:
    figure, axes = grid_of_axes(theme, 1, len(ends), (2.6, 2.6), above=0.3)
    for ax, end in zip(axes, ends, strict=True):
        ax.scatter(*end.x[:1280].T.tolist(), s=2.5, color=theme.series[0], linewidths=0, alpha=0.6)
        ax.set(xlim=(-9, 9), ylim=(-9, 9))
        ax.set_title(f"{end.name}: {end.weight:.2f} / {1 - end.weight:.2f}", fontsize=9, color=theme.ink)
    return figure


ENTRIES = (
    Entry(
        name="ncsn-figure-2",
        paper="NCSN",
        item="figure 2",
        title="Scores in regions of low density",
        shows="A network trained by sliced score matching on two modes of weights 0.8 and 0.2 has accurate scores near"
        " the modes only. Langevin dynamics starts where they are inaccurate, and it gives the modes wrong weights even"
        " with true scores.",
        minutes=3.0,
        memory=0.5,
        run=figure_2,
    ),
)
