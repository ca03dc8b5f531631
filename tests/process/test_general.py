"""General diffusions: drifts in both directions, the divergence term, simulation and its weak order."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from process import examples
from process.examples import BROWNIAN, CURVED, GROWTH, LANGEVIN, OU, SWINGING, VOLATILITY, VP_AS_GENERAL
from scorefield._codec import CodecError, dumps, loads
from scorefield.process import VP, GeneralSDE, TimeLimits
from scorefield.process.general import NormalPrior
from tolerance import FINITE_DIFFERENCE, FLOAT32, FLOAT64, ORDER


class Injected:
    """Noise given as a tensor, step by step."""

    def __init__(self, z: Tensor):
        self.z = z

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        assert draw == 0
        assert self.z[step].shape == like.shape
        return self.z[step].to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        raise AssertionError("simulate draws normal noise only")


def states(*event: int, batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """x, t and values in place of a score."""
    size = batch * math.prod(event)
    x = torch.linspace(-1.1, 1.3, size, dtype=torch.float64).sin().reshape(batch, *event)
    return x, torch.linspace(0.2, 0.9, batch, dtype=torch.float64), x.flip(0).cos()


def squared(sde: GeneralSDE, x: Tensor, t: Tensor) -> Tensor:
    """G G', (B, D, D)."""
    g = sde.diffusion(x, t)
    if sde.noise == "matrix":
        return g @ g.mT
    return torch.diag_embed((g * g).reshape(len(t), -1).expand(len(t), x[0].numel()))


# ---------------------------------------------------------------------------------------------------- drifts


@pytest.mark.parametrize(
    ("kind", "event"), [("scalar", (3,)), ("scalar", (2, 3)), ("diagonal", (3, 2)), ("matrix", (3,))]
)
def test_divergence_is_that_of_finite_differences(kind: str, event: tuple[int, ...]) -> None:
    """div(G G')_i = sum_j d (G G')_ij / dx_j, which no term of G's own divergence alone gives."""
    sde = CURVED[kind]
    x, t, _ = states(*event)
    h, want = 1e-5, torch.zeros_like(x).reshape(len(x), -1)
    for j in range(want.shape[1]):
        step = torch.zeros_like(want)
        step[:, j] = h
        step = step.reshape(x.shape)
        want += ((squared(sde, x + step, t) - squared(sde, x - step, t)) / (2 * h))[:, :, j]
    have = sde.diffusion_divergence(x, t)
    torch.testing.assert_close(have.reshape(want.shape), want, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)
    assert float(want.abs().min(dim=1).values.max()) > 0.1
    assert not have.requires_grad


