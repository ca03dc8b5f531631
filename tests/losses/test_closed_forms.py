"""Denoising score matching in closed form: its value, its expectation and its minimum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from losses.cases import CONTINUOUS, PROCESSES, normal_quadrature, some_times
from scorefield._math import over_event
from scorefield._typing import Condition
from scorefield.losses import DenoisingScoreMatching, Draw, Likelihood, NoiseVariance
from scorefield.process import Process
from scorefield.score import Score, oracles
from tolerance import FLOAT32, FLOAT64, LOSS_CLOSED_FORM, QUADRATURE

MEAN = torch.tensor([0.7, -0.4, 2.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.25, 1.0, 0.04], dtype=torch.float64)


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def gaussian_case(process: Process) -> tuple[oracles.Gaussian, Tensor, Draw, Tensor, Tensor]:
    """An oracle, data m + sqrt(S) w, a draw, w, and the scales of each entry."""
    t = some_times(process).repeat_interleave(4)
    w, z = normals(2, len(t), 3)
    return oracles.Gaussian(process, MEAN, VARIANCE), MEAN + VARIANCE.sqrt() * w, Draw(t, z), w, t


@pytest.mark.parametrize("reduce", ["mean", "half_sum"])
@pytest.mark.parametrize("name", PROCESSES)
def test_value_at_the_exact_score(name: str, reduce: str) -> None:
    """Data m + sqrt(S) w: sigma s + z = alpha sqrt(S) (alpha sqrt(S) z - sigma w) / v with v = alpha^2 S + sigma^2."""
    process = PROCESSES[name]
    oracle, x0, draw, w, t = gaussian_case(process)
    spread, sigma = process.alpha(t)[:, None] * VARIANCE.sqrt(), process.sigma(t)[:, None]
    residual = spread * (spread * draw.z - sigma * w) / (spread**2 + sigma**2)
    expected = residual.square().mean(1) if reduce == "mean" else 0.5 * residual.square().sum(1)
    loss = DenoisingScoreMatching(reduce=reduce)(oracle, x0, draw)  # type: ignore[arg-type]
    assert loss.shape == t.shape
    torch.testing.assert_close(loss, expected, rtol=LOSS_CLOSED_FORM, atol=LOSS_CLOSED_FORM)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_likelihood_weighting_multiplies_by_the_rate_over_the_variance(name: str) -> None:
    process = PROCESSES[name]
    oracle, x0, draw, _, t = gaussian_case(process)
    plain = DenoisingScoreMatching()(oracle, x0, draw)
    loss = DenoisingScoreMatching(Likelihood())(oracle, x0, draw)
    torch.testing.assert_close(loss, plain * process.diffusion(t) ** 2 / process.sigma(t) ** 2, rtol=FLOAT64, atol=0.0)


def expected_loss(objective: DenoisingScoreMatching, score: Score, t: float, points: Tensor, weights: Tensor) -> Tensor:
    """E over data (points with weights, (K,)) and noise of the loss at one time, by quadrature over the noise."""
    z, w = normal_quadrature(100)
    x0, noise = points.repeat_interleave(len(z))[:, None], z.repeat(len(points))[:, None]
    times = torch.full((len(x0),), t, dtype=torch.float64)
    losses = objective(score, x0, Draw(times, noise))
    return torch.outer(weights, w).reshape(-1) @ losses


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("t", [1e-3, 0.2, 0.7])
def test_least_expectation_on_gaussian_data(name: str, t: float) -> None:
    """The minimum per dimension is alpha^2 S / (alpha^2 S + sigma^2), the variance of the noise given x_t."""
    process, variance = PROCESSES[name], 0.25
    oracle = oracles.Gaussian(process, torch.tensor([0.7]), variance)
    z, w = normal_quadrature(8)
    least = expected_loss(DenoisingScoreMatching(), oracle, t, 0.7 + variance**0.5 * z, w)
    at = torch.tensor([t], dtype=torch.float64)
    spread, noise = float(process.alpha(at)) ** 2 * variance, float(process.sigma(at)) ** 2
    torch.testing.assert_close(float(least), spread / (spread + noise), rtol=LOSS_CLOSED_FORM, atol=0.0)


class Line(Score):
    """score = (a x + b) / sigma with one a and b, for one time."""

    def __init__(self, process: Process, coefficients: Tensor):
        self.process, self.coefficients = process, coefficients

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        a, b = self.coefficients
        return (a * x + b) / over_event(self.process.sigma(t), x)


@pytest.mark.parametrize("weighting", [NoiseVariance(), Likelihood()])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_least_of_all_lines_is_the_score_of_gaussian_data(name: str, weighting) -> None:
    """The loss is quadratic in (a, b), so one Newton step from anywhere is at the minimum: -(x - alpha m) / v."""
    process, mean, variance, t = PROCESSES[name], 0.7, 0.25, 0.3
    z, w = normal_quadrature(8)
    points = mean + variance**0.5 * z

    def loss(coefficients: Tensor) -> Tensor:
        return expected_loss(DenoisingScoreMatching(weighting), Line(process, coefficients), t, points, w)

    start = torch.tensor([0.2, -0.5], dtype=torch.float64)
    gradient = torch.func.grad(loss)(start)
    found = start - torch.linalg.solve(torch.autograd.functional.hessian(loss, start), gradient)
    at = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = float(process.alpha(at)), float(process.sigma(at))
    v = alpha**2 * variance + sigma**2
    expected = torch.tensor([-sigma / v, alpha * mean * sigma / v], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=QUADRATURE, atol=0.0)


class Bent(Score):
    """An exact score with something added: s + c_1 sin x + c_2 tanh(x / 2) + c_3 exp(-x^2)."""

    def __init__(self, exact: Score, coefficients: Tensor):
        self.process, self.exact, self.coefficients = exact.process, exact, coefficients

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        a, b, c = self.coefficients
        return self.exact(x, t) + a * x.sin() + b * (0.5 * x).tanh() + c * (-x * x).exp()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_no_change_of_the_exact_score_of_points_lowers_the_loss(name: str) -> None:
    """The expected loss is stationary and convex at the exact score, and not stationary at that of other data."""
    process = PROCESSES[name]
    t = float(process.time_at_sigma(torch.tensor([0.6], dtype=torch.float64)))  # less noise would need more nodes
    points = torch.tensor([-1.0, 0.4, 1.1], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)

    def loss_around(exact: Score):
        return lambda c: expected_loss(DenoisingScoreMatching(), Bent(exact, c), t, points, weights)

    still = torch.zeros(3, dtype=torch.float64)
    loss = loss_around(oracles.Points(process, points[:, None], weights))
    slope = torch.func.grad(loss)(still)
    assert slope.abs().max() <= QUADRATURE
    assert torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, still)).min() > 0
    other = loss_around(oracles.Points(process, points[:, None], weights.flip(0)))
    assert torch.func.grad(other)(still).abs().max() > 1e6 * QUADRATURE


@pytest.mark.parametrize("name", CONTINUOUS)
def test_order_one_at_the_smallest_noise_in_float32(name: str) -> None:
    """At t_min, where sigma is 1e-6 (sub-VP) and scores of points are 1e6, the loss agrees with that in float64."""
    process = PROCESSES[name]
    oracle, x0, draw, _, _ = gaussian_case(process)
    draw = Draw(torch.full_like(draw.t, process.t_min.training), draw.z)
    for weighting in (NoiseVariance(), Likelihood()):
        exact = DenoisingScoreMatching(weighting)(oracle, x0, draw)
        loss = DenoisingScoreMatching(weighting)(oracle, x0.float(), Draw(draw.t, draw.z.float()))
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), exact, rtol=FLOAT32, atol=0.0)
