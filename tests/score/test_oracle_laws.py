"""Densities and samples of the oracles: quadrature in the plane, distributions of samples, brute-force posteriors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from score.laws import ORACLES, PROCESSES, BulkNoise, components, square
from scorefield.process import VE, Levels, Tabulated
from scorefield.score import oracles
from scorefield.score.oracles import Oracle
from tolerance import FLOAT64, ORACLE_SCORE, PLANE_QUADRATURE, SIGNIFICANCE

PROCESS = Tabulated(Levels((0.3, 0.6, 1.5), (1.0, 0.8, 0.4)))
TIMES = (0.0, 0.5, 1.0)
PLANE = {
    "Gaussian": lambda p: oracles.skewed_gaussian(p, 2),
    "Mixture": lambda p: oracles.skewed_mixture(p, 2),
    "Points": lambda p: oracles.skewed_points(p, 2),
    "GaussianField": lambda p: oracles.skewed_field(p, (1, 2)),
}
IN_THE_PLANE = pytest.mark.parametrize("make", PLANE.values(), ids=PLANE)
A = torch.tensor([[0.8, -0.5]], dtype=torch.float64)
Y = torch.tensor([0.4], dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ quadrature


@IN_THE_PLANE
@pytest.mark.parametrize("t", TIMES)
def test_density_integrates_to_one_with_the_stated_moments(make, t) -> None:
    oracle = make(PROCESS)
    x, cell = square(14.0, 281)
    p = oracle.log_prob(x.reshape(-1, *oracle.shape), t).exp() * cell
    mean, covariance = oracle.moments(t)
    assert abs(float(p.sum()) - 1.0) <= PLANE_QUADRATURE
    assert torch.allclose(p @ x, mean.reshape(-1), atol=PLANE_QUADRATURE)
    centred = x - p @ x
    assert torch.allclose(centred.T @ (p[:, None] * centred), covariance, atol=PLANE_QUADRATURE)


@IN_THE_PLANE
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("observed", [False, True])
def test_marginal_score_and_posterior_mean_by_quadrature_over_x0(make, t, observed) -> None:
    """p_t(x) = int p(x_0 | y) N(x; alpha x_0, sigma^2 I) dx_0, brute force, with and without an observation y."""
    oracle = make(PROCESS)
    if isinstance(oracle, oracles.Points):
        x0, log_p0 = oracle.points.reshape(-1, 2), oracle.log_weights
    else:
        x0, cell = square(7.0, 281)
        log_p0 = oracle.log_prob(x0.reshape(-1, *oracle.shape)) + math.log(cell)
    if observed:
        log_p0 = log_p0 - 0.5 * ((Y - x0 @ A.T) ** 2).sum(1) / 0.3**2
        log_p0 = log_p0 - log_p0.logsumexp(0)
        oracle = oracle.posterior(A, Y, 0.3)
    sigma = float(PROCESS.sigma(torch.tensor([t], dtype=torch.float64)))
    alpha = float(PROCESS.alpha(torch.tensor([t], dtype=torch.float64)))
    x = torch.tensor([[0.3, -0.2], [1.5, 1.0], [-1.0, 0.4]], dtype=torch.float64)
    log_joint = log_p0 - 0.5 * ((x[:, None] - alpha * x0) ** 2).sum(2) / sigma**2 - math.log(2 * math.pi * sigma**2)
    log_p = log_joint.logsumexp(1)
    mean = (log_joint - log_p[:, None]).exp() @ x0
    shaped, at = x.reshape(-1, *oracle.shape), torch.full((3,), t, dtype=torch.float64)
    assert torch.allclose(oracle.log_prob(shaped, at), log_p, atol=PLANE_QUADRATURE)
    assert torch.allclose(oracle.denoised(shaped, at).flatten(1), mean, atol=PLANE_QUADRATURE)
    assert torch.allclose(
        oracle(shaped, at).flatten(1), (alpha * mean - x) / sigma**2, atol=PLANE_QUADRATURE / sigma**2
    )


# ------------------------------------------------------------------------------------------------ posteriors


NOISES = {
    "one std": {"noise_std": 0.3},
    "std per row": {"noise_std": torch.tensor([0.3, 0.05, 1.0], dtype=torch.float64)},
    "covariance": {"noise_covariance": torch.tensor([[0.2, 0.1, 0.0], [0.1, 0.3, -0.1], [0.0, -0.1, 0.1]])},
}


def _operator(oracle: Oracle, rows: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).standard_normal((rows, *oracle.shape)))


@pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_bayes_identity(make, noise) -> None:
    """p(x | y) p(y) = p(x) p(y | x), at every x, for the normalised densities."""
    oracle = make(VE())
    operator, y = _operator(oracle, 3), torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64)
    posterior, evidence = oracle.posterior(operator, y, **noise), oracle.log_evidence(operator, y, **noise)
    assert isinstance(posterior, Oracle) and posterior.process is oracle.process
    R = noise.get("noise_covariance")
    R = torch.diag((torch.ones(3, dtype=torch.float64) * noise["noise_std"]) ** 2) if R is None else R
    likelihood = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), R.double())
    if isinstance(oracle, oracles.Points):
        assert isinstance(posterior, oracles.Points)
        log_joint = oracle.log_weights + likelihood.log_prob(y - oracle.points.flatten(1) @ operator.flatten(1).T)
        assert torch.allclose(posterior.log_weights + evidence, log_joint, rtol=ORACLE_SCORE)
        assert torch.equal(posterior.points, oracle.points)
        assert torch.equal(posterior.class_log_prob(oracle.points, 0.0).argmax(1), torch.arange(7) % 2)
        return
    x = oracle.sample(6, seed=8)
    log_joint = oracle.log_prob(x) + likelihood.log_prob(y - x.flatten(1) @ operator.flatten(1).T)
    assert torch.allclose(posterior.log_prob(x) + evidence, log_joint, rtol=ORACLE_SCORE, atol=ORACLE_SCORE)


def test_field_posterior_is_that_of_the_information_form() -> None:
    """Covariance (C^-1 + A' R^-1 A)^-1, mean V (C^-1 m + A' R^-1 y): another formula than the code's."""
    field = oracles.skewed_field(VE())
    operator, y = _operator(field, 20), torch.linspace(-1, 1, 20, dtype=torch.float64)
    mean, C = field.data_moments()
    M = operator.flatten(1)
    V = torch.linalg.inv(torch.linalg.inv(C) + M.T @ M / 0.2**2)
    expected = V @ (torch.linalg.solve(C, mean.reshape(-1)) + M.T @ y / 0.2**2)
    found_mean, found_covariance = field.posterior(operator, y, 0.2).data_moments()
    assert torch.allclose(found_mean.reshape(-1), expected, atol=ORACLE_SCORE)
    assert torch.allclose(found_covariance, V, atol=ORACLE_SCORE)


