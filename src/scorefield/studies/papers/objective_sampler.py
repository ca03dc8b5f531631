"""Every objective with every sampler that admits what it trains, on a mixture in the plane whose law is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from scorefield._math import over_event
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.losses import (
    DenoisingScoreMatching,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    Objective,
    SlicedScoreMatching,
)
from scorefield.metrics.energy_distance import Jackknifed, distance_sums, energy_distance
from scorefield.nets.mlp import MLP
from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import VE
from scorefield.process.grids import Uniform
from scorefield.sampling import HMC, MALA, AdaptiveSDE, Chain, NoiseScaled, ReverseDiffusion, Sampler
from scorefield.sampling.named import NAMED, named
from scorefield.sampling.temperature import NormalStart, TemperatureLangevin, TemperatureSchedule
from scorefield.score.energy import EnergyScore
from scorefield.score.network import NetworkScore
from scorefield.score.oracles.examples import skewed_mixture
from scorefield.score.parametrisation import KarrasForm, LogSigma
from scorefield.score.score import Score
from scorefield.studies.papers.entry import Claim, Crowd, Drawing, Entry, Findings, Job, Table

PROCESS = VE(0.05, 8.0)
SPREAD = 1.3
"""Standard deviation of the mixture, about."""
STEPS, BATCH, WIDTH = 1000, 256, 96
SAMPLES, TRUTH = 1000, 3000
BOUND = 0.05
"""Squared energy distance to the truth that every cell stays below."""

Kind = Literal["score", "energy"]
OBJECTIVES: Mapping[str, Objective] = {
    "DSM": DenoisingScoreMatching(stratified=True),
    "ISM": ImplicitScoreMatching(stratified=True),
    "SSM": SlicedScoreMatching(stratified=True, variance_reduced=False),
    "SSM-VR": SlicedScoreMatching(stratified=True),
    "FD-SSM": FiniteDifferenceScoreMatching(stratified=True, variance_reduced=False),
}


def _temperature() -> Sampler:
    """Annealed temperatures from the noise of the prior to that of the data, sigma_0 twice the least."""
    sigma_0 = 2.0 * PROCESS.sigma_min
    schedule = TemperatureSchedule(high=(PROCESS.sigma_max / sigma_0) ** 2, burn_in=20, anneal=960, quench=20)
    walk = TemperatureLangevin(schedule, 0.5 * sigma_0, sigma_0)
    return Sampler(walk, Uniform(schedule.steps), start=NormalStart(0.0, PROCESS.sigma_max))


def _corrected(step: HMC) -> Sampler:
    return Sampler(Chain((step, ReverseDiffusion())), Uniform(100))


_OWN_STEPS = {
    "ode": None,
    "ald": 60,
    "ancestral": 200,
    "em": 400,
    "reverse-diffusion": 200,
    "pc": 100,
    "ddim": 100,
    "cas": 400,
}
SAMPLERS: Mapping[str, Callable[[], Sampler]] = {
    **{name: lambda name=name: named(name, PROCESS, _OWN_STEPS.get(name, 40)) for name in NAMED},
    "adaptive-sde": lambda: Sampler(AdaptiveSDE(), Uniform(1)),
    "annealed temperature": _temperature,
    "pc, MALA": lambda: _corrected(MALA(NoiseScaled(0.3))),
    "pc, HMC": lambda: _corrected(HMC(NoiseScaled(0.3), leapfrog=3)),
    "pc, MALA by scores": lambda: _corrected(MALA(NoiseScaled(0.3), acceptance="line integral")),
}
"""Name -> what builds it; all of about as many calls as bring their own error below that of the trained scores."""

FEWER = {"adaptive-sde": 5}
"""Samplers that walk each example by itself draw so many times fewer."""


# ------------------------------------------------------------------------------------------------ models


class PlaneEnergy(nn.Module):
    """E(x, t) = |x|^2 / (2 (sigma^2 + s^2)) - (s / sigma) <y, F(y, ln sigma)>, y = x / sqrt(sigma^2 + s^2).

    At F = 0 the energy of the Gaussian that has the spread s of the data; the factor before F gives its gradient the
    scale of a `KarrasForm`.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """(B, 2), (B,) -> (B,)."""
        sigma = PROCESS.sigma(t).to(x)
        total = sigma**2 + SPREAD**2
        y = x / over_event(total.sqrt(), x)
        inner = (y * self.network(y, sigma.log(), condition)).sum(dim=1)
        return 0.5 * (x * x).sum(dim=1) / total - (SPREAD / sigma) * inner


def untrained(kind: Kind, seed: int) -> tuple[Score, nn.Module]:
    """A score, or the gradient of an energy, and its network."""
    torch.manual_seed(seed)
    network = MLP(width=WIDTH, depth=2, embedding_size=16).build(DataSpec((2,)))
    if kind == "score":
        return NetworkScore(network, PROCESS, KarrasForm(SPREAD), LogSigma()), network
    energy = PlaneEnergy(network)
    return EnergyScore(energy, PROCESS), energy


