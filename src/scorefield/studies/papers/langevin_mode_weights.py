"""Langevin and annealed Langevin dynamics on two modes of unequal weight, with exact scores (NCSN, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import GeometricSigmas, Process, Tabulated
from scorefield.process.grids import EveryLevel
from scorefield.sampling import Chain, Hold, LadderScaled, Langevin, Repeat, Sampler, UniformStart
from scorefield.score import Score
from scorefield.score.oracles import Mixture, Points
from scorefield.studies.papers.entry import BatchNoise, Claim, Drawing, Entry, Findings, Job, Table, wilson

WEIGHT = 0.8
"""Weight of the first mode."""
MODES = torch.tensor([[5.0, 5.0], [-5.0, -5.0]], dtype=torch.float64)
STEP = 0.1
"""Size e of a Langevin step x + (e / 2) score + sqrt(e) z at unit noise; at noise sigma it is STEP sigma^2."""
SHOWN = 1280
"""Number of particles in the published figure."""
PARTICLES = 20_000
"""Number of particles from which the shares are measured."""


def components(process: Process) -> Points:
    """Return data of two points: at noise sigma the components have deviation sigma, as in the published code."""
    return Points(process, MODES, torch.tensor([WEIGHT, 1 - WEIGHT]))


def perturbed(process: Process) -> Mixture:
    """Return the mixture of deviation 1: at noise sigma its components have deviation sqrt(1 + sigma^2)."""
    covariances = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    return Mixture(process, torch.tensor([WEIGHT, 1 - WEIGHT]), MODES, covariances)


def chain(score: Score, *, epsilon: float, steps: int, sigma_end: float, particles: int, seed: int) -> Tensor:
    """Run annealed Langevin dynamics at every level of the score's ladder from the uniform distribution on [-8, 8]^2.

    Args:
        score: Score with a ladder.
        epsilon: e of the step x + (e / 2) score + sqrt(e) z at the last level; it is proportional to sigma^2.
        steps: Steps per level.
        sigma_end: Noise of the last level.
        particles: Number of particles.
        seed: Seed of the noise.

    Returns:
        The particles, (particles, 2).
    """
    step = Langevin(LadderScaled(epsilon, sigma_end), convention="half")
    sampler = Sampler(Chain((Repeat(step, steps), Hold())), EveryLevel(), UniformStart(-8.0, 8.0), final="none")
    return sampler.run(score, (2,), indices=range(particles), noise=BatchNoise(seed)).x


def in_first(x: Tensor) -> int:
    """Return the number of particles nearer to the mode of weight 0.8."""
    return int((x.sum(dim=1) > 0).sum())


@dataclass(frozen=True)
class ChainResult:
    """Final particles of a chain.

    Args:
        name: Name of the chain.
        ladder: Its noise levels.
        steps: Its steps per level.
        x: Final particles, (particles, 2).
    """

    name: str
    ladder: str
    steps: str
    x: Tensor

    @property
    def weight(self) -> float:
        """Share of the particles nearer to the mode of weight 0.8."""
        return in_first(self.x) / len(self.x)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `weight`."""
        return wilson(in_first(self.x), len(self.x))

    def summary(self) -> str:
        """Return the weight with its interval."""
        low, high = self.interval
        return f"{self.weight:.4f} [{low:.4f}, {high:.4f}]"


def _annealed(job: Job, n: int, steps: int, epsilon: float) -> ChainResult:
    """Run annealed Langevin dynamics on the ladder from 20 to 1."""
    job.observer.message(f"annealed Langevin dynamics, 20 to 1, {steps} steps of {epsilon:g} sigma^2 per level")
    score = components(Tabulated(GeometricSigmas(1.0, 20.0, 10)))
    x = chain(score, epsilon=epsilon, steps=steps, sigma_end=1.0, particles=n, seed=job.seed)
    return ChainResult("annealed", "20 to 1", f"{steps} of {epsilon:g} sigma^2", x)


