"""Exact normal distributions of affine diffusions, against closed forms and against an independent solver."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm, solve_continuous_lyapunov
from scipy.special import gammainc
from torch import Tensor

from process import examples
from process.examples import LANGEVIN, OU, SWINGING, VP_AS_GENERAL
from scorefield.process import VP, GeneralSDE
from scorefield.process.affine import integrate
from tolerance import FLOAT32, FLOAT64, LAW, ORDER, REFERENCE_SOLVER, REVERSED

T = torch.tensor([1e-4, 1e-3, 0.013, 0.25, 0.5001, 1.0], dtype=torch.float64)


def squared(sde: GeneralSDE, t: Tensor, dimension: int) -> Tensor:
    """G G' at times (K,), for a matrix or a diagonal."""
    g = sde.diffusion(torch.zeros(len(t), dimension, dtype=torch.float64), t)
    return g @ g.mT if sde.noise == "matrix" else torch.diag_embed(g**2)


def matrices(sde: GeneralSDE, t: float, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, b and G G' at one time."""
    at = torch.full((dimension + 1,), t, dtype=torch.float64)
    x = torch.cat([torch.zeros(1, dimension), torch.eye(dimension)]).double()
    f = sde.drift(x, at)
    return (f[1:] - f[0]).T.numpy(), f[0].numpy(), squared(sde, at[:1], dimension)[0].numpy()


def by_exponential(sde: GeneralSDE, t: float, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phi, m and P of constant coefficients from exponentials of block matrices (Van Loan 1978)."""
    A, b, Q = matrices(sde, 0.5, dimension)
    zeros = np.zeros_like(A)
    block = expm(np.block([[-A, Q], [zeros, A.T]]) * t)
    phi = block[dimension:, dimension:].T
    shift = expm(np.block([[A, b[:, None]], [np.zeros((1, dimension + 1))]]) * t)[:dimension, dimension]
    return phi, shift, phi @ block[:dimension, dimension:]


# ---------------------------------------------------------------------------------------------------- closed forms


def test_ornstein_uhlenbeck() -> None:
    """Non-symmetric A, three components driven by two noises, against the matrix exponential; A' would not pass."""
    have = OU.transitions((3,)).moments(T[2:])
    for k, t in enumerate(T[2:].tolist()):
        phi, shift, covariance = by_exponential(OU, t, 3)
        np.testing.assert_allclose(have.transition[k], phi, rtol=LAW, atol=LAW)
        np.testing.assert_allclose(have.offset[k], shift, rtol=LAW, atol=LAW)
        np.testing.assert_allclose(have.covariance[k], covariance, rtol=LAW, atol=LAW)
        assert np.abs(have.transition[k].numpy() - phi.T).max() > 1e3 * LAW


def test_ornstein_uhlenbeck_is_stationary() -> None:
    """The covariance rises towards the solution of A S + S A' + Q = 0, and S0 = S stays."""
    A, _, Q = matrices(OU, 0.5, 3)
    stationary = torch.from_numpy(solve_continuous_lyapunov(A, -Q))
    moments = OU.transitions((3,)).moments(T)
    stays = moments.transition @ stationary @ moments.transition.mT + moments.covariance
    torch.testing.assert_close(stays, stationary.expand_as(stays), rtol=LAW, atol=LAW)


def test_critically_damped_langevin() -> None:
    """Dockhorn et al. 2022: A = r [[0, 4], [-1, -4]] has a double root, so Phi = e^{-2 r t} (I + (A + 2 r I) t)."""
    r = examples.RATE * T
    decay = (-2 * r).exp()
    phi = torch.stack([1 + 2 * r, 4 * r, -r, 1 - 2 * r], dim=1).reshape(-1, 2, 2) * decay[:, None, None]
    moments = LANGEVIN.transitions((2,)).moments(T)
    torch.testing.assert_close(moments.transition, phi, rtol=LAW, atol=LAW)
    assert float(moments.offset.abs().max()) == 0.0
    # P = S - Phi S Phi' with S = diag(1, M) stationary; without cancellation where t is not small.
    stationary = torch.diag(torch.tensor([1.0, 1.0 / examples.MASS_INVERSE], dtype=torch.float64))
    torch.testing.assert_close(moments.covariance, stationary - phi @ stationary @ phi.mT, rtol=LAW, atol=LAW)


def test_noise_that_arrives_through_the_drift_keeps_its_digits() -> None:
    """The position's variance 1 - e^{-x} (1 + x + x^2 / 2), x = 4 r t, is an incomplete gamma function, x^3 / 6 ..."""
    t = torch.tensor([1e-7, 1e-5, 1e-3, 0.1, 1.0], dtype=torch.float64)
    mean, L = LANGEVIN.marginal(torch.zeros(5, 2, dtype=torch.float64), t)
    want = torch.from_numpy(gammainc(3, 4 * examples.RATE * t.numpy()))
    torch.testing.assert_close(L[:, 0, 0] ** 2, want, rtol=LAW, atol=0)
    assert torch.equal(mean, torch.zeros_like(mean))


def test_vp_as_a_general_process() -> None:
    vp = VP()
    moments = VP_AS_GENERAL.transitions((2,)).moments(T)
    torch.testing.assert_close(
        moments.transition, vp.alpha(T)[:, None, None] * torch.eye(2).double(), rtol=LAW, atol=LAW
    )
    torch.testing.assert_close(moments.covariance[:, 1, 1].sqrt(), vp.sigma(T), rtol=LAW, atol=0)
    x0, z = torch.linspace(-1, 1, 72, dtype=torch.float64).reshape(6, 3, 2, 2), torch.ones(6, 3, 2, 2).double()
    torch.testing.assert_close(VP_AS_GENERAL.perturb(x0, T, z), vp.perturb(x0, T, z), rtol=LAW, atol=LAW)
    target = -z / vp.sigma(T)[:, None, None, None]
    torch.testing.assert_close(VP_AS_GENERAL.score_target(T, z), target, rtol=LAW, atol=LAW)


# ---------------------------------------------------------------------------------------------------- varying


def test_coefficients_that_do_not_commute() -> None:
    """Against a high-order adaptive solver of the same moment equations."""
    D = 2

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        A, b, Q = matrices(SWINGING, t, D)
        phi, m, P = y[:4].reshape(2, 2), y[4:6], y[6:].reshape(2, 2)
        return np.concatenate([(A @ phi).ravel(), A @ m + b, (A @ P + P @ A.T + Q).ravel()])

    start = np.concatenate([np.eye(D).ravel(), np.zeros(D + D * D)])
    want = solve_ivp(rate, (0.0, 1.0), start, "DOP853", T[2:].numpy(), rtol=1e-12, atol=1e-13).y.T
    moments = SWINGING.transitions((2,)).moments(T[2:])
    have = np.concatenate([part.reshape(len(T) - 2, -1).numpy() for part in moments], axis=1)
    np.testing.assert_allclose(have, want, rtol=REFERENCE_SOLVER, atol=REFERENCE_SOLVER)


def test_steps_are_of_fourth_order() -> None:
    """Halving them divides the error by sixteen; without the commutator it would be four."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def end(steps: int) -> Tensor:
        moments = integrate(lambda t: SWINGING._coefficients(t, (2,)), zero, one, steps)
        return torch.cat([part.flatten() for part in moments])

    exact = torch.cat([part.flatten() for part in SWINGING.transitions((2,)).moments(one)])
    errors = [(end(n) - exact).abs().max() for n in (8, 16)]
    assert abs(math.log2(float(errors[0] / errors[1])) - 4) <= ORDER


@pytest.mark.parametrize("sde", [OU, LANGEVIN, SWINGING], ids=lambda s: s.drift.__name__)
def test_kernels_compose(sde: GeneralSDE) -> None:
    event = (3,) if sde is OU else (2,)
    transitions = sde.transitions(event)
    r, s, t = (torch.tensor([u, 0.1 * u], dtype=torch.float64) for u in (0.0, 0.06, 0.17))
    through, direct = transitions.kernel(s, t).after(transitions.kernel(r, s)), transitions.moments(t)
    for have, want in zip(through, direct, strict=True):
        torch.testing.assert_close(have, want, rtol=LAW, atol=LAW)
    standing = transitions.kernel(s, s)
    assert torch.equal(standing.transition, torch.eye(event[0]).double().expand(2, -1, -1))
    assert float(standing.covariance.abs().max()) == 0.0


# ---------------------------------------------------------------------------------------------------- training


def test_perturb_is_affine_with_the_covariance() -> None:
    x0 = torch.tensor([[0.3, -1.0]], dtype=torch.float64).expand(3, 2)
    t = torch.full((3,), 0.4, dtype=torch.float64)
    z = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    out = SWINGING.perturb(x0, t, z)
    moments = SWINGING.transitions((2,)).moments(t)
    torch.testing.assert_close(out[0], moments.transition[0] @ x0[0] + moments.offset[0], rtol=FLOAT64, atol=FLOAT64)
    columns = (out[1:] - out[0]).T
    torch.testing.assert_close(columns @ columns.T, moments.covariance[0], rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("sde", [OU, LANGEVIN, SWINGING], ids=lambda s: s.drift.__name__)
def test_the_target_is_the_score_of_the_kernel(sde: GeneralSDE) -> None:
    """grad log p(x_t | x_0) by autograd through torch's density; the weighted residual vanishes there."""
    D = 3 if sde is OU else 2
    x0 = torch.linspace(-1, 2, 4 * D, dtype=torch.float64).reshape(4, D)
    z, t = x0.flip(0).sin(), T[2:]
    moments = sde.transitions((D,)).moments(t)
    mean = (moments.transition @ x0[..., None])[..., 0] + moments.offset
    density = torch.distributions.MultivariateNormal(mean, moments.covariance)
    x = sde.perturb(x0, t, z).requires_grad_(True)
    (want,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    target = sde.score_target(t, z)
    torch.testing.assert_close(target, want, rtol=REFERENCE_SOLVER, atol=REFERENCE_SOLVER * float(want.abs().max()))
    residual = sde.weighted_residual(target, t, z)
    torch.testing.assert_close(residual, torch.zeros_like(z), rtol=0, atol=LAW)
    torch.testing.assert_close(sde.weighted_residual(torch.zeros_like(z), t, z), z, rtol=0, atol=0)


def test_float32() -> None:
    x0 = torch.linspace(-1, 1, 8).reshape(4, 2)
    z, t = x0.flip(0), T[2:].float()
    for name, arguments in (("perturb", (x0, t, z)), ("score_target", (t, z)), ("weighted_residual", (x0, t, z))):
        have = getattr(LANGEVIN, name)(*arguments)
        assert have.dtype == torch.float32
        want = getattr(LANGEVIN, name)(*(a.double() for a in arguments))
        torch.testing.assert_close(have.double(), want, rtol=FLOAT32, atol=FLOAT32)


def test_distributions_can_be_copied_and_pickled() -> None:
    """Data loaders and spawned ranks copy what they are given, distributions already computed included."""
    moments = copy.deepcopy(SWINGING).transitions((2,)).moments(T)
    there = pickle.loads(pickle.dumps(SWINGING)).transitions((2,)).moments(T)
    assert all(torch.equal(have, want) for have, want in zip(there, moments, strict=True))


# ---------------------------------------------------------------------------------------------------- reversal


@pytest.mark.parametrize("sde", [OU, LANGEVIN, SWINGING], ids=lambda s: s.drift.__name__)
@pytest.mark.parametrize("flow", [False, True], ids=["reverse", "flow"])
def test_gaussian_data_come_back(sde: GeneralSDE, flow: bool) -> None:
    """Data N(m, S), exact at t = 1, come back by the moment equations of the reverse drift or of the flow."""
    D, steps = (3 if sde is OU else 2), 400
    mean = torch.linspace(-1, 2, D, dtype=torch.float64)
    root = torch.linspace(0.3, 1.7, D * D, dtype=torch.float64).reshape(D, D).cos()
    S = root @ root.T + 0.1 * torch.eye(D, dtype=torch.float64)
    # The affine backward drift at every stage of Runge-Kutta, read off at the corners as the moment equations need it.
    t = torch.linspace(1.0, 0.0, 2 * steps + 1, dtype=torch.float64)
    moments = sde.transitions((D,)).moments(t)
    centre = (moments.transition @ mean) + moments.offset
    spread = moments.transition @ S @ moments.transition.mT + moments.covariance
    corners = torch.cat([torch.zeros(1, D), torch.eye(D)]).double()
    x = corners.repeat(len(t), 1)
    score = -torch.linalg.solve(spread.repeat_interleave(D + 1, 0), x - centre.repeat_interleave(D + 1, 0))
    backward = sde.flow_drift if flow else sde.reverse_drift
    drift = backward(x, t.repeat_interleave(D + 1), score).reshape(len(t), D + 1, D)
    A, b = (drift[:, 1:] - drift[:, :1]).mT, drift[:, 0]
    added = torch.zeros_like(A) if flow else squared(sde, t, D)

    def rate(k: int, m: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
        return A[k] @ m + b[k], A[k] @ P + P @ A[k].T - added[k]  # run backwards, noise adds variance as t falls

    m, P, h = centre[0], spread[0], -1.0 / steps
    for n in range(steps):
        m_1, P_1 = rate(2 * n, m, P)
        m_2, P_2 = rate(2 * n + 1, m + 0.5 * h * m_1, P + 0.5 * h * P_1)
        m_3, P_3 = rate(2 * n + 1, m + 0.5 * h * m_2, P + 0.5 * h * P_2)
        m_4, P_4 = rate(2 * n + 2, m + h * m_3, P + h * P_3)
        m, P = m + h / 6 * (m_1 + 2 * m_2 + 2 * m_3 + m_4), P + h / 6 * (P_1 + 2 * P_2 + 2 * P_3 + P_4)
    torch.testing.assert_close(m, mean, rtol=REVERSED, atol=REVERSED)
    torch.testing.assert_close(P, S, rtol=REVERSED, atol=REVERSED)
    assert float((spread[0] - S).abs().max()) > 1e3 * REVERSED


# ---------------------------------------------------------------------------------------------------- refusals


def still(x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(x)


def first_only(x: Tensor, t: Tensor) -> Tensor:
    g = torch.zeros_like(x)
    g[:, 0] = 1.0
    return g


def jumping(x: Tensor, t: Tensor) -> Tensor:
    return torch.where(t > 1 / 3, 5.0, -5.0)[:, None].to(x) * x


@pytest.mark.parametrize(("t", "words"), [(0.5, "t = 0.5: no noise has reached"), (0.0, "t = 0: no noise")])
def test_a_component_without_noise(t: float, words: str) -> None:
    sde: Any = GeneralSDE(still, first_only, "diagonal", affine=True, state_dependent=False)
    with pytest.raises(ValueError, match=words):
        sde.perturb(torch.zeros(2, 2), torch.tensor([t, t]), torch.zeros(2, 2))


def test_coefficients_that_jump() -> None:
    sde = GeneralSDE(jumping, examples.vp_diffusion, affine=True, state_dependent=False)
    with pytest.raises(ValueError, match="jumps in t"):
        sde.transitions((1,))
