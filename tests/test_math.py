"""Broadcasting, sums per example and divergences, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from scorefield._math import mean_event, norm_event, normal_log_prob, over_event, sum_event, value_and_divergence
from tolerance import FLOAT64, SIGNIFICANCE

EVENTS = [(), (3,), (2, 5), (2, 3, 4)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ per example


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_sums_leave_the_batch(batch: int, event: tuple[int, ...]):
    x = draw(batch, *event)
    rows = x.numpy().reshape(batch, int(np.prod(event)))
    np.testing.assert_allclose(sum_event(x), rows.sum(1), rtol=FLOAT64, atol=FLOAT64)
    np.testing.assert_allclose(mean_event(x), rows.mean(1), rtol=FLOAT64, atol=FLOAT64)
    np.testing.assert_allclose(norm_event(x), np.linalg.norm(rows, axis=1), rtol=FLOAT64)
    assert torch.equal(
        over_event(torch.arange(float(batch)), x) * torch.ones_like(x), torch.ones_like(x) * index_like(x)
    )


def index_like(x: Tensor) -> Tensor:
    return torch.arange(len(x), dtype=x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


@pytest.mark.parametrize("event", EVENTS)
def test_normal_log_prob_is_that_of_independent_normals(event: tuple[int, ...]):
    x, variance = draw(3, *event), torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64)
    rows = x.numpy().reshape(3, -1)
    expected = stats.norm.logpdf(rows, scale=np.sqrt(variance.numpy())[:, None]).sum(1)
    np.testing.assert_allclose(normal_log_prob(x, variance), expected, rtol=FLOAT64)
    np.testing.assert_allclose(normal_log_prob(x, 0.3)[0], expected[0], rtol=FLOAT64)
    assert normal_log_prob(x[:0], 0.3).shape == (0,)


# ------------------------------------------------------------------------------------------------ divergence

SHAPE = (2, 3)
SIZE = 6
MATRIX = draw(SIZE, SIZE, seed=1)  # asymmetric, of no special form
SHIFT = draw(SIZE, seed=2)


def linear(x: Tensor) -> Tensor:
    return (x.flatten(1) @ MATRIX.T + SHIFT).reshape(x.shape)


def curved(x: Tensor) -> Tensor:
    """tanh of a linear map, times x: neither diagonal, nor symmetric, nor free of divergence."""
    flat = x.flatten(1)
    return (torch.tanh(flat @ MATRIX.T) * flat).reshape(x.shape)


def curved_divergence(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    u = torch.tanh(flat @ MATRIX.T)
    return (u + (1 - u**2) * MATRIX.diagonal() * flat).sum(1)


def test_exact_divergence_is_the_trace():
    x = draw(4, *SHAPE, seed=3)
    value, divergence = value_and_divergence(linear, x, None)
    assert torch.equal(value, linear(x))
    np.testing.assert_allclose(divergence, MATRIX.trace().expand(4), rtol=FLOAT64)
    value, divergence = value_and_divergence(curved, x, None)
    assert torch.equal(value, curved(x))
    np.testing.assert_allclose(divergence, curved_divergence(x), rtol=FLOAT64)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_hutchinson_with_the_basis_is_exact(sign: float):
    x = draw(4, *SHAPE, seed=3)
    # e_d scaled by sqrt(D) has, over d, the identity as its mean outer product.
    basis = sign * SIZE**0.5 * torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, 1, *SHAPE).expand(-1, 4, -1, -1)
    value, divergence = value_and_divergence(curved, x, basis)
    assert torch.equal(value, curved(x))
    np.testing.assert_allclose(divergence, curved_divergence(x), rtol=FLOAT64)


def rademacher(*shape: int, seed: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def estimates_agree(probes: Tensor) -> bool:
    """Whether the mean of the estimates is the trace, given their known variance: sum over i < j of (A_ij + A_ji)^2."""
    _, divergence = value_and_divergence(linear, torch.zeros(probes.shape[1], *SHAPE, dtype=torch.float64), probes)
    symmetric = MATRIX + MATRIX.T
    variance = float(symmetric.square().sum() - symmetric.diagonal().square().sum()) / 2 / len(probes)
    z = (float(divergence.mean()) - float(MATRIX.trace())) / np.sqrt(variance / len(divergence))
    return bool(2 * stats.norm.sf(abs(z)) > SIGNIFICANCE)


def test_hutchinson_is_unbiased():
    probes = rademacher(4, 50_000, *SHAPE, seed=4)
    assert estimates_agree(probes)
    assert not estimates_agree(1.05 * probes)
    assert not estimates_agree(torch.cat([probes[..., :-1], probes[..., :1]], dim=-1))  # one coordinate never probed


def test_one_forward_pass_and_no_gradient_left_behind():
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return curved(x)

    x = draw(2, *SHAPE).requires_grad_(True)
    with torch.no_grad():
        value, divergence = value_and_divergence(counted, x, rademacher(3, 2, *SHAPE, seed=0))
    assert calls == 1
    assert not value.requires_grad and not divergence.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_a_field_that_does_not_depend_on_x_has_no_divergence(parameter: bool, exact: bool):
    shift = SHIFT.reshape(SHAPE).clone().requires_grad_(parameter)
    probes = None if exact else rademacher(2, 3, *SHAPE, seed=0)
    value, divergence = value_and_divergence(lambda x: shift.expand(x.shape), draw(3, *SHAPE), probes)
    assert torch.equal(value, shift.detach().expand(3, *SHAPE))
    assert torch.equal(divergence, torch.zeros(3, dtype=torch.float64))
