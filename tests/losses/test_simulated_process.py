"""A process without a transition kernel, from data to samples: simulated, trained by sliced score matching, reversed.

dx = [D'(x) / 2 - x D(x) / 2] dt + sqrt(D(x)) dw with D(x) = b (1 + sin(x) / 2) has multiplicative noise, a drift that
is not affine, and N(0, 1) as stationary distribution, so that the prior at t = 1 is known although no kernel is.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from scorefield._typing import Condition
from scorefield.losses import Custom, SlicedScoreMatching
from scorefield.process import GeneralSDE, TimeLimits
from scorefield.process.grids import Quadratic
from scorefield.sampling import EulerMaruyama, Sampler
from scorefield.score import Score
from tolerance import SIGNIFICANCE

F64 = torch.float64
SPEED = 6.0


def drift(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * SPEED * (0.5 * x.cos() - x * (1.0 + 0.5 * x.sin()))


def diffusion(x: Tensor, t: Tensor) -> Tensor:
    return (SPEED * (1.0 + 0.5 * x.sin())).sqrt()


def elapsed(process, t: Tensor) -> Tensor:
    """lambda = t: the variance that has come in, up to a factor."""
    return t


PROCESS = GeneralSDE(drift, diffusion, "diagonal", t_min=TimeLimits(1e-3, 1e-3, 1e-3))


def data(count: int, seed: int) -> Tensor:
    """Seven tenths around -1.3 and the rest around 0.9, as (count, 1)."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(count, 1, generator=generator, dtype=F64) < 0.7
    z = torch.randn(count, 1, generator=generator, dtype=F64)
    return torch.where(first, -1.3 + 0.3 * z, 0.9 + 0.4 * z)


class Features(Score):
    """score = -x + sum_k theta_k phi_k(x, t): bumps in x times hats in log t, linear in theta."""

    centres = torch.linspace(-3.0, 3.0, 16, dtype=F64)
    knots = torch.linspace(-6.91, 0.0, 9, dtype=F64)
    size = 16 * 9

    def __init__(self, theta: Tensor, process: GeneralSDE = PROCESS):
        self.process, self.theta = process, theta  # type: ignore[assignment]

    def features(self, x: Tensor, t: Tensor) -> Tensor:
        bumps = torch.exp(-0.5 * ((x - self.centres) / 0.4) ** 2)
        gap = self.knots[1] - self.knots[0]
        hats = (1.0 - (t.log()[:, None] - self.knots).abs() / gap).clamp_min(0.0)
        return (bumps[:, :, None] * hats[:, None, :]).flatten(1)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        return -x + self.features(x, t.to(x)) @ self.theta[:, None]


def fitted(examples: int, simulation: int) -> Tensor:
    """The coefficients that minimise the loss over so many draws: it is quadratic, so one Newton step from 0.

    The gradient is that of the objective. The curvature, 2 E lambda phi phi', comes from the features, with a ridge.
    """
    objective = SlicedScoreMatching(Custom(elapsed), directions="rademacher", stratified=True, simulation=simulation)
    x0 = data(examples, 0)
    draw = objective.draw(PROCESS, x0, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    draw = replace(draw, t=torch.exp(Features.knots[0] * (1.0 - draw.t)).clamp(1e-3, 1.0))  # more of small times
    theta = torch.zeros(Features.size, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective(Features(theta), x0, draw).mean(), theta)
    x = PROCESS.simulate_to(x0, draw.t, draw.z)
    phi = Features(theta).features(x, draw.t)
    curvature = 2.0 * (phi * draw.t[:, None]).T @ phi / len(x)
    ridge = 1e-6 * torch.eye(Features.size, dtype=F64)
    return -torch.linalg.solve(curvature + ridge, slope)


def p_value(score: Score, count: int, steps: int) -> float:
    """Kolmogorov-Smirnov: samples of the reverse SDE against data that the fit has not seen."""
    sampler = Sampler(EulerMaruyama(), Quadratic(steps), final="none")
    x = sampler.run(score, (1,), indices=range(count), seed=3, dtype=F64).x[:, 0]
    return float(stats.ks_2samp(x.numpy(), data(20_000, 5)[:, 0].numpy())[1])  # type: ignore[index]


@pytest.mark.parametrize(
    ("examples", "simulation", "count", "steps"),
    [(10_000, 24, 400, 60), pytest.param(60_000, 64, 2000, 200, marks=pytest.mark.slow)],
)
def test_learned_without_a_kernel_and_sampled_backwards(examples: int, simulation: int, count: int, steps: int) -> None:
    """Samples have the distribution of the data; a learned score with the other sign, half of the learned score, and a
    reverse drift without div(G G') are rejected."""
    theta = fitted(examples, simulation)
    assert p_value(Features(theta), count, steps) > SIGNIFICANCE
    without_divergence = replace(PROCESS, state_dependent=False)
    for wrong in (Features(-theta), Features(0.5 * theta), Features(theta, without_divergence)):
        assert p_value(wrong, count, steps) < SIGNIFICANCE
