"""Estimated scores where there are few data: two modes, a perceptron and sliced score matching (NCSN, figure 2)."""

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
from scorefield.studies.papers.entry import Claim, Drawing, Entry, Findings, Job, Table, mean_interval
from scorefield.studies.papers.two_modes import MODES, STEP, WEIGHT, Ended, chain, components

STEPS = 10_000
BATCH = 128
SEEDS = 3
STUDENT = 4.303
"""97.5 % point of Student's law for the mean of three trainings."""
PARTICLES = 2000
HALF_WIDTH = 8.0
ARROWS = 20
MASS = (0.5, 0.9, 0.99)
"""Shares of the probability, densest region first, that bound the classes of density."""


@dataclass(frozen=True)
class Field:
    """Estimated and true scores on a grid.

    Args:
        x: Points of [-8, 8]^2, (N, 2).
        log_p: Log density of the data there.
        estimated: Scores of the network.
        true: Scores of the mixture.
    """

    x: Tensor
    log_p: Tensor
    estimated: Tensor
    true: Tensor

    @property
    def error(self) -> Tensor:
        """Length of the difference of the scores, (N,)."""
        return (self.estimated - self.true).norm(dim=1)

    def rms(self, chosen: Tensor) -> tuple[float, float]:
        """Root mean squares of the error and of the true score over chosen points."""
        return tuple(float(v[chosen].square().mean().sqrt()) for v in (self.error, self.true.norm(dim=1)))  # type: ignore[return-value]


def mixture() -> Points:
    """The data: two points with the noise 1, whose only level a network is trained at."""
    return components(Tabulated(GeometricSigmas(1.0, 1.0, 1)))


def fit(truth: Points, steps: int, seed: int, job: Job) -> NetworkScore:
    """The published perceptron, trained by sliced score matching with one direction an example."""
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
    """Both scores on a grid of side^2 points."""
    line = torch.linspace(-HALF_WIDTH, HALF_WIDTH, side)
    x = torch.cartesian_prod(line, line)
    t = torch.ones(len(x), dtype=torch.float64)
    with torch.no_grad():
        return Field(x, truth.log_prob(x, t), score(x, t), truth(x, t))


def thresholds(truth: Points, seed: int) -> list[float]:
    """Log densities above which the shares `MASS` of the probability lie."""
    x = truth.sample(20_000, 1.0, seed=seed)
    log_p = truth.log_prob(x, torch.ones(len(x), dtype=torch.float64))
    return [float(log_p.quantile(1.0 - share)) for share in MASS]


def regions(log_p: Tensor, bounds: list[float]) -> dict[str, Tensor]:
    """The classes of density, densest first."""
    names = [f"the densest {MASS[0]:.0%} of the mass"]
    names += [f"{a:.0%} to {b:.0%}" for a, b in zip(MASS, MASS[1:], strict=False)]
    names.append(f"the last {1 - MASS[-1]:.0%}, {float((log_p < bounds[-1]).double().mean()):.0%} of the area")
    upper, lower = [float("inf"), *bounds], [*bounds, -float("inf")]
    return {n: (log_p >= low) & (log_p < high) for n, low, high in zip(names, lower, upper, strict=True)}


