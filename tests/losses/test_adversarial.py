"""Adversarial losses against values by hand, their signs, and the gradients of both objectives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from losses.cases import PROCESSES
from scorefield._codec import dumps, loads, record_types
from scorefield.losses import AdversarialLoss, AdversarialScoreMatching, CriticObjective, DenoisingScoreMatching, Draw
from scorefield.losses.adversarial import LSGAN, WGAN, PairedCritic
from scorefield.process import VE, VP, LinearBetas, Tabulated
from scorefield.score import FunctionScore, NetworkScore, NoiseForm, ScaledScoreForm, ScaledTime, oracles
from tolerance import FLOAT64, ORACLE_SCORE

LOSSES = record_types(AdversarialLoss)
EACH = pytest.mark.parametrize("name", LOSSES)


def bce(logit: float, label: int) -> float:
    """Binary cross entropy of a logit, in its textbook form."""
    p = 1.0 / (1.0 + math.exp(-logit))
    return -math.log(p if label else 1.0 - p)


def hinge(x: float) -> float:
    return max(0.0, x)


Row = Callable[[float, float, float, float], float]
"""(r, f, mean r, mean f) -> loss."""
PUBLISHED: dict[str, tuple[Row, Row]] = {
    "GAN": (lambda r, f, a, b: bce(r, 1) + bce(f, 0), lambda r, f, a, b: bce(f, 1)),
    "WGAN": (lambda r, f, a, b: f - r, lambda r, f, a, b: -f),
    "HingeGAN": (lambda r, f, a, b: hinge(1 - r) + hinge(1 + f), lambda r, f, a, b: -f),
    "RpGAN": (lambda r, f, a, b: 2 * bce(r - f, 1), lambda r, f, a, b: 2 * bce(f - r, 1)),
    "RaGAN": (
        lambda r, f, a, b: bce(r - b, 1) + bce(f - a, 0),
        lambda r, f, a, b: bce(r - b, 0) + bce(f - a, 1),
    ),
    "LSGAN": (lambda r, f, a, b: (r - 1) ** 2 + (f + 1) ** 2, lambda r, f, a, b: (f - 1) ** 2),
    "SaturatingLSGAN": (lambda r, f, a, b: (r - 1) ** 2 + (f + 1) ** 2, lambda r, f, a, b: (f + 1) ** 2),
    "RpLSGAN": (lambda r, f, a, b: 2 * (r - f - 1) ** 2, lambda r, f, a, b: 2 * (f - r - 1) ** 2),
    "RaLSGAN": (
        lambda r, f, a, b: (r - b - 1) ** 2 + (f - a + 1) ** 2,
        lambda r, f, a, b: (r - b + 1) ** 2 + (f - a - 1) ** 2,
    ),
    "RaHingeGAN": (
        lambda r, f, a, b: hinge(1 - (r - b)) + hinge(1 + (f - a)),
        lambda r, f, a, b: hinge(1 + (r - b)) + hinge(1 - (f - a)),
    ),
}
REAL = torch.tensor([0.3, -1.2, 2.5], dtype=torch.float64)
FAKE = torch.tensor([0.8, 0.1, -1.7], dtype=torch.float64)


def by_hand(row: Row) -> Tensor:
    a, b = float(REAL.mean()), float(FAKE.mean())
    values = [row(float(r), float(f), a, b) for r, f in zip(REAL, FAKE, strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def test_the_ten_published_losses_are_there() -> None:
    assert set(LOSSES) == set(PUBLISHED)
    assert all(loads(dumps(loss()), AdversarialLoss) == loss() for loss in LOSSES.values())


@EACH
def test_both_halves_by_hand(name: str) -> None:
    loss, (critic, generator) = LOSSES[name](), PUBLISHED[name]
    torch.testing.assert_close(loss.critic(REAL, FAKE), by_hand(critic), rtol=FLOAT64, atol=FLOAT64)
    torch.testing.assert_close(loss.generator(REAL, FAKE), by_hand(generator), rtol=FLOAT64, atol=FLOAT64)


def test_published_labels_in_numbers() -> None:
    """Data 0.5 and a fake -0.25: 0.5^2 + 0.75^2 and 1.25^2, with labels +1 and -1 and not 1 and 0."""
    real, fake = torch.tensor([0.5]), torch.tensor([-0.25])
    assert float(LSGAN().critic(real, fake)) == 0.8125 and float(LSGAN().generator(real, fake)) == 1.5625


def slopes(loss: AdversarialLoss) -> tuple[float, float, float]:
    """Derivatives at r = f = 0 of the mean losses over a batch: L_D by r and by f, and L_G by f."""
    real, fake = (torch.zeros(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    by_real, by_fake = torch.autograd.grad(loss.critic(real, fake).mean(), (real, fake))
    (generated,) = torch.autograd.grad(loss.generator(real, fake).mean(), (fake,), materialize_grads=True)
    # Sums over the batch: the derivative where all examples move together, as relativistic losses compare with means.
    return float(by_real.sum()), float(by_fake.sum()), float(generated.sum())


class Swapped(AdversarialLoss):
    """A mutant that exchanges data and denoised examples."""

    def __init__(self, loss: AdversarialLoss):
        self.loss = loss

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.loss.critic(fake, real)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.loss.generator(fake, real)


@EACH
def test_critic_and_score_have_opposite_gradients(name: str) -> None:
    """L_D raises D of data and lowers D of denoised examples, and L_G raises it; a mutant that swaps them does not."""

    def signs_are_right(loss: AdversarialLoss) -> bool:
        by_real, by_fake, generated = slopes(loss)
        saturates = name == "SaturatingLSGAN"  # reproduced with the sign of the published code
        return by_real < 0 < by_fake and (generated > 0 if saturates else generated < 0)

    assert signs_are_right(LOSSES[name]())
    assert not signs_are_right(Swapped(LOSSES[name]()))


# ---------------------------------------------------------------------------------------------------- the objectives


class Linear(nn.Module):
    """D(x) = w . x with w = (1, -2)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


