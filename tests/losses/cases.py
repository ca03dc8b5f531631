"""Shared by the tests of the losses: processes, Gauss-Hermite quadrature, small scores and named weightings."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from scorefield.score import Score

PROCESSES: dict[str, Process] = {
    "VE": VE(0.01, 5.0),
    "VP": VP(),
    "SubVP": SubVP(),
    "sigmas": Tabulated(GeometricSigmas(0.01, 5.0, 12)),
    "betas": Tabulated(LinearBetas(levels=100)),
}
CONTINUOUS = {name: PROCESSES[name] for name in ("VE", "VP", "SubVP")}


def some_times(process: Process) -> Tensor:
    """The lowest training time, some in the middle and 1; levels of a ladder."""
    if isinstance(process, Tabulated):
        n = process.levels - 1
        return process.time(torch.tensor([0, 1, n // 3, n - 1, n]))
    low = process.t_min.training
    return torch.tensor([low, 1e-3, 0.1, 0.6, 1.0], dtype=torch.float64)


def normal_quadrature(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes z and weights w of N(0, 1): sum w h(z) = E h(z), exactly for polynomials of degree below 2 * nodes."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(z), torch.from_numpy(w / math.sqrt(2.0 * math.pi))


def sigma_squared(process: Process, t: Tensor) -> Tensor:
    """lambda = sigma^2."""
    return process.sigma(t) ** 2


def rate(process: Process, t: Tensor) -> Tensor:
    """lambda = g^2."""
    return process.diffusion_squared(t)


class Zero(Score):
    """The score of an untrained network: zero."""

    def __init__(self, process: Process):
        self.process = process

    def __call__(self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        return torch.zeros_like(x)


class Recorded(nn.Module):
    """A network that is an elementwise function of x and c and records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.3))
        self.seen: list[tuple[Tensor, Tensor, Mapping[str, Tensor] | None]] = []

    def forward(self, x: Tensor, c: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        self.seen.append((x, c, condition))
        return self.slope * x + (0.01 * c).sin().reshape(-1, *(1,) * (x.ndim - 1))
