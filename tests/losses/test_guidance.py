"""The objective of guidance networks in closed form: its minimum is the entropy of y given x_t."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from losses.cases import PROCESSES, Zero, normal_quadrature
from scorefield._codec import dumps, loads
from scorefield.losses import ConditionLikelihood, Draw, Objective
from scorefield.process import VE, Process, Tabulated
from scorefield.score import Category, NetworkGuide, Quantity, oracles
from scorefield.score.guidance_model import SPREAD
from tolerance import FLOAT64, PLANE_QUADRATURE, QUADRATURE

MEANS, DEVIATIONS, WEIGHTS, CLASSES = (-1.0, 0.3, 0.9), (0.5, 0.4, 0.7), (0.3, 0.5, 0.2), (0, 1, 0)


def middle(process: Process) -> float:
    """A time where sigma is about the size of the data, a level of a ladder: least noise needs too many nodes."""
    t = process.time_at_sigma(torch.tensor([0.6], dtype=torch.float64))
    if isinstance(process, Tabulated):
        t = process.time(process.position(t).round())
    return float(t)


class ExactClasses(nn.Module):
    """Logits of the exact posterior of the class, from x / alpha and ln(sigma / alpha), plus a disturbance."""

    def __init__(self, bend: Tensor):
        super().__init__()
        self.bend = nn.Parameter(bend)
        means, variances = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (MEANS, DEVIATIONS))
        self.process = VE(1e-6, 1e6)
        self.oracle = oracles.Mixture(self.process, torch.tensor(WEIGHTS), means, variances**2, CLASSES)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        exact = self.oracle.class_log_prob(x, self.process.time_at_sigma(c.exp()))
        a, b = self.bend
        return exact + torch.cat([a * x.sin() + b, 0 * x], 1)


def expected(process: Process, t: float, bend: Tensor) -> tuple[Tensor, NetworkGuide]:
    """E over x_0, class and noise of the loss at one time, by quadrature."""
    network = ExactClasses(bend)
    guide = NetworkGuide(network, process, Category("class", 2))
    z, w = normal_quadrature(60)
    x0 = torch.cat([m + s * z for m, s in zip(MEANS, DEVIATIONS, strict=True)]).repeat_interleave(60)[:, None]
    labels = torch.tensor(CLASSES).repeat_interleave(3600)
    draw = Draw(torch.full((len(x0),), t, dtype=torch.float64), z.repeat(180)[:, None])
    losses = ConditionLikelihood()(guide, x0, draw, {"class": labels})
    assert losses.shape == (len(x0),)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)[:, None] * torch.outer(w, w).reshape(-1)
    return weights.reshape(-1) @ losses, guide


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_posterior_of_the_class_minimises_the_loss(name: str) -> None:
    process = PROCESSES[name]
    t = middle(process)
    at = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = float(process.alpha(at)), float(process.sigma(at))
    # The entropy of the class given x_t, summed over a fine grid of x_t.
    x = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64)
    parts = torch.stack([
        w * torch.distributions.Normal(alpha * m, math.hypot(alpha * s, sigma)).log_prob(x).exp()
        for m, s, w in zip(MEANS, DEVIATIONS, WEIGHTS, strict=True)
    ])  # fmt: skip
    joint = torch.stack([parts[0] + parts[2], parts[1]])
    entropy = -(torch.xlogy(joint, joint) - torch.xlogy(joint, joint.sum(0))).sum() * (x[1] - x[0])
    loss, guide = expected(process, t, torch.zeros(2, dtype=torch.float64))
    assert float(loss.detach()) == pytest.approx(float(entropy), abs=PLANE_QUADRATURE)
    (slope,) = torch.autograd.grad(loss, guide.network.bend)  # type: ignore[arg-type]
    assert slope.abs().max() <= PLANE_QUADRATURE
    for bend in ([0.1, 0.0], [0.0, -0.1]):
        worse, _ = expected(process, t, torch.tensor(bend, dtype=torch.float64))
        assert float(worse.detach()) > float(entropy) + 1e4 * PLANE_QUADRATURE


class ExactNumber(nn.Module):
    """Mean and deviation of y = b x_0 + e given x / alpha = x_0 + r z, all normal."""

    mean, variance, slope, noise = 0.7, 0.25, -1.5, 0.04

    def __init__(self, wider: float = 1.0):
        super().__init__()
        self.wider = wider

    def of(self, r: Tensor) -> tuple[Tensor, Tensor]:
        gain = self.variance / (self.variance + r**2)
        return gain, (self.slope**2 * gain * r**2 + self.noise).sqrt()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gain, deviation = self.of(c.exp())
        m = self.slope * (self.mean + gain * (x[:, 0] - self.mean))
        return torch.stack([m, SPREAD * ((self.wider * deviation).log() / SPREAD).atanh()], 1)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_distribution_of_a_number_minimises_the_loss(name: str) -> None:
    """The minimum is ln(2 pi e v) / 2, v the variance of y given x_t; a deviation k times too wide adds to it."""
    process = PROCESSES[name]
    t = middle(process)
    z, w = normal_quadrature(8)
    u, x, e = (grid.reshape(-1) for grid in torch.meshgrid(z, z, z, indexing="ij"))
    weights = torch.einsum("i,j,k->ijk", w, w, w).reshape(-1)
    exact = ExactNumber()
    x0 = exact.mean + exact.variance**0.5 * u[:, None]
    y = exact.slope * x0 + exact.noise**0.5 * e[:, None]
    draw = Draw(torch.full((len(x0),), t, dtype=torch.float64), x[:, None])
    at = torch.tensor([t], dtype=torch.float64)
    least = float(exact.of(process.sigma(at) / process.alpha(at))[1].log()) + 0.5 * math.log(2 * math.pi * math.e)
    for k in (1.0, 1.2):
        guide = NetworkGuide(ExactNumber(k), process, Quantity("y", (0.0,), (1.0,)))
        loss = weights @ ConditionLikelihood()(guide, x0, draw, {"y": y})
        assert float(loss) == pytest.approx(least + math.log(k) + 0.5 * (k**-2 - 1.0), abs=QUADRATURE)
    scaled = NetworkGuide(ExactNumber(), process, Quantity("y", (0.0,), (1.0,)))
    units = Quantity("y", (3.0,), (7.0,))  # the same law in other units of y is a density per that unit
    moved = NetworkGuide(scaled.network, process, units)
    a, b = (ConditionLikelihood()(g, x0, draw, {"y": v}) for g, v in ((scaled, y), (moved, 3.0 + 7.0 * y)))
    assert (b - a - math.log(7.0)).abs().max() <= FLOAT64 * 100


@pytest.mark.parametrize("name", PROCESSES)
def test_times_are_those_of_training(name: str) -> None:
    """Uniform over [t_min, 1] or the levels; stratified, so the mean of 4000 misses 1/2 by no more than a stratum."""
    process, like = PROCESSES[name], torch.zeros(4000, 1)
    draw = ConditionLikelihood().draw(process, like, torch.Generator().manual_seed(0))
    assert draw.z.shape == like.shape and float(draw.t.min()) >= process.t_min.training
    assert float(draw.t.mean()) == pytest.approx(0.5, abs=1e-3)
    if isinstance(process, Tabulated):
        assert set(process.level(draw.t).tolist()) == set(range(process.levels))
        assert (process.position(draw.t) - process.level(draw.t)).abs().max() == 0


def test_an_unknown_answer_costs_and_teaches_nothing() -> None:
    network = ExactClasses(torch.full((2,), 0.1, dtype=torch.float64))
    guide = NetworkGuide(network, VE(0.01, 5.0), Category("class", 2))
    x0 = torch.tensor([[0.3], [0.3]], dtype=torch.float64)
    draw = Draw(torch.full((2,), 0.7, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64))
    loss = ConditionLikelihood()(guide, x0, draw, {"class": torch.tensor([-1, 1])})
    (slope,) = torch.autograd.grad(loss[0], network.bend, retain_graph=True)
    assert loss[0] == 0.0 and not slope.any() and loss[1] > 0.0
    (slope,) = torch.autograd.grad(loss[1], network.bend)
    assert slope.all()


def test_refuses_a_score_and_round_trips() -> None:
    with pytest.raises(ValueError, match="trains a guidance network p\\(y | x\\), which is a NetworkGuide; got a Zero"):
        ConditionLikelihood()(Zero(VE()), torch.zeros(1, 1), Draw(torch.ones(1), torch.zeros(1, 1)), None)
    objective = ConditionLikelihood(stratified=False)
    assert loads(dumps(objective), Objective) == objective