class Shrink(nn.Module):
    """F(x) = slope x, counting its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(-0.3, dtype=torch.float64))
        self.calls = 0

    def forward(self, x: Tensor, c: Tensor, condition: object = None) -> Tensor:
        self.calls += 1
        return self.slope * x


def case() -> tuple[NetworkScore, Shrink, PairedCritic, Tensor, Draw]:
    """sigma score = slope x under VE at three noise levels."""
    net, process = Shrink(), VE(0.01, 5.0)
    generator = torch.Generator().manual_seed(3)
    x0 = torch.rand(3, 2, generator=generator, dtype=torch.float64)
    z = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    draw = Draw(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), z)
    return NetworkScore(net, process, ScaledScoreForm(), ScaledTime()), net, PairedCritic(Linear()), x0, draw


@pytest.mark.parametrize("limits", [None, (0.2, 0.6)])
def test_both_objectives_in_closed_form(limits: tuple[float, float] | None) -> None:
    """Values and gradients with x_hat = (1 + slope sigma) x_t, clamped; the score's loss gives D no gradient."""
    score, net, critics, x0, draw = case()
    sigma, slope = score.process.sigma(draw.t)[:, None], net.slope.item()
    x_t = x0 + sigma * draw.z
    x_hat = (1.0 + slope * sigma) * x_t
    inside = torch.ones_like(x_hat) if limits is None else ((x_hat > limits[0]) & (x_hat < limits[1])).double()
    w = torch.tensor([1.0, -2.0], dtype=torch.float64)
    r, f = x0 @ w, (x_hat if limits is None else x_hat.clamp(*limits)) @ w
    if limits is not None:
        assert 0 < inside.sum() < inside.numel()  # the case has both

    own = DenoisingScoreMatching(reduce="half_sum")
    value = AdversarialScoreMatching(own, LSGAN(), critics, limits, 0.5, 2.0)(score, x0, draw)
    assert net.calls == 1  # the denoised example needs no further evaluation
    residual = slope * x_t + draw.z
    expected = 2.0 * 0.5 * residual.square().sum(1) + 0.5 * (f - 1.0) ** 2
    torch.testing.assert_close(value, expected, rtol=FLOAT64, atol=FLOAT64)
    value.sum().backward()
    by_slope = 2.0 * (residual * x_t).sum() + ((f - 1.0) * ((sigma * x_t * inside) @ w)).sum()
    assert net.slope.grad is not None
    torch.testing.assert_close(net.slope.grad, by_slope, rtol=FLOAT64, atol=FLOAT64)
    assert all(p.grad is None and p.requires_grad for p in critics.parameters())

    net.slope.grad = None
    value = CriticObjective(own, LSGAN(), critics, limits, 3.0)(score, x0, draw)
    torch.testing.assert_close(value, 3.0 * ((r - 1.0) ** 2 + (f + 1.0) ** 2), rtol=FLOAT64, atol=FLOAT64)
    value.sum().backward()
    fake = x_hat if limits is None else x_hat.clamp(*limits)
    by_w = 6.0 * ((r - 1.0) @ x0 + (f + 1.0) @ fake)
    torch.testing.assert_close(critics.critic.w.grad, by_w, rtol=FLOAT64, atol=FLOAT64)  # type: ignore[arg-type]
    assert net.slope.grad is None