@pytest.mark.parametrize("sde", [*CURVED.values(), OU, BROWNIAN], ids=lambda s: s.diffusion.__name__)
def test_reverse_and_flow_drift(sde: GeneralSDE) -> None:
    """f - div(G G') - G G' score, and half of the last two, with G G' formed as a matrix."""
    x, t, score = states(3)
    term = sde.diffusion_divergence(x, t) + (squared(sde, x, t) @ score[..., None])[..., 0]
    f = sde.drift(x, t)
    torch.testing.assert_close(sde.reverse_drift(x, t, score), f - term, rtol=FLOAT64, atol=FLOAT64)
    torch.testing.assert_close(sde.flow_drift(x, t, score), f - 0.5 * term, rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("sde", [OU, LANGEVIN, VP_AS_GENERAL], ids=lambda s: s.drift.__name__)
def test_declared_or_not_a_constant_diffusion_has_no_divergence(sde: GeneralSDE) -> None:
    x, t, _ = states({"ou_drift": 3}.get(sde.drift.__name__, 2))
    undeclared = GeneralSDE(sde.drift, sde.diffusion, sde.noise)
    assert torch.equal(sde.diffusion_divergence(x, t), torch.zeros_like(x))
    assert torch.equal(undeclared.diffusion_divergence(x, t), torch.zeros_like(x))


def test_a_process_is_the_special_case() -> None:
    """VP written as a general SDE has VP's drifts on images."""
    vp, (x, t, score) = VP(), states(3, 2, 2)
    for name in ("reverse_drift", "flow_drift"):
        have, want = getattr(VP_AS_GENERAL, name)(x, t, score), getattr(vp, name)(x, t, score)
        torch.testing.assert_close(have, want, rtol=FLOAT64, atol=FLOAT64)
    z = score.flip(0)
    have, want = VP_AS_GENERAL.apply_diffusion(x, t, z), vp.apply_diffusion(x, t, z)
    torch.testing.assert_close(have, want, rtol=FLOAT64, atol=FLOAT64)


def test_flow_of_geometric_brownian_motion_carries_quantiles() -> None:
    """x = exp((mu - s^2 / 2) t + s sqrt(t) k) solves the flow with the log-normal score, for every k."""
    t = torch.tensor([0.2, 0.5, 0.5, 0.9], dtype=torch.float64).requires_grad_(True)
    k = torch.tensor([-1.3, 0.0, 0.8, 2.0], dtype=torch.float64)
    x = ((GROWTH - VOLATILITY**2 / 2) * t + VOLATILITY * t.sqrt() * k).exp()
    (rate,) = torch.autograd.grad(x.sum(), t)
    x, t = x.detach()[:, None], t.detach()
    score = -(1.0 + k[:, None] / (VOLATILITY * t.sqrt())[:, None]) / x
    torch.testing.assert_close(BROWNIAN.flow_drift(x, t, score)[:, 0], rate, rtol=FLOAT64, atol=FLOAT64)


def test_times_of_a_sampler_join_the_state() -> None:
    """float64 times on the CPU do not make a float32 state float64, whatever the functions do with them."""
    x, t, score = states(2)
    for name in ("reverse_drift", "flow_drift"):
        have = getattr(SWINGING, name)(x.float(), t, score.float())
        assert have.dtype == torch.float32
        torch.testing.assert_close(have.double(), getattr(SWINGING, name)(x, t, score), rtol=FLOAT32, atol=FLOAT32)
    assert SWINGING.apply_diffusion(x.float(), t, x.float()).dtype == torch.float32


def test_noise_shapes() -> None:
    x, t, _ = states(3)
    assert OU.noise_like(x, t).shape == (4, 2)
    assert CURVED["diagonal"].noise_like(x, t).shape == x.shape
    z = torch.ones(4, 2, dtype=torch.float64)
    torch.testing.assert_close(OU.apply_diffusion(x, t, z)[0], examples.OU_G.sum(dim=1), rtol=FLOAT64, atol=0)


# ---------------------------------------------------------------------------------------------------- simulation


def coin_paths(steps: int) -> Tensor:
    """Every sequence of signs, (steps, 2^steps, 1): a noise with the mean and variance of a normal one."""
    bits = torch.arange(2**steps)[:, None] >> torch.arange(steps) & 1
    return (2.0 * bits - 1.0).double().T[:, :, None]


def brownian_moments(steps: int, scale: float = 1.0) -> tuple[float, float]:
    """Exact mean and variance of the simulated x_1 from x_0 = 1: the chain is linear, so two-point noise gives both."""
    z = coin_paths(steps)
    x0 = torch.ones(z.shape[1], 1, dtype=torch.float64)
    end = BROWNIAN.simulate(x0, torch.linspace(0, 1, steps + 1, dtype=torch.float64), Injected(scale * z))[-1]
    return float(end.mean()), float(end.var(correction=0))


def test_simulation_has_weak_order_one() -> None:
    """Mean and variance of geometric Brownian motion against exp(mu), exp(2 mu) (exp(s^2) - 1), without Monte Carlo."""
    mean, variance = math.exp(GROWTH), math.exp(2 * GROWTH) * math.expm1(VOLATILITY**2)
    few, many = brownian_moments(6), brownian_moments(12)
    for have_few, have_many, want in zip(few, many, (mean, variance), strict=True):
        order = math.log2(abs(have_few - want) / abs(have_many - want))
        assert abs(order - GeneralSDE.simulation_weak_order) <= ORDER
    # 1.05 times the noise does not converge to the variance.
    wrong = [abs(brownian_moments(n, 1.05)[1] - variance) for n in (6, 12)]
    assert math.log2(wrong[0] / wrong[1]) < 1 - ORDER


def test_simulated_moments_of_the_chain() -> None:
    """E x_N = (1 + mu h)^N and E x_N^2 = ((1 + mu h)^2 + s^2 h)^N: the step itself, to rounding."""
    mean, variance = brownian_moments(8)
    h = 1 / 8
    assert mean == pytest.approx((1 + GROWTH * h) ** 8, rel=FLOAT64)
    assert variance + mean**2 == pytest.approx(((1 + GROWTH * h) ** 2 + VOLATILITY**2 * h) ** 8, rel=FLOAT64)


def test_simulate_uneven_times_and_matrix_noise() -> None:
    x, _, _ = states(3)
    times = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)
    z = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(2, 4, 2)
    path = OU.simulate(x, times, Injected(z))
    want = [x]
    for k, h in enumerate((0.1, 0.3)):
        drift = want[-1] @ examples.OU_A.T + examples.OU_B
        want.append(want[-1] + h * drift + math.sqrt(h) * z[k] @ examples.OU_G.T)
    torch.testing.assert_close(path, torch.stack(want), rtol=FLOAT64, atol=FLOAT64)


