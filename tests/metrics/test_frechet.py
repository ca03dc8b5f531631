"""Frechet distance against closed forms, SciPy's matrix root, and formulas that only look right."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scorefield.metrics import (
    FrechetDistance,
    FrechetInfinity,
    Moments,
    RawFeatures,
    Reference,
    frechet_distance,
    measure,
)
from scorefield.metrics import coupling as coupling_module
from scorefield.metrics.coupling import coupling
from scorefield.metrics.frechet import influence, moments
from tolerance import FLOAT64, FRECHET, FRECHET_NEAR_ZERO, MOMENTS_FAR_AWAY

ZERO = torch.zeros(2, dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def covariance(seed: int, size: int, rank: int | None = None) -> Tensor:
    root = normal(seed, size, rank or 2 * size)
    return root @ root.mT / root.shape[1]


def rotation(seed: int, size: int) -> Tensor:
    return torch.linalg.qr(normal(seed, size, size)).Q


def close(value: float, wanted: float, size: float = 1.0, tolerance: float = FRECHET) -> bool:
    return abs(value - wanted) <= tolerance * max(size, abs(wanted))


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(0, 50))
def test_covariances_with_the_same_axes_have_a_closed_form(size: int, seed: int) -> None:
    mean_a, mean_b = normal(seed, size), normal(seed + 1, size)
    a, b = normal(seed + 2, size).square(), normal(seed + 3, size).square()
    turn = rotation(seed + 4, size)
    wanted = float((mean_a - mean_b).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    rotated = [turn @ torch.diag(v) @ turn.mT for v in (a, b)]
    for s_a, s_b in ((torch.diag(a), torch.diag(b)), rotated):
        assert close(frechet_distance(mean_a, s_a, mean_b, s_b), wanted, float(a.sum() + b.sum()))


def in_two_dimensions(s_a: Tensor, s_b: Tensor) -> float:
    """The roots of a 2 x 2 matrix M have tr M^(1/2) = (tr M + 2 det(M)^(1/2))^(1/2)."""
    cross = torch.sqrt(torch.trace(s_a @ s_b) + 2 * torch.sqrt(torch.det(s_a) * torch.det(s_b)))
    return float(torch.trace(s_a) + torch.trace(s_b) - 2 * cross)


@settings(max_examples=25)
@given(st.integers(0, 100))
def test_two_dimensions_with_different_axes_have_a_closed_form(seed: int) -> None:
    s_a, s_b = covariance(seed, 2), covariance(seed + 1000, 2)
    value = frechet_distance(ZERO, s_a, ZERO, s_b)
    assert close(value, in_two_dimensions(s_a, s_b), float(torch.trace(s_a + s_b)))


def test_the_formula_for_commuting_covariances_is_rejected_by_that_closed_form() -> None:
    s_a, s_b = covariance(0, 2), covariance(1000, 2)
    wanted = in_two_dimensions(s_a, s_b)
    # |S_a^(1/2) - S_b^(1/2)|^2 is right only for commuting covariances.
    roots = [torch.from_numpy(np.real(scipy.linalg.sqrtm(s.numpy()))) for s in (s_a, s_b)]
    mutant = float((roots[0] - roots[1]).square().sum())
    assert not close(mutant, wanted, float(torch.trace(s_a + s_b)))


@pytest.mark.parametrize("size", [1, 3, 24])
def test_agrees_with_the_matrix_square_root_of_scipy(size: int) -> None:
    mean_a, mean_b, s_a, s_b = normal(1, size), normal(2, size), covariance(3, size), covariance(4, size)
    root = np.real(scipy.linalg.sqrtm((s_a @ s_b).numpy()))
    wanted = float((mean_a - mean_b).square().sum() + torch.trace(s_a + s_b)) - 2 * float(np.trace(root))
    assert close(frechet_distance(mean_a, s_a, mean_b, s_b), wanted, float(torch.trace(s_a + s_b)))


@settings(max_examples=25)
@given(st.integers(0, 50))
def test_rank_one_covariances_have_a_closed_form(seed: int) -> None:
    u, v = normal(seed, 6), normal(seed + 7, 6)
    wanted = float(u @ u + v @ v - 2 * (u @ v).abs())
    zero = torch.zeros(6, dtype=torch.float64)
    value = frechet_distance(zero, torch.outer(u, u), zero, torch.outer(v, v))
    # Eigenvalues below rounding count as zero, and a root of 1e-16 is 1e-8, so the bound is on the scale of the roots.
    assert close(value, wanted, float(u @ u + v @ v))


@pytest.mark.parametrize("rank", [1, 5, 40])
def test_zero_for_equal_arguments_and_never_negative_also_where_singular(rank: int) -> None:
    s = covariance(5, 20, rank)
    mean = normal(6, 20)
    assert 0.0 <= frechet_distance(mean, s, mean, s) <= FLOAT64 * float(torch.trace(s))
    near = s + 1e-15 * covariance(7, 20)
    assert frechet_distance(mean, s, mean, near) >= 0.0


def test_tiny_distances_keep_their_digits_and_the_textbook_formula_does_not() -> None:
    size, change = 8, 1e-9
    s, zero = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    wanted = size * (np.sqrt(1 + change) - 1) ** 2
    assert abs(frechet_distance(zero, s, zero, (1 + change) * s) - wanted) <= FRECHET_NEAR_ZERO * wanted
    textbook = 2 * size + size * change - 2 * size * np.sqrt(1 + change)
    assert abs(textbook - wanted) > FRECHET_NEAR_ZERO * wanted


@settings(max_examples=25)
@given(st.integers(0, 30), st.floats(0.1, 10))
def test_symmetric_and_equivariant(seed: int, factor: float) -> None:
    size = 5
    mean_a, mean_b = normal(seed, size), normal(seed + 1, size)
    s_a, s_b = covariance(seed + 2, size), covariance(seed + 3, size, 3)
    d = frechet_distance(mean_a, s_a, mean_b, s_b)
    assert close(frechet_distance(mean_b, s_b, mean_a, s_a), d)
    turn = rotation(seed, size)
    turned = frechet_distance(turn @ mean_a, turn @ s_a @ turn.mT, turn @ mean_b, turn @ s_b @ turn.mT)
    assert close(turned, d)
    assert close(frechet_distance(factor * mean_a, factor**2 * s_a, factor * mean_b, factor**2 * s_b), factor**2 * d)


def test_moments_are_those_of_numpy_also_far_from_zero() -> None:
    rows = normal(8, 300, 4) + 1e7
    moments = Moments()
    for part in rows.split(47):
        moments.update(part)
    centred = rows.numpy() - rows.numpy().mean(axis=0)
    assert moments.count == 300
    assert np.allclose(moments.mean.numpy(), rows.numpy().mean(axis=0), rtol=FLOAT64)
    assert np.allclose(moments.covariance.numpy(), np.cov(centred.T), atol=MOMENTS_FAR_AWAY)


def test_the_metric_is_the_distance_of_the_fitted_gaussians() -> None:
    real, fake = normal(9, 100, 2, 3), 1.3 * normal(10, 80, 2, 3) + 0.2
    result = measure(FrechetDistance(RawFeatures(), Reference(real, name="real")), fake, batch_size=33)
    a, b = fake.reshape(80, 6), real.reshape(100, 6)
    wanted = frechet_distance(a.mean(0), torch.cov(a.mT), b.mean(0), torch.cov(b.mT))
    assert close(float(result), wanted)
    assert result.value.status == "ok" and result.value.warnings == ()
    parts = result.value.details
    assert close(parts["mean term"], float((a.mean(0) - b.mean(0)).square().sum()))
    assert close(parts["mean term"] + parts["covariance term"], wanted)


@pytest.mark.parametrize(("samples", "examples", "what"), [(6, 50, "samples"), (50, 6, "reference examples")])
def test_fewer_examples_than_features_are_flagged(samples: int, examples: int, what: str) -> None:
    metric = FrechetDistance(RawFeatures(), Reference(normal(11, examples, 6), name="real"))
    value = measure(metric, normal(12, samples, 6)).value
    assert value.status == "singular"
    (warning,) = value.warnings
    assert f"only 6 {what} for 6 features" in warning and "singular" in warning and "more than 6" in warning


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least two reference examples"):
        FrechetDistance(RawFeatures(), Reference(normal(0, 1, 3), name="one"))
    metric = FrechetDistance(RawFeatures(), Reference(normal(0, 9, 3), name="real"))
    metric.update(normal(1, 1, 3))
    with pytest.raises(ValueError, match="needs at least 2 samples and has seen 1"):
        metric.compute()
    with pytest.raises(ValueError, match=r"covariance_b has shape \(3, 3\)"):
        frechet_distance(ZERO, torch.eye(2), ZERO, torch.eye(3))
    with pytest.raises(ValueError, match="eigenvalue"):
        frechet_distance(ZERO, torch.diag(torch.tensor([1.0, -1.0])), ZERO, torch.eye(2))


@pytest.mark.parametrize(("size", "smallest"), [(1, 1.0), (5, 1e-3), (40, 1e-9), (40, 0.0)])
def test_both_ways_to_couple_two_gaussians_agree(size: int, smallest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = rotation(20, size)
    s_a = turn @ torch.diag(torch.logspace(0, np.log10(smallest or 1.0), size, dtype=torch.float64)) @ turn.mT
    if smallest == 0:
        s_a = covariance(21, size, size // 2)
    s_b = covariance(22, size)
    fast = coupling(s_a, s_b)
    monkeypatch.setattr(coupling_module, "SINGULAR", 2.0)
    slow = coupling(s_a, s_b)
    assert fast.regular == (smallest > 0) and not slow.regular
    assert close(fast.squared(), slow.squared(), float(torch.trace(s_a + s_b)))
    for found in (fast, slow):
        assert float((found.root_a @ found.root_a.mT - s_a).abs().max()) <= FRECHET
        assert float((found.root_b @ found.root_b.mT - s_b).abs().max()) <= FRECHET
        back = found.reversed().transport()  # from b, which is regular in every case
        assert float((back @ s_b @ back - s_a).abs().max()) <= FRECHET
        assert float((back - back.mT).abs().max()) <= FRECHET * float(back.abs().max())


@pytest.mark.parametrize("constant", [False, True])
def test_the_influence_of_a_row_is_the_derivative_of_the_distance(constant: bool) -> None:
    a, b = normal(13, 40, 3) @ normal(14, 3, 3) + 0.3, normal(15, 30, 3)
    if constant:  # a feature that never varies, as a pixel that is always black
        a[:, 2], b[:, 2] = 0.5, 0.5
    own, other = moments(a), moments(b)
    other_shares = torch.full((40,), 1 / 40, dtype=torch.float64)

    def distance(shares: Tensor) -> float:
        """Of weighted rows, normalised as the unbiased covariance."""
        mean = shares @ a
        scatter = (shares[:, None] * (a - mean)).mT @ (a - mean) * (40 / 39)
        return frechet_distance(mean, scatter, other.mean, other.covariance)

    step, found = 1e-5, influence(a, own, other)
    for i in (0, 7, 39):
        towards = torch.eye(40, dtype=torch.float64)[i] - other_shares
        slope = (distance(other_shares + step * towards) - distance(other_shares - step * towards)) / (2 * step)
        # The covariance of n rows is n / (n - 1) times that of their law, and the influence has no such factor.
        assert abs(slope - float(found[i] - found.mean())) <= 0.05 * float(found.std())
    mutant = influence(a, own, moments(2.0 * b))
    assert float((mutant - mutant.mean() - found + found.mean()).abs().max()) > 0.05 * float(found.std())


def test_extrapolated_distance_is_right_where_the_plain_one_is_biased() -> None:
    """Known distance: N(0, 1) against N(0.1, 1.2^2) in 20 features, 20 replicates of 300."""
    size, wanted = 20, 20 * (0.1**2 + 0.2**2)
    plain, extrapolated, inside = [], [], 0
    for seed in range(20):
        real = Reference(normal(100 + seed, 300, size), name="normal")
        value = measure(
            FrechetInfinity(RawFeatures(), real, halvings=1), 0.1 + 1.2 * normal(200 + seed, 300, size)
        ).value
        assert value.interval is not None
        inside += value.interval[0] <= wanted <= value.interval[1]
        extrapolated.append(value.number)
        plain.append(value.details["distance at this N"])

    def deviation(values: list[float]) -> float:
        v = torch.tensor(values, dtype=torch.float64)
        return float((v.mean() - wanted) / (v.std() / len(v) ** 0.5))

    assert abs(deviation(extrapolated)) < 7.4  # two-sided 1e-6 of Student's law with 19 degrees of freedom
    assert deviation(plain) > 7.4
    assert inside >= 12  # P(Binomial(20, 0.95) < 12) < 1e-6


def test_extrapolation_is_richardsons_and_the_reference_may_be_the_population() -> None:
    real, fake = Reference(normal(16, 60, 2), name="real"), normal(17, 50, 2)
    metric = FrechetInfinity(RawFeatures(), real, reference_is="population")
    value = measure(metric, fake).value
    whole = measure(FrechetDistance(RawFeatures(), real), fake).value
    assert close(value.details["distance at this N"], whole.number)
    assert value.number < whole.number
    assert metric.settings()["reference is"] == "population"
    with pytest.raises(ValueError, match="cannot merge"):
        metric.merge(FrechetInfinity(RawFeatures(), real))
    few = measure(FrechetInfinity(RawFeatures(), Reference(normal(18, 60, 9), name="r")), normal(19, 18, 9)).value
    assert few.status == "singular" and few.interval is None and "only 9 samples for 9 features" in few.warnings[0]
    with pytest.raises(ValueError, match="halvings=0"):
        FrechetInfinity(RawFeatures(), real, halvings=0)
