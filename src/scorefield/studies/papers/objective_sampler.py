"""Every objective combined with every sampler that admits its models, on a mixture in the plane of known density.

Each objective trains a score network and an energy. Each model, and the exact score, is sampled by every sampler that
accepts it: for example, Metropolis-adjusted samplers need a density and refuse score networks. The samples are compared
with exact ones by the squared energy distance.
"""

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
from scorefield.studies.papers.entry import BatchNoise, Claim, Drawing, Entry, Findings, Job, Table

PROCESS = VE(0.05, 8.0)
SPREAD = 1.3
"""Approximate standard deviation of the mixture."""
STEPS, BATCH, WIDTH = 1000, 256, 96
"""Optimiser steps, batch size, and width of the networks."""
SAMPLES, TRUTH = 1000, 3000
"""Samples drawn from a model, and exact samples with which they are compared."""
BOUND = 0.05
"""Squared energy distance to the exact samples below which every pair is claimed to stay."""

Kind = Literal["score", "energy"]
OBJECTIVES: Mapping[str, Objective] = {
    "DSM": DenoisingScoreMatching(stratified=True),
    "ISM": ImplicitScoreMatching(stratified=True),
    "SSM": SlicedScoreMatching(stratified=True, variance_reduced=False),
    "SSM-VR": SlicedScoreMatching(stratified=True),
    "FD-SSM": FiniteDifferenceScoreMatching(stratified=True, variance_reduced=False),
}


def _temperature() -> Sampler:
    """Return temperature-annealed Langevin dynamics from the prior's noise to the data, with sigma_0 = 2 sigma_min."""
    sigma_0 = 2.0 * PROCESS.sigma_min
    schedule = TemperatureSchedule(high=(PROCESS.sigma_max / sigma_0) ** 2, burn_in=20, anneal=960, quench=20)
    walk = TemperatureLangevin(schedule, 0.5 * sigma_0, sigma_0)
    return Sampler(walk, Uniform(schedule.steps), start=NormalStart(0.0, PROCESS.sigma_max))


def _corrected(step: HMC) -> Sampler:
    return Sampler(Chain((step, ReverseDiffusion())), Uniform(100))


_STEPS_BY_NAME = {
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
    **{name: lambda name=name: named(name, PROCESS, _STEPS_BY_NAME.get(name, 40)) for name in NAMED},
    "adaptive-sde": lambda: Sampler(AdaptiveSDE(), Uniform(1)),
    "annealed temperature": _temperature,
    "pc, MALA": lambda: _corrected(MALA(NoiseScaled(0.3))),
    "pc, HMC": lambda: _corrected(HMC(NoiseScaled(0.3), leapfrog=3)),
    "pc, MALA by scores": lambda: _corrected(MALA(NoiseScaled(0.3), acceptance="line integral")),
}
"""Name -> function that builds the sampler, with enough steps that its own error is below that of trained scores."""

FEWER = {"adaptive-sde": 5}
"""Factor by which the number of samples is reduced for samplers that integrate each example separately."""


# ------------------------------------------------------------------------------------------------ models


