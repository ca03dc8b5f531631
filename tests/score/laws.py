"""Shared by the tests of scores: processes, times, noise drawn at once, Gaussian components of an oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from scorefield.process import VE, VP, GeometricSigmas, Levels, LinearBetas, Process, SubVP, Tabulated
from scorefield.score import oracles
from scorefield.score.oracles import Oracle

PROCESSES: dict[str, Process] = {
    "VE": VE(0.01, 5.0),
    "VP": VP(),
    "SubVP": SubVP(),
    "ladder": Tabulated(GeometricSigmas(0.01, 5.0, 12)),
    "betas": Tabulated(LinearBetas(levels=100)),
    "three-levels": Tabulated(Levels((0.1, 0.4, 2.0), (1.0, 0.9, 0.5)), between="floor"),
}


def concrete(cls: type) -> list[type]:
    """Every concrete subclass, found recursively."""
    found = [] if getattr(cls, "__abstractmethods__", None) else [cls]
    for child in cls.__subclasses__():
        found += [c for c in concrete(child) if c not in found]
    return found


ORACLES: dict[str, Callable[[Process], Oracle]] = {cls.__name__: make for cls, make in oracles.EXAMPLES.items()}


def times(process: Process, count: int) -> Tensor:
    """Times from the process's lowest to 1, levels of it where it is a ladder."""
    t = torch.linspace(0.0, 1.0, count, dtype=torch.float64) ** 1.5
    if isinstance(process, Tabulated):
        return process.time((t * (process.levels - 1)).round())
    return t.clamp_min(process.t_min.smallest)


def over(per_example: Tensor, x: Tensor) -> Tensor:
    return per_example.reshape(-1, *(1,) * (x.ndim - 1))


class BulkNoise:
    """All noise from one generator, times a factor: fast enough for statistics; a factor other than 1 is a mutant."""

    def __init__(self, seed: int, factor: float = 1.0):
        self.seed, self.factor = seed, factor

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        z = np.random.default_rng([self.seed, draw]).standard_normal(tuple(like.shape))
        return self.factor * torch.from_numpy(z).to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng([self.seed, draw, 1]).random(tuple(like.shape))).to(like)


def components(oracle: Oracle) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K,), means (K, D) and covariances (K, D, D) of x_0 as a mixture of Gaussians."""
    if isinstance(oracle, oracles.Points):
        flat = oracle.points.flatten(1)
        return oracle.weights, flat, flat.new_zeros(len(flat), oracle.dimension, oracle.dimension)
    parts: Iterable[Oracle] = oracle.components if isinstance(oracle, oracles.Mixture) else (oracle,)
    moments = [part.data_moments() for part in parts]
    weights = oracle.weights if isinstance(oracle, oracles.Mixture) else torch.ones(1, dtype=torch.float64)
    return weights, torch.stack([m.reshape(-1) for m, _ in moments]), torch.stack([C for _, C in moments])


def naive_log_prob(oracle: Oracle, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """Log density at flat points (B, D) from torch's own multivariate normal, component by component."""
    weights, means, covariances = components(oracle)
    eye = torch.eye(oracle.dimension, dtype=torch.float64)
    terms = [
        w.log() + torch.distributions.MultivariateNormal(alpha * m, alpha**2 * C + sigma**2 * eye).log_prob(x)
        for w, m, C in zip(weights, means, covariances, strict=True)
    ]
    return torch.stack(terms).logsumexp(0)


def square(half_width: float, points: int) -> tuple[Tensor, float]:
    """A square grid in the plane, (points^2, 2), and the area of its cells."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float((axis[1] - axis[0]) ** 2)