def test_simulate_looks_at_the_start_of_a_step() -> None:
    """Ito: f and G are those at the time and place where the step begins."""
    x, _, _ = states(2)
    z = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(2, 4, 2)
    path = SWINGING.simulate(x, torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), Injected(z))
    t = torch.full((4,), 0.5, dtype=torch.float64)
    step = 0.4 * SWINGING.drift(path[1], t) + math.sqrt(0.4) * SWINGING.diffusion(path[1], t) * z[1]
    torch.testing.assert_close(path[2], path[1] + step, rtol=FLOAT64, atol=FLOAT64)


def test_simulate_float32() -> None:
    x, _, _ = states(3)
    z = torch.zeros(4, 4, 3)
    sde, times = CURVED["diagonal"], torch.linspace(0, 1, 5)
    have = sde.simulate(x.float(), times, Injected(z))
    assert have.dtype == torch.float32
    torch.testing.assert_close(have.double(), sde.simulate(x, times, Injected(z)), rtol=FLOAT32, atol=FLOAT32)


@pytest.mark.parametrize("times", [[0.5], [0.5, 0.1], [0.0, 0.0, 1.0], [[0.0, 1.0]]])
def test_simulate_refuses_times_that_do_not_increase(times: list[float]) -> None:
    with pytest.raises(ValueError, match="increasing"):
        OU.simulate(torch.zeros(1, 3), torch.tensor(times), Injected(torch.zeros(2, 1, 2)))


# ---------------------------------------------------------------------------------------------------- prior


@pytest.mark.parametrize(
    "prior",
    [
        NormalPrior(),
        NormalPrior(0.5, 4.0),
        NormalPrior((1.0, -1.0, 0.0), (0.5, 2.0, 1.0)),
        NormalPrior((1.0, -1.0, 0.0), ((2.0, 0.5, 0.1), (0.5, 1.0, -0.3), (0.1, -0.3, 0.7))),
    ],
)
def test_prior(prior: NormalPrior) -> None:
    """Density against torch's; the sample map is affine with the covariance as its square."""
    covariance = torch.tensor(prior.covariance, dtype=torch.float64)
    covariance = covariance if covariance.ndim == 2 else torch.diag(covariance.expand(3))
    mean = torch.tensor(prior.mean, dtype=torch.float64).expand(3)
    reference = torch.distributions.MultivariateNormal(mean, covariance)
    sde = GeneralSDE(examples.ou_drift, examples.ou_diffusion, "matrix", prior)
    x, _, _ = states(3)
    torch.testing.assert_close(sde.prior_log_prob(x), reference.log_prob(x), rtol=FLOAT64, atol=FLOAT64)
    probes = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
    out = sde.prior_sample(probes)
    torch.testing.assert_close(out[0], mean, rtol=FLOAT64, atol=FLOAT64)
    columns = out[1:] - out[0]
    torch.testing.assert_close(columns.T @ columns, covariance, rtol=FLOAT64, atol=FLOAT64)
    assert loads(dumps(sde), GeneralSDE, trust=["process.examples", __name__]) == sde