@pytest.mark.parametrize("name", PROCESSES)
def test_the_fake_of_an_exact_score_is_the_posterior_mean(name: str) -> None:
    """This holds under every process, whatever its alpha; with D = w . x the Wasserstein loss is w . x_hat itself."""
    process, critics = PROCESSES[name], PairedCritic(Linear())
    oracle = oracles.Gaussian(process, torch.tensor([0.7, -0.4], dtype=torch.float64), 0.25)
    t = torch.tensor([0.0, 0.5, 1.0] if isinstance(process, Tabulated) else [0.1, 0.5, 1.0], dtype=torch.float64)
    if isinstance(process, Tabulated):
        t = process.time(torch.tensor([0, process.levels // 2, process.levels - 1]))
    _, _, _, x0, draw = case()
    draw = Draw(t, draw.z)
    value = AdversarialScoreMatching(DenoisingScoreMatching(), WGAN(), critics, None, 1.0, 0.0)(oracle, x0, draw)
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    m, x_t = torch.tensor([0.7, -0.4], dtype=torch.float64), alpha * x0 + sigma * draw.z
    posterior = m + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x_t - alpha * m)
    w = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(value, -(posterior @ w), rtol=ORACLE_SCORE, atol=ORACLE_SCORE)


def test_a_network_of_a_ladder_is_denoised_by_its_ladder() -> None:
    """DDPM's table on the process VP: the noise is the table's, not the process's at the same t."""
    table, net, critics = Tabulated(LinearBetas(levels=50)), Shrink(), PairedCritic(Linear())
    score = NetworkScore(net, VP(), NoiseForm(), ScaledTime(), levels=table)
    _, _, _, x0, draw = case()
    draw = Draw(table.time(torch.tensor([2, 25, 40])), draw.z)
    own = DenoisingScoreMatching(levels=table)
    generator_loss = AdversarialScoreMatching(own, WGAN(), critics, None, 1.0, 0.0)(score, x0, draw)
    alpha, sigma = table.alpha(draw.t)[:, None], table.sigma(draw.t)[:, None]
    x_t = alpha * x0 + sigma * draw.z
    fake = (1.0 - sigma * net.slope.item()) / alpha * x_t
    w = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(generator_loss, -(fake @ w), rtol=FLOAT64, atol=FLOAT64)
    critic_loss = CriticObjective(own, WGAN(), critics)(score, x0, draw)
    torch.testing.assert_close(critic_loss, fake @ w - x0 @ w, rtol=FLOAT64, atol=FLOAT64)


def test_an_objective_that_evaluates_no_score_is_refused() -> None:
    class Silent(DenoisingScoreMatching):
        def __call__(self, score, x0, draw, condition=None) -> Tensor:
            return x0.sum(1)

    _, _, critics, x0, draw = case()
    score = FunctionScore(lambda x, t: -x, VE())
    with pytest.raises(ValueError, match="evaluated no score.*adversary=None"):
        AdversarialScoreMatching(Silent(), LSGAN(), critics)(score, x0, draw)
