"""DiffPIR: the data step against its normal equations, the step by hand, the answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inverse.stepping import F64, GREY, GRIDS, MASK, OPERATORS, fast, image, independent, p_of_variance, seen, states
from sampling.doubles import Generated, GivenNoise
from scorefield._random import StepNoise
from scorefield.inverse import DiffPIR, Function, GaussianNoise, LaplaceNoise, Linear, Matrix, Observation
from scorefield.inverse.solvers.proximal import DataStep, Proximal, conjugate, linearised
from scorefield.inverse.solvers.solver import OBSERVED, Unobserving
from scorefield.inverse.solvers.spectral import grid_alone
from scorefield.process import VE, VP, Process, SubVP
from scorefield.process.grids import LogSNR
from scorefield.sampling import Hold, Sampler
from scorefield.sampling.named import named
from scorefield.score.oracles import Gaussian
from tolerance import CONJUGATE, FLOAT64, SIGNIFICANCE

A = torch.tensor([[1.0, 0.5, 0.0, 0.2], [0.0, 1.0, -1.0, 0.3]], dtype=F64)


class Unfactored(Linear):
    """A linear operator that is too large for singular values."""

    def _decompose(self):  # type: ignore[no-untyped-def]
        raise ValueError("too large")


def matrices() -> dict[str, Linear | Matrix | Function]:
    return {
        "singular values": Matrix(A, (4,)),
        "conjugate gradients": Unfactored(lambda x: x @ A.to(x).T, (4,)),
        "Gauss-Newton": Function(lambda x: x @ A.to(x).T, (4,)),
    }


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("way", matrices())
def test_the_data_step_solves_its_normal_equations(way: str, rho: float) -> None:
    operator = matrices()[way]
    D, y = image(1, 2).flatten(1)[:, :4], image(2, 2).flatten(1)[:, :2]
    x = DataStep(Observation(operator, y, GaussianNoise(0.1)))(D, y, rho)
    inverse = torch.linalg.inv(A @ A.T + rho * torch.eye(2, dtype=F64))
    expected = D + (y - D @ A.T) @ inverse @ A  # = (A'A + rho)^-1 (A'y + rho D), the nearest fit at rho = 0
    torch.testing.assert_close(x, expected, rtol=CONJUGATE, atol=CONJUGATE)


def test_a_bent_operator_is_fitted_by_moves_that_help() -> None:
    """The gradient of the objective is zero where it ends, and no row ends worse than it began."""
    operator = Function(lambda x: torch.tanh(x) + 0.3 * x**2, (4,))
    D, truth, rho = image(1, 6).flatten(1)[:, :4], image(2, 6).flatten(1)[:, :4], 0.5
    y = operator(truth)
    observation = Observation(operator, y, GaussianNoise(0.1))

    def cost(x: Tensor) -> Tensor:
        return ((y - operator(x)) ** 2).sum(1) + rho * ((x - D) ** 2).sum(1)

    x = DataStep(observation, moves=40)(D, y, rho).requires_grad_(True)
    assert bool((cost(DataStep(observation)(D, y, rho)) < cost(D)).all())
    (gradient,) = torch.autograd.grad(cost(x).sum(), x)
    assert float(gradient.norm(dim=1).median()) < 1e-3 * float(cost(D).median())
    alone = DataStep(Observation(operator, y[2:3], GaussianNoise(0.1)))(D[2:3], y[2:3], rho)
    torch.testing.assert_close(DataStep(observation)(D, y, rho)[2:3], alone, rtol=100 * FLOAT64, atol=100 * FLOAT64)


def test_products_with_the_jacobian() -> None:
    """Of x_k^2 w, whose Jacobian is 2 x_k w, of A x, and of what does not hear x."""
    x, d, r = (image(k, 3).flatten(1)[:, :4] for k in (1, 2, 3))
    w = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)
    value, push, pull = linearised(lambda x: x**2 * w, x)
    torch.testing.assert_close(value, x**2 * w)
    torch.testing.assert_close(push(d), 2 * x * w * d)
    torch.testing.assert_close(pull(r), 2 * x * w * r)
    _, push, pull = linearised(lambda x: x @ A.T, x)
    torch.testing.assert_close(push(d), d @ A.T)
    torch.testing.assert_close(pull(r[:, :2]), r[:, :2] @ A)
    _, push, pull = linearised(lambda x: torch.ones(len(x), 2, dtype=F64), x)
    assert not push(d).any() and not pull(r[:, :2]).any() and push(d).shape == (3, 2)


def test_rows_of_conjugate_gradients_finish_by_themselves() -> None:
    """A row with nothing to do stays as it is while others go on."""
    residual = torch.tensor([[0.0, 0.0], [1.0, -2.0]], dtype=F64)
    d = conjugate(lambda d: d @ A.T, lambda r: r @ A, residual, 0.1, torch.zeros(2, 4, dtype=F64), 50)
    assert torch.equal(d[0], torch.zeros(4, dtype=F64)) and float(d[1].abs().max()) > 0.1
    assert not bool(torch.isnan(d).any())


@pytest.mark.parametrize("process", [VE(0.05, 5.0), VP(), SubVP()], ids=lambda p: type(p).__name__)
def test_one_step_by_hand(process: Process) -> None:
    lam, zeta, std = 3.0, 0.4, 0.3
    law = Gaussian(process, torch.tensor([0.1, 0.2], dtype=F64), torch.tensor([1.0, 0.5], dtype=F64))
    observation = Observation(
        Matrix(torch.tensor([[2.0, 0.0]], dtype=F64), (2,)), torch.tensor([0.8]), GaussianNoise(std)
    )
    x, y = torch.tensor([[0.4, -0.9]], dtype=F64), torch.tensor([[0.8]], dtype=F64)
    t, s = (torch.tensor([v], dtype=F64) for v in (0.6, 0.4))
    step, bound = Proximal(observation, lam, zeta), Unobserving(law).bind({OBSERVED: y})
    moved = [
        step(bound, process, x, t, s, StepNoise(GivenNoise(lambda like, k, z=z: torch.full_like(like, z)), 0)).x[0]
        for z in (0.0, 1.0)
    ]
    (a_t, sigma_t), (a_s, sigma_s) = ((float(process.alpha(u)), float(process.sigma(u))) for u in (t, s))
    D = law.denoised(x, t)[0]
    ratio = lam * std**2 * a_t**2 / sigma_t**2
    x_0 = torch.stack([(2.0 * 0.8 + ratio * D[0]) / (4.0 + ratio), D[1]])
    mean = a_s * x_0 + sigma_s * math.sqrt(1 - zeta) * (x[0] - a_t * x_0) / sigma_t
    torch.testing.assert_close(moved[0], mean, rtol=100 * FLOAT64, atol=100 * FLOAT64)
    spread = torch.full((2,), sigma_s * math.sqrt(zeta), dtype=F64)
    torch.testing.assert_close(moved[1] - moved[0], spread, rtol=100 * FLOAT64, atol=100 * FLOAT64)


def test_fresh_noise_is_narrow_by_a_known_factor() -> None:
    """Of a Gaussian coordinate that y does not see: (1 + sqrt(1 - zeta)) / 2 of its variance in fine steps."""
    process, n, v = VE(0.01, 20.0), 1000, 0.8
    law = Gaussian(process, torch.zeros(2, dtype=F64), v)
    observation = Observation(Matrix(torch.tensor([[1.0, 0.0]], dtype=F64), (2,)), torch.ones(1), GaussianNoise(0.0))
    x = fast(DiffPIR(zeta=0.8), law, observation, Sampler(Hold(), LogSNR(200)), n).x[:, 1]
    assert p_of_variance(x, v * (1 + math.sqrt(0.2)) / 2) > SIGNIFICANCE > p_of_variance(x, v)


@pytest.mark.parametrize("family", GRIDS)
def test_exact_y_is_in_the_answer_in_every_process(family: str) -> None:
    process, sampler = GRIDS[family]
    law, x = independent(process), image(batch=3)
    run = DiffPIR().run(law, seen(MASK, x), sampler, indices=range(3), dtype=F64)
    alone = DiffPIR().run(law, seen(MASK, x[2:]), sampler, indices=[2], dtype=F64)
    assert torch.equal(MASK(run.x), MASK(x))
    torch.testing.assert_close(run.x[2:], alone.x, rtol=10 * FLOAT64, atol=10 * FLOAT64)
    assert int(run.calls[0]) == len(sampler.times(process)) and torch.isfinite(run.x).all()
    grey = DiffPIR().run(law, seen(GREY, x), sampler, indices=range(3), dtype=F64)
    torch.testing.assert_close(GREY(grey.x), GREY(x), rtol=10 * FLOAT64, atol=10 * FLOAT64)


def test_the_way_to_fit_does_not_matter() -> None:
    process, y = VE(0.05, 5.0), torch.tensor([0.3, -0.4], dtype=F64)
    law = Gaussian(process, torch.zeros(4, dtype=F64), torch.tensor([1.0, 0.5, 2.0, 0.2], dtype=F64))
    ends = [
        DiffPIR()
        .run(law, Observation(op, y, GaussianNoise(0.2)), grid_alone(process, 8), indices=range(3), dtype=F64)
        .x
        for op in matrices().values()
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=10 * CONJUGATE, atol=10 * CONJUGATE)
    torch.testing.assert_close(ends[2], ends[0], rtol=10 * CONJUGATE, atol=10 * CONJUGATE)


@pytest.mark.parametrize("name", OPERATORS)
def test_nothing_leaks(name: str) -> None:
    process, operator = VE(0.05, 5.0), OPERATORS[name]
    given = image(batch=2).requires_grad_(True)
    start = process.prior_sample(Generated(0).normal(given, 0, 0))
    observation = seen(operator, given.detach(), 0.1)
    end = states(DiffPIR(), independent(process), observation, grid_alone(process, 5), start, operator(given))
    (gradient,) = torch.autograd.grad((end**2).sum(), given)
    modes, hidden = operator.spectrum().right(gradient), ~operator.spectrum().seen  # type: ignore[attr-defined]
    assert float(modes[:, hidden].abs().max()) < 10 * FLOAT64 * float(modes.abs().max())
    assert float(modes.abs().max()) > 0.1


def test_refusals() -> None:
    process = VE(0.05, 5.0)
    law = independent(process)
    with pytest.raises(ValueError, match="diffpir is a step itself and takes the place of Langevin, ReverseDiffusion"):
        DiffPIR().run(law, seen(MASK, image()), named("pc", process), indices=[0])
    with pytest.raises(ValueError, match="needs normal noise, and y has LaplaceNoise"):
        DiffPIR().run(law, Observation(MASK, torch.zeros(6), LaplaceNoise(0.1)), indices=[0])
    with pytest.raises(ValueError, match=r"lam=0\.0 must be positive"):
        DiffPIR(lam=0.0)