def test_filtered_posterior_is_the_dense_one() -> None:
    field = oracles.skewed_field(VE(), (2, 4, 6))
    kernel = torch.zeros(4, 6, dtype=torch.float64)
    kernel[0, 0], kernel[0, 1], kernel[0, -1], kernel[1, 0], kernel[-1, 0] = 0.4, 0.2, 0.2, 0.1, 0.1
    transfer = torch.fft.fftn(kernel).real
    eye = torch.eye(48, dtype=torch.float64).reshape(48, 2, 4, 6)
    operator = torch.fft.ifftn(torch.fft.fftn(eye, dim=(2, 3)) * transfer, dim=(2, 3)).real.reshape(48, 48).T
    y = field.sample(1, seed=4)[0]
    fast, dense = field.filtered_posterior(transfer, y, 0.3), field.posterior(operator, y, 0.3)
    for ours, theirs in zip(fast.data_moments(), dense.data_moments(), strict=True):
        assert torch.allclose(ours, theirs, atol=ORACLE_SCORE)
    assert not torch.equal(fast.mean, field.mean) and isinstance(fast, oracles.GaussianField)
    with pytest.raises(ValueError, match="noise_std must be positive"):
        field.filtered_posterior(transfer, y, 0.0)
    with pytest.raises(ValueError, match="even"):
        field.filtered_posterior(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), y, 0.1)


def test_exact_observations_hold_exactly() -> None:
    gaussian = oracles.skewed_gaussian(VE(), 4)
    operator = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    posterior = gaussian.posterior(operator, torch.tensor([0.7, -0.2]), 0.0)
    seen = posterior.sample(20, seed=3) @ operator.T
    assert float((seen - torch.tensor([0.7, -0.2], dtype=torch.float32).double()).abs().max()) <= 1e3 * FLOAT64
    mixture = oracles.skewed_mixture(VE(), 4).posterior(operator, torch.tensor([0.7, -0.2]), 0.0)
    assert mixture.sample(20).shape == (20, 4)


