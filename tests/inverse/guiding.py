"""What the tests of guided solvers share: processes, priors, one linear observation of a small image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.inverse import GaussianNoise, Linear, LinearOperator, Matrix, Observation
from scorefield.process import VE, VP, LinearBetas, Process, SubVP, Tabulated
from scorefield.score.oracles import Gaussian, skewed_gaussian

F64 = torch.float64
EVENT = (2, 1, 3)
STD = 0.3
PROCESSES: dict[str, Process] = {
    "VE": VE(0.02, 20.0),
    "VP": VP(),
    "SubVP": SubVP(),
    "ladder": Tabulated(LinearBetas(levels=30)),
}
TIMES = (2.0 / 29.0, 12.0 / 29.0, 1.0)  # levels of the ladder


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


MATRIX = numbers(4, 6, seed=1)
TWICE = torch.cat([MATRIX[:2], MATRIX[:2], MATRIX[:1]])  # five measurements of rank two
Y = numbers(4, seed=2)


def observed(matrix: Tensor = MATRIX, y: Tensor = Y, std: float = STD) -> Observation:
    return Observation(Matrix(matrix, EVENT), y, GaussianNoise(std))


def in_two_axes() -> LinearOperator:
    """The same matrix, its measurements on a grid."""
    return Linear(lambda x: (x.flatten(1) @ MATRIX.to(x).T).reshape(-1, 2, 2), EVENT)


def times(t: float, batch: int) -> Tensor:
    return torch.full((batch,), t, dtype=F64)


def anisotropic(process: Process) -> Gaussian:
    return skewed_gaussian(process, EVENT)


def isotropic(process: Process, std: float) -> Gaussian:
    """Every entry of one deviation, off-centre."""
    return Gaussian(process, torch.linspace(-0.4, 0.9, math.prod(EVENT), dtype=F64).reshape(EVENT), std**2)