def test_prior_of_images() -> None:
    z = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    torch.testing.assert_close(NormalPrior(1.0, 9.0).sample(z), 1 + 3 * z)
    assert NormalPrior(1.0, 9.0).log_prob(z).shape == (2,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NormalPrior(0.0, 0.0), "positive variance"),
        (lambda: NormalPrior(0.0, (1.0, -1.0)), "positive variance"),
        (lambda: NormalPrior(0.0, ((1.0, 0.5), (0.0, 1.0))), "symmetric"),
        (lambda: NormalPrior(0.0, ((1.0, 2.0), (2.0, 1.0))), "positive definite"),
        (
            lambda: NormalPrior((0.0, 1.0)).sample(torch.zeros(1, 3)),
            r"mean has 2 components, and x of shape \(1, 3\) has 3",
        ),
        (lambda: NormalPrior(0.0, (1.0, 1.0)).sample(torch.zeros(1, 3)), "covariance has 2 components"),
    ],
)
def test_bad_priors(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


# ---------------------------------------------------------------------------------------------------- refusals, codec


def test_saved_by_the_names_of_its_functions() -> None:
    for sde in (OU, LANGEVIN, BROWNIAN, *CURVED.values()):
        text = dumps(sde)
        assert f"{examples.__name__}:{sde.drift.__name__}" in text
        assert loads(text, GeneralSDE, trust=["process.examples", __name__]) == sde
    with pytest.raises(CodecError, match="drift.*imported by name"):
        dumps(GeneralSDE(lambda x, t: x, examples.vp_diffusion))


def test_times() -> None:
    sde = GeneralSDE(examples.brownian_drift, examples.brownian_diffusion, "diagonal", t_min=TimeLimits(0.1, 0.2, 0.3))
    sde.check_time(torch.tensor([0.1, 1.0]))
    with pytest.raises(ValueError, match=r"outside \[0.1, 1\], where GeneralSDE"):
        sde.check_time(torch.tensor([0.05]))


@pytest.mark.parametrize(
    ("noise", "diffusion", "words"),
    [
        ("scalar", examples.ou_diffusion, r"shape \(4, 3, 2\); noise='scalar'.*need \(4,\)"),
        ("matrix", examples.brownian_diffusion, r"shape \(4, 3\); noise='matrix'.*need \(4, 3, M\)"),
        ("diagonal", examples.vp_diffusion, r"shape \(4,\); noise='diagonal'.*need \(4, 3\)"),
        ("matrix", examples.langevin_diffusion, r"shape \(4, 2, 1\).*need \(4, 3, M\)"),
    ],
)
def test_a_diffusion_of_another_shape(noise: Any, diffusion: Any, words: str) -> None:
    x, t, score = states(3)
    sde = GeneralSDE(examples.ou_drift, diffusion, noise)
    for call in (lambda: sde.reverse_drift(x, t, score), lambda: sde.apply_diffusion(x, t, score)):
        with pytest.raises(ValueError, match=words):
            call()


def first_column(x: Tensor, t: Tensor) -> Tensor:
    return x[:, :1]


def test_a_drift_of_another_shape() -> None:
    x, t, score = states(3)
    sde = GeneralSDE(first_column, examples.vp_diffusion)
    with pytest.raises(ValueError, match=r"drift\(x, t\) has shape \(4, 1\).*of x, \(4, 3\)"):
        sde.flow_drift(x, t, score)


def test_bad_declarations() -> None:
    f, g = examples.brownian_drift, examples.brownian_diffusion
    with pytest.raises(ValueError, match="affine=True needs.*state_dependent=False"):
        GeneralSDE(f, g, "diagonal", affine=True)
    with pytest.raises(ValueError, match="'full'"):
        GeneralSDE(f, g, "full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="changes with x; pass state_dependent=True"):
        GeneralSDE(f, g, "diagonal", affine=True, state_dependent=False).transitions((3,))
    with pytest.raises(ValueError, match="not A\\(t\\) x"):
        GeneralSDE(examples.mixed_diagonal, examples.vp_diffusion, affine=True, state_dependent=False).transitions((3,))
    with pytest.raises(ValueError, match="simulate and sliced score matching"):
        BROWNIAN.perturb(torch.zeros(1, 3), torch.ones(1), torch.zeros(1, 3))
