"""What the tests of inference share: processes, noises with given numbers, exact flows of Gaussian data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield.likelihood.probability_flow import FlowSettings
from scorefield.process import VE, VP, Process, SubVP
from scorefield.score import NetworkScore, NoiseForm, ScaledTime
from scorefield.score.oracles import Gaussian, Oracle

PROCESSES: dict[str, Process] = {"VE": VE(0.05, 20.0), "VP": VP(), "SubVP": SubVP()}
TIGHT = FlowSettings(rtol=1e-6, atol=1e-6)
EXACT = FlowSettings(divergence="exact")


class NoNoise:
    """Fails where noise is asked for."""

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        raise AssertionError("no normal noise was expected")

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        raise AssertionError("no uniform noise was expected")


class GivenNoise(NoNoise):
    """Draw k of normal noise is normals[k], every uniform number is `level`; remembers who asked."""

    def __init__(self, normals: Tensor | None = None, level: float | Tensor = 0.5):
        self.normals, self.level = normals, level
        self.asked: list[tuple[int, int]] = []

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        assert self.normals is not None
        self.asked.append((step, draw))
        return self.normals[draw].expand(like.shape).to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        self.asked.append((step, draw))
        return torch.as_tensor(self.level).to(like).expand(like.shape)


def at(value: float) -> Tensor:
    """One time."""
    return torch.tensor([value], dtype=torch.float64)


def gaussian_flow(oracle: Gaussian, x: Tensor, start: float, end: float) -> Tensor:
    """Where the exact flow carries x: each mode's deviation from its mean is scaled as the standard deviation is."""
    process = oracle.process
    ends = [(float(process.alpha(at(t))), float(process.sigma(at(t)))) for t in (start, end)]
    m, covariance = oracle.data_moments()
    variances, basis = torch.linalg.eigh(covariance)
    (a, r), (b, q) = ends
    scale = ((b**2 * variances + q**2) / (a**2 * variances + r**2)).sqrt()
    modes = (x - a * m).flatten(1) @ basis
    return b * m + ((scale * modes) @ basis.T).reshape(x.shape)


def nats_with_this_prior(oracle: Oracle, x: Tensor, latent: Tensor, start: float) -> Tensor:
    """log p_s(x) with the prior in the place of p_1, along a flow that ends at `latent`."""
    return oracle.log_prob(x, start) + oracle.process.prior_log_prob(latent) - oracle.log_prob(latent, 1.0)


class Small(nn.Module):
    """A little network: a rotation and a bend of x, a condition that shifts it; remembers the types it was handed."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.tensor([[0.9, 0.3], [-0.2, 0.7]]))
        self.seen: set[tuple[torch.dtype, torch.dtype]] = set()

    def forward(self, x: Tensor, c: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        self.seen.add((x.dtype, c.dtype))
        shift = 0.0 if condition is None else 0.5 * condition["side"].to(x)[:, None]
        return (x @ self.turn.T + shift).tanh() + 0.3 * x * (0.001 * c)[:, None]


def small_score(process: Process) -> NetworkScore:
    """It as a score."""
    return NetworkScore(Small(), process, NoiseForm(), ScaledTime())
