"""Shared by the tests of likelihood: processes, given noise, and exact flows of Gaussian data."""

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
    """Noise that fails when it is drawn, for computations that must not draw any."""

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        raise AssertionError("no normal noise was expected")

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        raise AssertionError("no uniform noise was expected")


class GivenNoise(NoNoise):
    """Noise whose k-th normal draw is normals[k] and whose uniform draws equal `level`; it records the calls."""

    def __init__(self, normals: Tensor | None = None, level: float | Tensor = 0.5):
        self.normals, self.level = normals, level
        self.calls: list[tuple[int, int]] = []

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        assert self.normals is not None
        self.calls.append((step, draw))
        return self.normals[draw].expand(like.shape).to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        self.calls.append((step, draw))
        return torch.as_tensor(self.level).to(like).expand(like.shape)


def at(value: float) -> Tensor:
    """A single time as a tensor of shape (1,)."""
    return torch.tensor([value], dtype=torch.float64)


def gaussian_flow(oracle: Gaussian, x: Tensor, start: float, end: float) -> Tensor:
    """The image of x under the exact flow, which scales the deviation from the mean in each eigendirection."""
    process = oracle.process
    ends = [(float(process.alpha(at(t))), float(process.sigma(at(t)))) for t in (start, end)]
    m, covariance = oracle.data_moments()
    variances, basis = torch.linalg.eigh(covariance)
    (a, r), (b, q) = ends
    scale = ((b**2 * variances + q**2) / (a**2 * variances + r**2)).sqrt()
    modes = (x - a * m).flatten(1) @ basis
    return b * m + ((scale * modes) @ basis.T).reshape(x.shape)


def nats_with_this_prior(oracle: Oracle, x: Tensor, latent: Tensor, start: float) -> Tensor:
    """log p_s(x) with the prior instead of p_1, along a flow that ends at `latent`."""
    return oracle.log_prob(x, start) + oracle.process.prior_log_prob(latent) - oracle.log_prob(latent, 1.0)


class Small(nn.Module):
    """A small network that rotates and bends x and is shifted by a condition; it records the dtypes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.tensor([[0.9, 0.3], [-0.2, 0.7]]))
        self.seen: set[tuple[torch.dtype, torch.dtype]] = set()

    def forward(self, x: Tensor, c: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        self.seen.add((x.dtype, c.dtype))
        shift = 0.0 if condition is None else 0.5 * condition["side"].to(x)[:, None]
        return (x @ self.turn.T + shift).tanh() + 0.3 * x * (0.001 * c)[:, None]


def small_score(process: Process) -> NetworkScore:
    """The network as a score."""
    return NetworkScore(Small(), process, NoiseForm(), ScaledTime())