def train(kind: Kind, objective: Objective, steps: int, seed: int) -> Score:
    """Train by Adam on fresh samples of the mixture, the rate falling along half a cosine."""
    score, network = untrained(kind, seed)
    truth = skewed_mixture(PROCESS)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    pool = truth.sample(40 * BATCH, noise=Crowd(seed + 7), dtype=torch.float32)
    for _ in range(steps):
        x0 = pool[torch.randint(len(pool), (BATCH,), generator=generator)]
        loss = objective(score, x0, objective.draw(PROCESS, x0, generator)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return score


# ------------------------------------------------------------------------------------------------ cells


@dataclass(frozen=True)
class Cell:
    """One model by one sampler.

    Args:
        model: Objective and form.
        sampler: Its name.
        distance: To the truth; None where the pair is not admissible.
        reason: Why it is not.
        calls: Network calls of a sample, the mean.
    """

    model: str
    sampler: str
    distance: Jackknifed | None
    reason: str | None = None
    calls: float = 0.0


class Truth:
    """Samples of the mixture itself."""

    def __init__(self, count: int, seed: int):
        self.x = skewed_mixture(PROCESS).sample(count, noise=Crowd(seed + 1))
        self._inside = distance_sums(self.x, self.x)

    def distance(self, x: Tensor) -> Jackknifed:
        """Squared energy distance, unbiased."""
        return energy_distance(x, self.x, self._inside)


def cell(model: str, score: Score, name: str, truth: Truth, samples: int, seed: int) -> Cell:
    """Draw and measure; a pair that is not admissible says why."""
    try:
        count = max(20, samples // FEWER.get(name, 1))
        run = SAMPLERS[name]().run(score, (2,), indices=range(count), seed=seed, noise=_noise(name, seed))
    except (TypeError, ValueError) as error:
        return Cell(model, name, None, str(error))
    return Cell(model, name, truth.distance(run.x), calls=float(run.calls.double().mean()))


def _noise(name: str, seed: int) -> Crowd | None:
    """One generator for all; adaptive solvers ask for each example's own."""
    return None if name == "adaptive-sde" else Crowd(seed)


def matrix(job: Job) -> Findings:
    """Train by every objective, sample by every sampler."""
    steps, samples = job.scaled(STEPS, 20), job.scaled(SAMPLES, 50)
    truth = Truth(job.scaled(TRUTH, 100), job.seed)
    models: dict[str, Score] = {"exact": skewed_mixture(PROCESS)}
    kinds: tuple[Kind, ...] = ("score", "energy")
    for kind in kinds:
        for name, objective in OBJECTIVES.items():
            job.observer.message(f"training a{'n' * (kind == 'energy')} {kind} by {name}")
            models[f"{name}, {kind}"] = train(kind, objective, steps, job.seed)
    cells = []
    for model, score in models.items():
        job.observer.message(f"sampling: {model}")
        cells += [cell(model, score, name, truth, samples, job.seed) for name in SAMPLERS]
    return _findings(cells, list(models), job, steps, samples)


def _findings(cells: list[Cell], models: list[str], job: Job, steps: int, samples: int) -> Findings:
    admitted = [c for c in cells if c.distance is not None]
    refused = [c for c in cells if c.distance is None]
    worst = max(admitted, key=lambda c: c.distance.number if c.distance is not None else 0.0)
    assert worst.distance is not None
    known = {(c.model, c.sampler): c for c in cells}
    rows = tuple((name, *(_shown(known[model, name].distance) for model in models)) for name in SAMPLERS)
    return Findings(
        claims=(
            Claim(
                f"Every objective by every sampler that admits it is within {BOUND} of the truth (squared energy"
                " distance)",
                f"{len(admitted)} pairs; the farthest is {worst.model} by {worst.sampler}: {worst.distance.number:.4f}"
                f" +- {1.96 * worst.distance.std_error:.4f}",
                worst.distance.number + 1.96 * worst.distance.std_error < BOUND,
            ),
        ),
        tables=(
            Table(
                ("sampler", *models),
                rows,
                "Squared energy distance to the mixture in thousandths, and half of its 95 % interval; unbiased, so"
                f" that noise may make it negative. {samples} samples (adaptive-sde a fifth of them). A dash: not"
                " admissible, see below.",
            ),
            Table(
                ("objective, form", "sampler", "why not"),
                tuple((c.model, c.sampler, c.reason) for c in refused),
                f"{len(refused)} pairs are not admissible.",
            ),
        ),
        drawings=(
            Drawing(
                "matrix",
                "Squared energy distance to the truth, in thousandths",
                "Darker is farther. Left the exact score: what the sampler alone does.",
                lambda theme: _heat(theme, known, models),
            ),
        ),
        settings={
            "process": PROCESS,
            "network": f"residual perceptron, width {WIDTH}, depth 2",
            "training": f"{steps} steps of {BATCH} fresh samples, Adam at 3e-3 with a cosine",
            "seed": job.seed,
        },
    )


def _shown(found: Jackknifed | None) -> str:
    return "-" if found is None else f"{1e3 * found.number:.1f} ± {1.96e3 * found.std_error:.1f}"


def _heat(theme: Theme, known: Mapping[tuple[str, str], Cell], models: list[str]) -> Figure:
    """Numbers on colours."""
    names = list(SAMPLERS)
    figure, (ax,) = grid_of_axes(theme, 1, 1, (0.56 * len(models), 0.25 * len(names)), beside=1.7, below=0.95)
    for k, name in enumerate(names):
        for j, model in enumerate(models):
            distance = known[model, name].distance
            if distance is not None:
                share = min(1.0, max(0.0, distance.number / BOUND))
                ax.barh(k, 0.94, left=j - 0.47, height=0.9, color=theme.series[0], alpha=0.05 + 0.75 * share)
            text = "-" if distance is None else f"{1e3 * distance.number:.1f}"
            ax.text(j, k, text, ha="center", va="center", fontsize=7.5, color=theme.ink)
    ax.set_xlim(-0.5, len(models) - 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xticks(range(len(models)), models, rotation=35, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.grid(visible=False)
    return figure


ENTRIES = (
    Entry(
        name="objective-sampler-matrix",
        paper="All",
        item="no figure of theirs",
        title="Every objective with every sampler",
        shows="All of the papers' objectives have the score as their minimum, and all of their samplers follow a score:"
        " any of the one should work with any of the other that admits it.",
        minutes=7.0,
        memory=0.7,
        run=matrix,
    ),
)