def figure_3(job: Job) -> Findings:
    """Run Langevin dynamics, and annealed Langevin dynamics on both published ladders, with finer and longer chains.

    Finer chains have smaller steps of the same total length; longer chains have more steps of the same size.
    """
    n = job.scaled(PARTICLES, 200)
    job.observer.message(f"Langevin dynamics without annealing, {n} particles")
    one = components(Tabulated(GeometricSigmas(1.0, 1.0, 1)))
    x = chain(one, epsilon=STEP, steps=1000, sigma_end=1.0, particles=n, seed=job.seed)
    plain = ChainResult("Langevin", "1", f"1000 of {STEP}", x)
    published = _annealed(job, n, 100, STEP)
    finer = [_annealed(job, n, 100 * k, STEP / k) for k in (2, 4)]
    longer = [_annealed(job, n, 100 * k, STEP) for k in (4, 16)]
    job.observer.message("annealed Langevin dynamics, 10 to 0.1")
    low = 0.1
    wide = perturbed(Tabulated(GeometricSigmas(low, 10.0, 10)))
    x = chain(wide, epsilon=STEP * low**2, steps=100, sigma_end=low, particles=n, seed=job.seed)
    other = ChainResult("annealed", "10 to 0.1", f"100 of {STEP} sigma^2", x)
    every = (plain, published, *finer, *longer, other)
    return Findings(
        claims=_claims(plain, published, finer, longer),
        tables=(
            Table(
                ("chain", "ladder", "steps per level", "share in the first mode", "95 % from", "to"),
                tuple((e.name, e.ladder, e.steps, e.weight, *e.interval) for e in every),
                f"Share of {n} particles nearer to the mode of weight 0.8. Step sizes e are those of the papers'"
                " convention, x + (e / 2) score + sqrt(e) z.",
            ),
        ),
        drawings=(
            Drawing(
                "figure-3",
                "Langevin and annealed Langevin dynamics with exact scores",
                f"{SHOWN} particles each, started uniformly on the square. The modes have weights 0.8 and 0.2; the"
                " titles give the shares found.",
                lambda theme: _panels(theme, {"Langevin": plain.x, "annealed Langevin": published.x}),
            ),
        ),
        settings={
            "particles": n,
            "start": "uniform on [-8, 8]^2",
            "modes": "(5, 5) and (-5, -5), weights 0.8 and 0.2, deviation 1 at the end",
            "scores, 20 to 1": "those of components of deviation sigma, as published",
            "scores, 10 to 0.1": "those of the mixture of deviation 1 perturbed by sigma; the paper states no step size"
            " for this ladder",
            "seed": job.seed,
        },
    )


def _claims(
    plain: ChainResult, published: ChainResult, finer: Sequence[ChainResult], longer: Sequence[ChainResult]
) -> tuple[Claim, ...]:
    def near(chain: ChainResult) -> bool:
        """Return whether the interval, widened by 0.002, contains the weight of the first mode."""
        low, high = chain.interval
        return low - 0.002 <= WEIGHT <= high + 0.002

    return (
        Claim(
            "Langevin dynamics does not recover the weights of separated modes: half of the particles end in each",
            f"a share of {plain.summary()} ends in the mode of weight 0.8",
            abs(plain.weight - 0.5) < 0.03,
        ),
        Claim(
            "Annealed Langevin dynamics (20 to 1, 100 steps of 0.1 sigma^2 per level) recovers the weights within 0.03",
            f"a share of {published.summary()} ends in the mode of weight 0.8",
            abs(published.weight - WEIGHT) < 0.03,
        ),
        Claim(
            "The remaining error is due to the size of the step: with smaller steps of the same total length the share"
            " tends to 0.8",
            "; ".join(f"{e.steps}: {e.summary()}" for e in finer),
            near(finer[-1]),
        ),
        Claim(
            "The remaining error is due to too little time at each level: with more steps of the same size the share"
            " tends to 0.8",
            "; ".join(f"{e.steps}: {e.summary()}" for e in longer),
            near(longer[-1]),
        ),
    )


def _panels(theme: Theme, particles: dict[str, Tensor]) -> Figure:
    """Draw the particles, one panel for each chain."""
    figure, axes = grid_of_axes(theme, 1, len(particles), (2.9, 2.9), above=0.3)
    for ax, (title, x) in zip(axes, particles.items(), strict=True):
        ax.scatter(*x[:SHOWN].T.tolist(), s=2.5, color=theme.series[0], linewidths=0, alpha=0.6)
        ax.set(xlim=(-9, 9), ylim=(-9, 9))
        share = in_first(x) / len(x)
        ax.set_title(f"{title}: {share:.2f} / {1 - share:.2f}", fontsize=9, color=theme.ink)
    return figure


ENTRIES = (
    Entry(
        name="ncsn-figure-3",
        paper="NCSN",
        item="figure 3",
        title="Langevin against annealed Langevin dynamics",
        shows="On a mixture of two Gaussians of weights 0.8 and 0.2, Langevin dynamics with exact scores puts as many"
        " samples into one mode as into the other; annealed Langevin dynamics recovers the weights. Section 4.3 states"
        " noise levels from 10 to 0.1, appendix B.1 from 20 to 1 with 100 steps of 0.1 sigma^2 per level; here both are"
        " run.",
        minutes=4.0,
        memory=0.6,
        run=figure_3,
    ),
)