def test_two_observations_are_one() -> None:
    """Conditioning twice is conditioning on both: mixtures carry their weights along."""
    for make in (oracles.skewed_gaussian, oracles.skewed_mixture, oracles.skewed_points):
        oracle = make(PROCESS)
        rows = torch.tensor([[1.0, 0.5], [-0.3, 1.0]], dtype=torch.float64)
        y = torch.tensor([0.2, 0.9], dtype=torch.float64)
        once = oracle.posterior(rows, y, 0.4)
        twice = oracle.posterior(rows[:1], y[:1], 0.4).posterior(rows[1:], y[1:], 0.4)
        x = oracle.sample(4, 0.5)
        t = torch.full((4,), 0.5, dtype=torch.float64)
        assert torch.allclose(once(x, t), twice(x, t), rtol=ORACLE_SCORE, atol=ORACLE_SCORE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(1, 3), torch.ones(1), 0.1), "does not map"),
        ((torch.ones(2, 2), torch.ones(1), 0.1), "does not map"),
        ((torch.ones(1, 2), torch.ones(1)), "either noise_std"),
        ((torch.ones(2, 2), torch.ones(2), torch.ones(3)), "3 numbers for 2"),
        ((torch.ones(2, 2), torch.ones(2), 0.0), "singular"),
    ],
)
def test_refused_observations(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        oracles.skewed_gaussian(VE()).posterior(*arguments)


def test_point_masses_need_noise_in_their_observation() -> None:
    with pytest.raises(ValueError, match="noise_std > 0"):
        oracles.skewed_points(VE()).posterior(torch.ones(1, 2), torch.ones(1), 0.0)
    with pytest.raises(ValueError, match=r"must have shape \(1, 1\)"):
        oracles.skewed_points(VE()).posterior(torch.ones(1, 2), torch.ones(1), noise_covariance=torch.eye(2))


# ------------------------------------------------------------------------------------------------ samples


DIRECTIONS = (
    lambda oracle: torch.cos(1.7 * torch.arange(oracle.dimension, dtype=torch.float64)).reshape(oracle.shape),
    lambda oracle: torch.sin(0.9 * torch.arange(oracle.dimension, dtype=torch.float64) + 1.0).reshape(oracle.shape),
)


def _p_value(oracle: Oracle, x: torch.Tensor, alpha: float, sigma: float) -> float:
    """Kolmogorov-Smirnov of two projections against their exact distributions, Bonferroni-corrected."""
    weights, means, covariances = components(oracle)
    smallest = 1.0
    for direction in DIRECTIONS:
        a = direction(oracle).reshape(-1)
        centres = (alpha * means @ a).numpy()
        widths = (alpha**2 * torch.einsum("i,kij,j->k", a, covariances, a) + sigma**2 * a @ a).sqrt().numpy()

        def cdf(v, centres=centres, widths=widths):
            return (weights.numpy() * special.ndtr((v[:, None] - centres) / widths)).sum(1)

        smallest = min(smallest, float(stats.kstest((x.flatten(1) @ a).numpy(), cdf, method="asymp").pvalue))
    return 2.0 * smallest


SMALL = PLANE | {"GaussianField": lambda p: oracles.skewed_field(p, (2, 2, 3))}


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("t", [None, 0.5])
def test_samples_have_the_exact_distribution(make, t) -> None:
    oracle = make(PROCESS)
    at = torch.tensor([0.0 if t is None else t], dtype=torch.float64)
    alpha, sigma = (1.0, 0.0) if t is None else (float(PROCESS.alpha(at)), float(PROCESS.sigma(at)))
    x = oracle.sample(60_000, t, noise=BulkNoise(11))
    if t is None and isinstance(oracle, oracles.Points):  # a discrete law: counts
        counts = (x[:, None] == oracle.points).all(2).sum(0).numpy()
        expected = oracle.weights.numpy() * len(x)
        mutant = np.full(len(counts), len(x) / len(counts))
        assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > SIGNIFICANCE
        assert stats.chisquare(counts, mutant).pvalue < SIGNIFICANCE
        return
    assert _p_value(oracle, x, alpha, sigma) > SIGNIFICANCE
    # Mutants: noise times 1.05; a mean off by a twentieth of the standard deviation.
    assert _p_value(oracle, oracle.sample(60_000, t, noise=BulkNoise(11, 1.05)), alpha, sigma) < SIGNIFICANCE
    assert _p_value(oracle, x + 0.05 * x.std(0) * DIRECTIONS[0](oracle), alpha, sigma) < SIGNIFICANCE


def test_default_noise_samples_the_same_law() -> None:
    oracle = oracles.skewed_mixture(PROCESSES["VE"])
    t = torch.tensor([0.5], dtype=torch.float64)
    sigma = float(oracle.process.sigma(t))
    assert _p_value(oracle, oracle.sample(6000, 0.5, seed=1), 1.0, sigma) > SIGNIFICANCE


def test_conditional_samples_have_the_conditional_distribution() -> None:
    oracle = oracles.skewed_mixture(PROCESS)
    ones = {"class": torch.ones(40_000, dtype=torch.int64)}
    x = oracle.sample(40_000, 0.5, condition=ones, noise=BulkNoise(5))
    weights, means, covariances = components(oracle)
    keep = oracle.labels == 1
    part = oracles.Mixture(PROCESS, weights[keep], means[keep], covariances[keep])
    at = torch.tensor([0.5], dtype=torch.float64)
    scales = float(PROCESS.alpha(at)), float(PROCESS.sigma(at))
    assert _p_value(part, x, *scales) > SIGNIFICANCE
    assert _p_value(oracle, x, *scales) < SIGNIFICANCE
