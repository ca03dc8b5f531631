"""Langevin against annealed Langevin dynamics on two modes of unequal weight, with exact scores."""

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
from scorefield.studies.papers.entry import Claim, Crowd, Drawing, Entry, Findings, Job, Table, wilson

WEIGHT = 0.8
MODES = torch.tensor([[5.0, 5.0], [-5.0, -5.0]], dtype=torch.float64)
STEP = 0.1
"""Size of a Langevin step at unit noise; at noise sigma it is STEP sigma^2."""
SHOWN = 1280
"""Particles of the published figure."""
PARTICLES = 20_000


def components(process: Process) -> Points:
    """Two points: with noise sigma the components have deviation sigma, as the release's score has it."""
    return Points(process, MODES, torch.tensor([WEIGHT, 1 - WEIGHT]))


def perturbed(process: Process) -> Mixture:
    """The mixture of deviation 1: with noise sigma its components have deviation sqrt(1 + sigma^2)."""
    covariances = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    return Mixture(process, torch.tensor([WEIGHT, 1 - WEIGHT]), MODES, covariances)


def chain(score: Score, *, epsilon: float, steps: int, sigma_end: float, particles: int, seed: int) -> Tensor:
    """Annealed Langevin dynamics along every level of the score's ladder, in the papers' convention, (particles, 2)."""
    step = Langevin(LadderScaled(epsilon, sigma_end), convention="half")
    sampler = Sampler(Chain((Repeat(step, steps), Hold())), EveryLevel(), UniformStart(-8.0, 8.0), final="none")
    return sampler.run(score, (2,), indices=range(particles), noise=Crowd(seed)).x


def in_first(x: Tensor) -> int:
    """How many particles are nearer to the mode of weight 0.8."""
    return int((x.sum(dim=1) > 0).sum())


@dataclass(frozen=True)
class Ended:
    """Where the particles of a chain ended."""

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
        """Of 95 %."""
        return wilson(in_first(self.x), len(self.x))

    def words(self) -> str:
        """The weight with its interval."""
        low, high = self.interval
        return f"{self.weight:.4f} [{low:.4f}, {high:.4f}]"


def _annealed(job: Job, n: int, steps: int, epsilon: float) -> Ended:
    """The ladder from 20 to 1."""
    job.observer.message(f"annealed, 20 to 1, {steps} steps of {epsilon:g} sigma^2 a level")
    score = components(Tabulated(GeometricSigmas(1.0, 20.0, 10)))
    x = chain(score, epsilon=epsilon, steps=steps, sigma_end=1.0, particles=n, seed=job.seed)
    return Ended("annealed", "20 to 1", f"{steps} of {epsilon:g} sigma^2", x)


def figure_3(job: Job) -> Findings:
    """Plain and annealed chains, both published ladders, smaller steps of the same total length, and longer chains."""
    n = job.scaled(PARTICLES, 200)
    job.observer.message(f"plain Langevin dynamics, {n} particles")
    one = components(Tabulated(GeometricSigmas(1.0, 1.0, 1)))
    x = chain(one, epsilon=STEP, steps=1000, sigma_end=1.0, particles=n, seed=job.seed)
    plain = Ended("Langevin", "1", f"1000 of {STEP}", x)
    published = _annealed(job, n, 100, STEP)
    finer = [_annealed(job, n, 100 * k, STEP / k) for k in (2, 4)]
    longer = [_annealed(job, n, 100 * k, STEP) for k in (4, 16)]
    job.observer.message("annealed, 10 to 0.1")
    low = 0.1
    wide = perturbed(Tabulated(GeometricSigmas(low, 10.0, 10)))
    x = chain(wide, epsilon=STEP * low**2, steps=100, sigma_end=low, particles=n, seed=job.seed)
    other = Ended("annealed", "10 to 0.1", f"100 of {STEP} sigma^2", x)
    every = (plain, published, *finer, *longer, other)
    return Findings(
        claims=_claims(plain, published, finer, longer),
        tables=(
            Table(
                ("chain", "ladder", "steps a level", "weight of the first mode", "95 % from", "to"),
                tuple((e.name, e.ladder, e.steps, e.weight, *e.interval) for e in every),
                f"Share of {n} particles nearer to the mode of weight 0.8; sizes in the papers' convention,"
                " x + (e / 2) score + sqrt(e) z.",
            ),
        ),
        drawings=(
            Drawing(
                "figure-3",
                "Langevin and annealed Langevin dynamics with exact scores",
                f"{SHOWN} particles each, begun uniformly on the square; the modes have weights 0.8 and 0.2.",
                lambda theme: _panels(theme, {"Langevin": plain.x, "annealed Langevin": published.x}),
            ),
        ),
        settings={
            "particles": n,
            "start": "uniform on [-8, 8]^2",
            "modes": "(5, 5) and (-5, -5), weights 0.8 and 0.2, deviation 1 at the end",
            "scores, 20 to 1": "of components of deviation sigma, as published",
            "scores, 10 to 0.1": "of the mixture of deviation 1 perturbed by sigma; the paper states no step for it",
            "seed": job.seed,
        },
    )


def _claims(plain: Ended, published: Ended, finer: Sequence[Ended], longer: Sequence[Ended]) -> tuple[Claim, ...]:
    def near(chain: Ended) -> bool:
        low, high = chain.interval
        return low - 0.002 <= WEIGHT <= high + 0.002

    return (
        Claim(
            "Langevin dynamics does not recover the weights of modes apart: half of the particles end in each",
            f"{plain.words()} end in the mode of weight 0.8",
            abs(plain.weight - 0.5) < 0.03,
        ),
        Claim(
            "Annealed Langevin dynamics recovers them (20 to 1, 100 steps of 0.1 sigma^2 a level), within 0.03",
            published.words(),
            abs(published.weight - WEIGHT) < 0.03,
        ),
        Claim(
            "What is missing is the error of the step: smaller ones of the same total length tend to 0.8",
            "; ".join(f"{e.steps}: {e.words()}" for e in finer),
            near(finer[-1]),
        ),
        Claim(
            "What is missing is time at each level: longer chains of the same step tend to 0.8",
            "; ".join(f"{e.steps}: {e.words()}" for e in longer),
            near(longer[-1]),
        ),
    )


def _panels(theme: Theme, clouds: dict[str, Tensor]) -> Figure:
    """Particles, a panel for each chain."""
    figure, axes = grid_of_axes(theme, 1, len(clouds), (2.9, 2.9), above=0.3)
    for ax, (title, x) in zip(axes, clouds.items(), strict=True):
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
        " noise levels from 10 to 0.1, appendix B.1 from 20 to 1 with 100 steps of 0.1 sigma^2 a level; both are run.",
        minutes=4.0,
        memory=0.6,
        run=figure_3,
    ),
)
