"""DDRM: each coordinate of the operator's basis by its own rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inverse.stepping import (
    EVENT,
    F64,
    GREY,
    GRIDS,
    MASK,
    OPERATORS,
    fast,
    image,
    independent,
    p_of_variance,
    seen,
    states,
)
from sampling.doubles import Generated, GivenNoise
from scorefield._random import StepNoise
from scorefield.inverse import DDRM, Function, GaussianNoise, Matrix, Observation
from scorefield.inverse.solvers.solver import OBSERVED, Unobserving
from scorefield.inverse.solvers.spectral import Diagonal, grid_alone
from scorefield.process import VE, VP, GeneralSDE, Process, SubVP
from scorefield.process.grids import LogSNR, Uniform
from scorefield.sampling import Hold, Sampler
from scorefield.sampling.named import named
from scorefield.score.oracles import Gaussian, skewed_mixture
from tolerance import FLOAT64, SIGNIFICANCE


@pytest.mark.parametrize("process", [VE(0.05, 5.0), VP(), SubVP()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("eta, eta_b", [(0.85, 1.0), (0.3, 0.6)])
def test_the_three_rules(process: Process, eta: float, eta_b: float) -> None:
    """One step by hand on diag(4, 0.5, 0): y surer than the level, less sure, and silent."""
    std, s = 0.3, torch.tensor([4.0, 0.5, 0.0], dtype=F64)
    law = Gaussian(process, torch.tensor([0.1, 0.2, 0.3], dtype=F64), torch.tensor([1.0, 0.5, 2.0], dtype=F64))
    y, x = torch.tensor([[0.7, -1.0, 0.0]], dtype=F64), torch.tensor([[0.4, -0.9, 1.3]], dtype=F64)
    observation = Observation(Matrix(torch.diag(s), (3,)), y[0], GaussianNoise(std))
    logs = torch.tensor([-2 * math.log(r) for r in (0.9, 0.3)], dtype=F64)
    t, then = (u[None] for u in process.time_at_log_snr(logs))
    step, bound = Diagonal(observation, eta, eta_b), Unobserving(law).bind({OBSERVED: y})

    def moved(z: float) -> Tensor:
        return step(bound, process, x, t, then, StepNoise(GivenNoise(lambda like, k: torch.full_like(like, z)), 0), 1).x

    a_t, a_s = float(process.alpha(t)), float(process.alpha(then))
    r_t, r_s = float(process.sigma(t)) / a_t, float(process.sigma(then)) / a_s
    D, w = law.denoised(x, t)[0], x[0] / a_t
    c = math.sqrt(1 - eta**2)
    mean = torch.stack(
        [
            (1 - eta_b) * D[0] + eta_b * y[0, 0] / 4,
            D[1] + c * r_s * (y[0, 1] / 0.5 - D[1]) / (std / 0.5),
            D[2] + c * r_s * (w[2] - D[2]) / r_t,
        ]
    )
    spread = torch.tensor([math.sqrt(r_s**2 - (eta_b * std / 4) ** 2), eta * r_s, eta * r_s], dtype=F64)
    # V of a diagonal matrix only renumbers and turns signs, and the noise is turned along.
    torch.testing.assert_close(moved(0.0)[0], a_s * mean, rtol=100 * FLOAT64, atol=100 * FLOAT64)
    torch.testing.assert_close((moved(1.0) - moved(0.0))[0].abs(), a_s * spread, rtol=100 * FLOAT64, atol=1e-12)


def test_no_fresh_noise_is_exact_and_fresh_noise_is_narrow_by_a_known_factor() -> None:
    """Of a Gaussian coordinate that y does not see: (1 + sqrt(1 - eta^2)) / 2 of its variance in fine steps."""
    process, n, v = VE(0.01, 20.0), 1000, 0.8
    law = Gaussian(process, torch.zeros(2, dtype=F64), v)
    observation = Observation(Matrix(torch.tensor([[1.0, 0.0]], dtype=F64), (2,)), torch.ones(1), GaussianNoise(0.0))
    for eta in (0.0, 0.85):
        x = fast(DDRM(eta), law, observation, Sampler(Hold(), LogSNR(200)), n).x
        expected = v * (1 + math.sqrt(1 - eta**2)) / 2
        assert p_of_variance(x[:, 1], expected) > SIGNIFICANCE
        assert torch.equal(x[:, 0], torch.ones(n, dtype=F64))
    assert p_of_variance(x[:, 1], v) < SIGNIFICANCE


@pytest.mark.parametrize("family", GRIDS)
def test_exact_y_is_in_the_answer_in_every_process(family: str) -> None:
    process, sampler = GRIDS[family]
    law, x = independent(process), image(batch=3)
    run = DDRM().run(law, seen(MASK, x), sampler, indices=range(3), dtype=F64)
    alone = DDRM().run(law, seen(MASK, x[2:]), sampler, indices=[2], dtype=F64)
    assert torch.equal(MASK(run.x), MASK(x))
    torch.testing.assert_close(run.x[2:], alone.x, rtol=10 * FLOAT64, atol=10 * FLOAT64)
    steps = len(sampler.times(process)) - 1
    assert int(run.calls[0]) == steps + 1 and torch.isfinite(run.x).all()
    grey = DDRM().run(law, seen(GREY, x), sampler, indices=range(3), dtype=F64)
    torch.testing.assert_close(GREY(grey.x), GREY(x), rtol=10 * FLOAT64, atol=10 * FLOAT64)


def test_the_first_level_has_what_is_known_at_its_noise() -> None:
    process, n, std = VE(0.05, 5.0), 500, 1.5
    law, observation = independent(process), seen(MASK, image(), std)
    seen_by = []

    class Listening(Unobserving):
        def denoised(self, x, t, condition=None):  # type: ignore[no-untyped-def]
            seen_by.append(x)
            return super().denoised(x, t, condition)

    bound = Listening(law).bind({OBSERVED: observation.y(torch.zeros(n, *EVENT, dtype=F64))})
    t, s = (torch.full((n,), v, dtype=F64) for v in (1.0, 0.9))
    x = Generated(0).normal(torch.zeros(n, *EVENT, dtype=F64), 0, 0) * 5.0
    Diagonal(observation, 0.85, 1.0)(bound, process, x, t, s, StepNoise(Generated(1), 0))
    d = MASK(seen_by[0]) - observation.observed
    assert p_of_variance(d, 25.0 - std**2) > SIGNIFICANCE > p_of_variance(d, 25.0 + 3 * std**2)


@pytest.mark.parametrize("name", OPERATORS)
def test_nothing_leaks(name: str) -> None:
    process, operator = VE(0.05, 5.0), OPERATORS[name]
    given = image(batch=2).requires_grad_(True)
    start = process.prior_sample(Generated(0).normal(given, 0, 0))
    observation = seen(operator, given.detach())
    end = states(DDRM(), independent(process), observation, grid_alone(process, 5), start, operator(given))
    (gradient,) = torch.autograd.grad((end**2).sum(), given)
    modes, hidden = operator.spectrum().right(gradient), ~operator.spectrum().seen  # type: ignore[attr-defined]
    assert float(modes[:, hidden].abs().max()) < 10 * FLOAT64 * float(modes.abs().max())
    assert float(modes.abs().max()) > 0.1


@pytest.mark.slow
def test_a_mixture_with_noisy_y() -> None:
    """Error of the mean under a fifth of the posterior's own width; taking no notice of y is four times that."""
    process, d = VE(0.01, 20.0), 8
    law = skewed_mixture(process, d)
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(4, d, generator=draw, dtype=F64)
    y = A @ law.sample(1, seed=3)[0] + 0.3 * torch.randn(4, generator=draw, dtype=F64)
    mean, covariance = law.posterior(A, y, 0.3).data_moments()
    width = float(covariance.trace()) ** 0.5
    x = fast(DDRM(), law, Observation(Matrix(A, (d,)), y, GaussianNoise(0.3)), None, 500).x
    assert float((x.mean(0) - mean).norm()) < 0.3 * width
    assert float((law.data_moments()[0] - mean).norm()) > 0.8 * width


def test_it_is_a_step_itself() -> None:
    process = VE(0.05, 5.0)
    law, observation = independent(process), seen(MASK, image())
    for name in ("dpm", "ald", "pc"):
        with pytest.raises(ValueError, match=r"ddrm is a step itself .*Sampler\(Hold\(\), Focused\(50\)\)"):
            DDRM().run(law, observation, named(name, process), indices=[0])
    with pytest.raises(ValueError, match=r"eta=1.2"):
        DDRM(1.2)
    bent = Observation(Function(torch.tanh, EVENT), torch.zeros(EVENT), GaussianNoise(0.1))
    with pytest.raises(ValueError, match="linear operator"):
        DDRM().run(law, bent, indices=[0])
    general = GeneralSDE(lambda x, t: -x, lambda x, t: torch.ones_like(x))
    sampler = Sampler(Hold(), Uniform(5), process=general)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alpha and sigma"):
        DDRM().run(law, observation, sampler, indices=[0])
