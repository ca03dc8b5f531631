"""What the tests of step-based posterior samplers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sampling.doubles import Generated
from scorefield._random import IndexedNoise
from scorefield.inverse import Channels, GaussianNoise, Mask, Observation, Operator
from scorefield.inverse.solvers.solver import OBSERVED, Solver, Unobserving
from scorefield.inverse.solvers.spectral import grid_alone
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from scorefield.sampling import Sampler, drive
from scorefield.score import FunctionScore, Score
from scorefield.score.oracles import Gaussian

F64 = torch.float64
EVENT = (3, 2, 2)
MASK = Mask(torch.tensor([[1, 0], [0, 1]]), EVENT)
GREY = Channels(torch.tensor([[1.0, 1.0, 1.0]]) / math.sqrt(3.0), EVENT)
OPERATORS: dict[str, Operator] = {"mask": MASK, "grey": GREY}
FAMILIES: dict[str, tuple[Process, str, int | None]] = {
    "VE pc": (VE(0.01, 10.0), "pc", 20),
    "VE em": (VE(0.01, 10.0), "em", 20),
    "VP ancestral": (VP(), "ancestral", 20),
    "SubVP em": (SubVP(), "em", 20),
    "SubVP ddim": (SubVP(), "ddim", 20),
    "NCSN ald": (Tabulated(GeometricSigmas(0.05, 5.0, 6), between="floor"), "ald", None),
    "VE ald": (VE(0.01, 10.0), "ald", 10),
    "NCSN cas": (Tabulated(GeometricSigmas(0.05, 5.0, 20)), "cas", None),
    "DDPM pc": (Tabulated(LinearBetas(levels=30)), "pc", None),
}
GRIDS: dict[str, tuple[Process, Sampler]] = {
    family: (process, grid_alone(process, 8)) for family, (process, _, _) in FAMILIES.items() if "em" not in family
}
"""For solvers that are steps themselves: the process and a grid."""


def independent(process: Process) -> Gaussian:
    """A prior of independent entries, off-centre."""
    k = torch.arange(math.prod(EVENT), dtype=F64).reshape(EVENT)
    return Gaussian(process, 0.3 * torch.sin(k), 0.2 + 0.1 * k)


def image(seed: int = 0, batch: int = 1) -> Tensor:
    return torch.randn(batch, *EVENT, generator=torch.Generator().manual_seed(seed), dtype=F64)


def seen(operator: Operator, x: Tensor, std: float = 0.0) -> Observation:
    """The measurement of one example, or of each of a batch."""
    y = operator(x)
    return Observation(operator, y[0] if len(x) == 1 else y, GaussianNoise(std))


def fast(solver: Solver, score: Score, observation: Observation, sampler: Sampler | None, n: int, seed: int = 0) -> Any:
    """`Solver.run` in float64 with noise from one generator."""
    sampler = solver.default_sampler(score) if sampler is None else sampler
    guided, observed = solver.prepare(Unobserving(score), sampler, observation)
    event = observation.operator.event
    y = observation.y(torch.empty(n, *event, dtype=F64))
    run = observed.run(guided, event, indices=range(n), condition={OBSERVED: y}, noise=Generated(seed), dtype=F64)
    return replace(run, x=solver.finish(run.x, observation))


def states(solver: Solver, score: Score, observation: Observation, sampler: Sampler, x: Tensor, y: Tensor) -> Tensor:
    """The end of the loop alone, differentiable in y and x."""
    guided, observed = solver.prepare(Unobserving(score), sampler, observation)
    times = observed.times(score.process)
    bound = guided.bind({OBSERVED: y})
    return drive(bound, score.process, observed.step, times, x, IndexedNoise(0, range(len(x)))).x


class Recorded(FunctionScore):
    """A score that remembers where it was asked, and when."""

    def __init__(self, score: Score):
        super().__init__(lambda x, t: score(x, t), score.process)
        self.inside, self.asked = score, []

    def __call__(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        self.asked.append((float(t[0]), x.clone()))
        return self.inside(x, t)

    def denoised(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        self.asked.append((float(t[0]), x.clone()))
        return self.inside.denoised(x, t)


def p_of_variance(deviations: Sequence[Tensor] | Tensor, variance: float) -> float:
    """Two-sided p-value of deviations of mean 0 having that variance, by the normal approximation to chi^2."""
    d = torch.as_tensor(deviations).double().flatten()
    z = (float((d**2).sum()) / variance - d.numel()) / math.sqrt(2.0 * d.numel())
    return math.erfc(abs(z) / math.sqrt(2.0))
