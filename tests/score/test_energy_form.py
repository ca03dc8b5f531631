"""Energy networks as scores: one energy for every level, T(t) = sigma(t)^2 / sigma_0^2."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scorefield.losses import DenoisingScoreMatching
from scorefield.losses.denoising import Draw
from scorefield.process import LinearSigmas, Tabulated
from scorefield.sampling import Chain, Hold, LadderScaled, Langevin, Sampler
from scorefield.score import EnergyForm, NetworkEnergy, NetworkScore, NoiseForm, ScaledTime, network_score
from tolerance import FLOAT64

F64 = torch.float64
PROCESS = Tabulated(LinearSigmas(0.05, 1.2, 24))


class Quadratic(nn.Module):
    """E = a |x|^2 / 2 + c |x|^4 / 4."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(37.913, dtype=F64))

    def forward(self, x: Tensor, c: Tensor, condition: object = None) -> Tensor:
        r = x.flatten(1).square().sum(1)
        return 0.5 * self.a * r + 0.25 * r**2


def gradient(x: Tensor) -> Tensor:
    return 37.913 * x + x.flatten(1).square().sum(1)[:, None] * x


def examples(n: int = 24) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    return x, torch.linspace(0.0, 1.0, n, dtype=F64)


def test_score_denoised_and_energy() -> None:
    score = network_score(Quadratic(), PROCESS, EnergyForm(0.2), ScaledTime(0.0))
    assert isinstance(score, NetworkEnergy)
    assert isinstance(network_score(Quadratic(), PROCESS, NoiseForm(), ScaledTime(0.0)), NetworkScore)
    x, t = examples()
    scale = (0.2 / PROCESS.sigma(t)[:, None]) ** 2
    torch.testing.assert_close(score(x, t).detach(), -scale * gradient(x), rtol=FLOAT64, atol=0)
    torch.testing.assert_close(score.denoised(x, t).detach(), x - 0.04 * gradient(x), rtol=FLOAT64, atol=FLOAT64)
    with torch.no_grad():
        assert not score(x, t).requires_grad
        torch.testing.assert_close(score.energy(x, t), score.energy(x, t.flip(0)), rtol=0, atol=0)
    # Below level 0 there is no noise, the score is not defined, and the jump still is.
    torch.testing.assert_close(
        score.denoised(x[:1], torch.zeros(1, dtype=F64)).detach(), x[:1] - 0.04 * gradient(x[:1]), rtol=FLOAT64, atol=0
    )


def test_its_denoising_loss_is_the_published_one() -> None:
    """|sigma score + z|^2 = sigma^-2 |x0 - x + sigma_0^2 grad E|^2, and its gradient reaches the weights."""
    net = Quadratic()
    score = NetworkEnergy(net, PROCESS, EnergyForm(0.1))
    x0, t = examples()
    z = torch.randn(x0.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    loss = DenoisingScoreMatching(reduce="half_sum")(score, x0, Draw(t, z))
    sigma = PROCESS.sigma(t)[:, None]
    x = x0 + sigma * z
    expected = 0.5 * ((x0 - x + 0.01 * gradient(x)) / sigma).square().sum(1)
    torch.testing.assert_close(loss.detach(), expected, rtol=FLOAT64, atol=0)
    (slope,) = torch.autograd.grad(loss.sum(), net.a)
    residual = (x0 - x + 0.01 * gradient(x)) / sigma
    torch.testing.assert_close(slope, (residual * 0.01 * x / sigma).sum(), rtol=FLOAT64, atol=0)


def test_langevin_on_it_is_the_annealed_temperature_step() -> None:
    """e = step^2 / 2 * sigma^2 / sigma_0^2 makes x - (step^2 / 2) grad E + step sqrt(T) z at every level."""
    score = NetworkEnergy(Quadratic(), PROCESS, EnergyForm(0.1))
    step, seen = 0.02, []
    sampler = Sampler(Chain((Langevin(LadderScaled(0.5 * step**2, 0.1)), Hold())), final="none")
    x, _ = examples(1)
    z = torch.full_like(x, 0.3)

    class Same:
        def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
            seen.append(step)
            return z

        def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
            return z

    from scorefield.process.grids import EveryLevel

    found = Sampler(sampler.step, EveryLevel(), final="none", begin=1.0).run(
        score, (3,), indices=[0], latent=x, noise=Same(), dtype=F64
    )
    for sigma in PROCESS.ladder.table()[1].flip(0):
        x = x - 0.5 * step**2 * gradient(x) + step * (sigma / 0.1) * z
    torch.testing.assert_close(found.x, x, rtol=FLOAT64, atol=FLOAT64)
    assert len(seen) == 24


def test_a_reference_level_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma_0"):
        EnergyForm(0.0)


def test_a_network_of_several_outputs_is_no_energy() -> None:
    """A network with several outputs is refused, because the gradient of their sum is not a score."""

    class Vectors(nn.Module):
        def forward(self, x: Tensor, c: Tensor, condition: object = None) -> Tensor:
            return 2.0 * x

    score = NetworkEnergy(Vectors(), PROCESS, EnergyForm())
    with pytest.raises(ValueError, match=r"has shape \(2, 3\).*several outputs"):
        score(torch.zeros(2, 3), torch.ones(2))