class PlaneEnergy(nn.Module):
    """E(x, t) = |x|^2 / (2 (sigma^2 + s^2)) - (s / sigma) <y, F(y, ln sigma)>, y = x / sqrt(sigma^2 + s^2).

    At F = 0 it is the energy of a Gaussian with the data's standard deviation s = `SPREAD`. The factor s / sigma gives
    the gradient of the second term the scale that a `KarrasForm` gives to a score network.

    Args:
        network: Network F of (y, ln sigma), (B, 2) -> (B, 2).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """Return the energy of x, (B, 2), at times t, (B,), as (B,)."""
        sigma = PROCESS.sigma(t).to(x)
        total = sigma**2 + SPREAD**2
        y = x / over_event(total.sqrt(), x)
        inner = (y * self.network(y, sigma.log(), condition)).sum(dim=1)
        return 0.5 * (x * x).sum(dim=1) / total - (SPREAD / sigma) * inner


def untrained(kind: Kind, seed: int) -> tuple[Score, nn.Module]:
    """Return an untrained score, by a score network or as the gradient of an energy, and its module."""
    torch.manual_seed(seed)
    network = MLP(width=WIDTH, depth=2, embedding_size=16).build(DataSpec((2,)))
    if kind == "score":
        return NetworkScore(network, PROCESS, KarrasForm(SPREAD), LogSigma()), network
    energy = PlaneEnergy(network)
    return EnergyScore(energy, PROCESS), energy


def train(kind: Kind, objective: Objective, steps: int, seed: int) -> Score:
    """Train a score with Adam and cosine decay on samples of the mixture.

    Args:
        kind: Whether the model is a score network or an energy.
        objective: Training objective.
        steps: Optimiser steps.
        seed: Seed of the weights, the data and the training.
    """
    score, network = untrained(kind, seed)
    truth = skewed_mixture(PROCESS)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    pool = truth.sample(40 * BATCH, noise=BatchNoise(seed + 7), dtype=torch.float32)
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
    """One model sampled by one sampler.

    Args:
        model: Objective and kind of the model, for example "DSM, score".
        sampler: Name of the sampler.
        distance: Squared energy distance to exact samples; None where the sampler does not admit the model.
        reason: Why the sampler does not admit the model.
        calls: Mean number of network evaluations per sample.
    """

    model: str
    sampler: str
    distance: Jackknifed | None
    reason: str | None = None
    calls: float = 0.0


class ReferenceSamples:
    """Exact samples of the mixture, with which samples of models are compared.

    Args:
        count: Number of samples.
        seed: Seed of the samples.
    """

    def __init__(self, count: int, seed: int):
        self.x = skewed_mixture(PROCESS).sample(count, noise=BatchNoise(seed + 1))
        self._inside = distance_sums(self.x, self.x)

    def distance(self, x: Tensor) -> Jackknifed:
        """Return the unbiased squared energy distance of samples, (N, 2), to the exact ones."""
        return energy_distance(x, self.x, self._inside)


def cell(model: str, score: Score, name: str, truth: ReferenceSamples, samples: int, seed: int) -> Cell:
    """Sample a model and measure the samples; a sampler that does not admit the model gives the reason.

    Args:
        model: Name of the model.
        score: Its score.
        name: Name of the sampler.
        truth: Exact samples.
        samples: Number of samples.
        seed: Seed of the noise.
    """
    try:
        count = max(20, samples // FEWER.get(name, 1))
        run = SAMPLERS[name]().run(score, (2,), indices=range(count), seed=seed, noise=_noise(name, seed))
    except (TypeError, ValueError) as error:
        return Cell(model, name, None, str(error))
    return Cell(model, name, truth.distance(run.x), calls=float(run.calls.double().mean()))


def _noise(name: str, seed: int) -> BatchNoise | None:
    """Return noise from one generator for the batch; adaptive solvers need one generator per example, the default."""
    return None if name == "adaptive-sde" else BatchNoise(seed)


def matrix(job: Job) -> Findings:
    """Train by every objective and sample every model, and the exact score, by every sampler."""
    steps, samples = job.scaled(STEPS, 20), job.scaled(SAMPLES, 50)
    truth = ReferenceSamples(job.scaled(TRUTH, 100), job.seed)
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
    by_pair = {(c.model, c.sampler): c for c in cells}
    rows = tuple((name, *(_thousandths(by_pair[model, name].distance) for model in models)) for name in SAMPLERS)
    return Findings(
        claims=(
            Claim(
                "Every objective works with every sampler that admits its models (here: the squared energy distance to"
                f" exact samples is below {BOUND})",
                f"{len(admitted)} pairs; the largest distance is that of {worst.model} by {worst.sampler},"
                f" {worst.distance.number:.4f} +- {1.96 * worst.distance.std_error:.4f}",
                worst.distance.number + 1.96 * worst.distance.std_error < BOUND,
            ),
        ),
        tables=(
            Table(
                ("sampler", *models),
                rows,
                f"Squared energy distance of {samples} samples (adaptive-sde: a fifth of them) to exact samples of the"
                " mixture, in thousandths, with half of its 95 % interval. The estimate is unbiased, so that it can be"
                " negative. A dash marks a pair that is not admissible; the next table gives the reason.",
            ),
            Table(
                ("objective, kind of model", "sampler", "reason"),
                tuple((c.model, c.sampler, c.reason) for c in refused),
                f"{len(refused)} pairs are not admissible.",
            ),
        ),
        drawings=(
            Drawing(
                "matrix",
                "Squared energy distance to exact samples, in thousandths",
                "Darker cells have larger distances. The first column has the exact score, so that its distances are"
                " the errors of the samplers alone.",
                lambda theme: _heat_map(theme, by_pair, models),
            ),
        ),
        settings={
            "process": PROCESS,
            "network": f"residual perceptron, width {WIDTH}, depth 2",
            "training": f"{steps} steps of {BATCH} examples, Adam at 3e-3 with cosine decay",
            "seed": job.seed,
        },
    )


def _thousandths(distance: Jackknifed | None) -> str:
    """Return a distance with half of its interval in thousandths."""
    return "-" if distance is None else f"{1e3 * distance.number:.1f} ± {1.96e3 * distance.std_error:.1f}"


def _heat_map(theme: Theme, by_pair: Mapping[tuple[str, str], Cell], models: list[str]) -> Figure:
    """Draw the distances as numbers on shaded cells, a row for each sampler."""
    names = list(SAMPLERS)
    figure, (ax,) = grid_of_axes(theme, 1, 1, (0.56 * len(models), 0.25 * len(names)), beside=1.7, below=0.95)
    for k, name in enumerate(names):
        for j, model in enumerate(models):
            distance = by_pair[model, name].distance
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
        item="no figure of the papers",
        title="Every objective with every sampler",
        shows="All of the papers' objectives have the score as their minimum, and all of their samplers use a score:"
        " models trained by any objective should work with any sampler that admits them.",
        minutes=7.0,
        memory=0.7,
        run=matrix,
    ),
)