def figure_2(job: Job) -> Findings:
    """Three trainings, the error by density, and Langevin dynamics with estimated and with true scores."""
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
        Ended(
            name, "1", f"1000 of {STEP}", chain(s, epsilon=STEP, steps=1000, sigma_end=1.0, particles=n, seed=job.seed)
        )
        for name, s in (("estimated score", scores[0]), ("true score", truth))
    ]
    rows = [(name, *mean_interval(errors[name], STUDENT), fields[0].rms(chosen)[1]) for name, chosen in where.items()]
    return Findings(
        claims=_claims(errors, ends),
        tables=(
            Table(
                ("region", "error of the score", "95 % +-", "length of the true score"),
                tuple(rows),
                f"Root mean squares over a grid on [-8, 8]^2, by the density of the data; means over {SEEDS} trainings,"
                " intervals by Student's law.",
            ),
            Table(
                ("Langevin dynamics with the", "weight of the first mode", "95 % from", "to"),
                tuple((e.name, e.weight, *e.interval) for e in ends),
                f"{n} particles from the uniform law on the square, 1000 steps of {STEP} (half convention); the weight"
                f" of the first mode is {WEIGHT}.",
            ),
        ),
        drawings=(
            Drawing(
                "figure-2",
                "Density, estimated and true scores",
                "Shading: density of the data, and its error on the right. Arrows are scaled alike in all panels.",
                lambda theme: _panels(theme, fields[0], field(scores[0], truth, ARROWS)),
            ),
            Drawing(
                "samples",
                "Langevin dynamics with both",
                "Particles that began uniformly on the square; shares of the two modes above.",
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


def _claims(errors: dict[str, list[float]], ends: list[Ended]) -> tuple[Claim, ...]:
    dense, *_, sparse = errors.values()
    mean, half = mean_interval([math.log(b / a) for a, b in zip(dense, sparse, strict=True)], STUDENT)
    low, ratio, high = (math.exp(mean + k * half) for k in (-1, 0, 1))
    shares = "; ".join(f"{e.name} {e.weight:.3f} [{e.interval[0]:.3f}, {e.interval[1]:.3f}]" for e in ends)
    wrong = [not e.interval[0] <= WEIGHT <= e.interval[1] for e in ends]
    return (
        Claim(
            "The estimated score is reliable only where the density of the data is high",
            f"its error where the last 1 % of the mass lies is {ratio:.1f} [{low:.1f}, {high:.1f}] times that where the"
            " densest half lies",
            True if low > 2 else False if high < 2 else None,
        ),
        Claim(
            "Langevin dynamics gives the modes wrong weights, with estimated and with true scores",
            f"share in the mode of weight {WEIGHT}: {shares}",
            all(wrong),
        ),
    )


def _panels(theme: Theme, fine: Field, coarse: Field) -> Figure:
    """Density with both fields of arrows, and the error."""
    figure, axes = grid_of_axes(theme, 1, 3, (2.6, 2.6), above=0.3)
    side = round(len(fine.x) ** 0.5)
    extent = (-HALF_WIDTH, HALF_WIDTH, -HALF_WIDTH, HALF_WIDTH)
    shade = _shade()
    x, y = coarse.x.T.numpy()
    shown = (("true scores", fine.log_p.exp(), coarse.true), ("estimated scores", fine.log_p.exp(), coarse.estimated))
    for ax, (title, background, arrows) in zip(axes, shown, strict=False):
        # Transposed: the first coordinate runs along the rows of the grid and to the right in the picture.
        ax.imshow(background.reshape(side, side).T.numpy(), origin="lower", extent=extent, cmap=shade)
        u, v = arrows.T.numpy()
        ax.quiver(x, y, u, v, color=theme.series[0], scale=160.0, width=0.004)
        ax.set_title(title, fontsize=9, color=theme.ink)
    axes[2].imshow(fine.error.reshape(side, side).T.numpy(), origin="lower", extent=extent, cmap=shade)
    largest = float(fine.error.max())
    axes[2].set_title(f"error, at most {largest:.1f}", fontsize=9, color=theme.ink)
    for ax in axes:
        ax.grid(False)
        ax.set(xlim=extent[:2], ylim=extent[2:])
    return figure


def _shade() -> LinearSegmentedColormap:
    """From nothing to a colour that is seen on light and on dark pages."""
    red, green, blue = to_rgb(PAPER.series[1])
    ends = np.array([[red, green, blue, 0.0], [red, green, blue, 0.85]])
    return LinearSegmentedColormap.from_list("shade", ends)


def _samples(theme: Theme, ends: list[Ended]) -> Figure:
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
        shows="A network trained by sliced score matching on two modes of weights 0.8 and 0.2 has the right scores near"
        " the modes alone; Langevin dynamics then starts where they are wrong, and gives the modes wrong weights even"
        " with true scores.",
        minutes=3.0,
        memory=0.5,
        run=figure_2,
    ),
)
