"""Exact scores: against automatic differentiation, Tweedie, the Fokker-Planck equation and each other."""

from __future__ import annotations

import math

import pytest
import torch

from score.laws import ORACLES, PROCESSES, components, concrete, naive_log_prob, over, times
from scorefield._math import sum_event, value_and_divergence
from scorefield.process import VE, Levels, Tabulated
from scorefield.score import oracles
from scorefield.score.oracles import Oracle
from tolerance import FLOAT32, FLOAT64, FOKKER_PLANCK, ORACLE_SCORE, SMALL_SIGMA

EACH_ORACLE = pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
EACH_PROCESS = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def test_every_oracle_has_an_example() -> None:
    assert set(oracles.EXAMPLES) == set(concrete(Oracle))


@EACH_ORACLE
@EACH_PROCESS
def test_score_is_the_gradient_of_the_log_density(make, process) -> None:
    oracle = make(process)
    t = times(process, 12)
    x = oracle.sample(12, t, seed=3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
    score = oracle(x, t)
    scale = score.detach().flatten(1).norm(dim=1) + 1.0
    assert bool(((score - gradient).flatten(1).norm(dim=1) <= ORACLE_SCORE * scale).all())


@EACH_ORACLE
@EACH_PROCESS
def test_denoised_is_tweedie(make, process) -> None:
    oracle = make(process)
    t = times(process, 12)
    x = oracle.sample(12, t, seed=4)
    by_score = Oracle.__mro__[1].denoised(oracle, x, t)  # Score.denoised, (x + sigma^2 score) / alpha
    # Tweedie divides by alpha, which the exact form does not: its rounding grows as 1 / alpha.
    bound = ORACLE_SCORE * (1.0 + over(x.flatten(1).norm(dim=1) / process.alpha(t), x))
    assert bool(((oracle.denoised(x, t) - by_score).abs() <= bound).all())


@EACH_ORACLE
@EACH_PROCESS
def test_log_density_by_components(make, process) -> None:
    oracle = make(process)
    for t in times(process, 4):
        x = oracle.sample(5, float(t), seed=5)
        alpha, sigma = float(process.alpha(t[None])), float(process.sigma(t[None]))
        naive = naive_log_prob(oracle, x.flatten(1), alpha, sigma)
        assert torch.allclose(oracle.log_prob(x, float(t)), naive, rtol=ORACLE_SCORE, atol=ORACLE_SCORE)


@EACH_ORACLE
@pytest.mark.parametrize("name", ["VE", "VP", "SubVP", "ladder"])
def test_fokker_planck(make, name) -> None:
    """d log p / dt = g^2 (div s + |s|^2) / 2 - f (D + x s): the density moves as the process says."""
    process = PROCESSES[name]
    oracle = make(process)
    t = torch.tensor([0.21, 0.48, 0.83], dtype=torch.float64)
    x = oracle.sample(3, t, seed=6)
    moving = t.clone().requires_grad_(True)
    (rate,) = torch.autograd.grad(oracle.log_prob(x, moving).sum(), moving)
    score, divergence = value_and_divergence(lambda y: oracle(y, t), x, None)
    f, g2 = process.log_alpha_rate(t), process.diffusion_squared(t)
    expected = 0.5 * g2 * (divergence + sum_event(score**2)) - f * (oracle.dimension + sum_event(x * score))
    assert torch.allclose(rate, expected, rtol=FOKKER_PLANCK, atol=FOKKER_PLANCK)


@EACH_ORACLE
def test_answers_have_the_dtype_of_x(make) -> None:
    oracle = make(VE())
    t = times(oracle.process, 6)
    x = oracle.sample(6, t, dtype=torch.float32)
    assert oracle(x, t).dtype == oracle.denoised(x, t).dtype == oracle.log_prob(x, t).dtype == torch.float32
    exact = oracle.denoised(x.double(), t)
    for at in (t, t.float()):
        assert torch.allclose(oracle.denoised(x, at).double(), exact, rtol=FLOAT32, atol=FLOAT32)


@EACH_ORACLE
def test_examples_are_independent(make) -> None:
    oracle = make(VE(0.01, 5.0))
    t = times(oracle.process, 8)
    x = oracle.sample(8, t)
    order = torch.tensor([5, 2, 7, 0])
    for function in (oracle.__call__, oracle.denoised, oracle.log_prob):
        some, whole = function(x[order], t[order]), function(x, t)[order]
        assert torch.allclose(some, whole, rtol=ORACLE_SCORE, atol=ORACLE_SCORE)
    assert oracle(x[:0], t[:0]).shape == (0, *oracle.shape)


@EACH_ORACLE
def test_samples_are_a_function_of_seed_and_index(make) -> None:
    oracle = make(VE())
    whole = oracle.sample(6, 0.4, seed=9)
    assert torch.equal(oracle.sample(2, 0.4, seed=9, start=3), whole[3:5])
    assert not torch.allclose(oracle.sample(6, 0.4, seed=10), whole)
    data = oracle.sample(6, seed=9)
    low, high = oracle.process.sigma(torch.tensor([0.4, 0.9], dtype=torch.float64))
    again = data + high * (whole - data) / low
    assert torch.allclose(oracle.sample(6, 0.9, seed=9), again, rtol=FLOAT64, atol=FLOAT64)


@EACH_ORACLE
def test_same_law_under_another_process(make) -> None:
    oracle = make(PROCESSES["VE"])
    other = oracle.under(PROCESSES["VP"])
    direct = make(PROCESSES["VP"])
    x = oracle.sample(3, 0.3)
    t = torch.full((3,), 0.3, dtype=torch.float64)
    assert torch.equal(other(x, t), direct(x, t)) and oracle.process is PROCESSES["VE"]


# ------------------------------------------------------------------------------------------------ tiny noise


@pytest.mark.parametrize("sigma", [1e-4, 1e-8, 1e-12])
@EACH_ORACLE
def test_denoised_is_accurate_at_tiny_sigma(make, sigma) -> None:
    """E[x_0 | x_t] = x + sigma^2 score where p_0 has a density, and exactly the nearest point where it is points."""
    process = Tabulated(Levels((sigma, 1.0)))
    oracle = make(process)
    x0, t = oracle.sample(4, seed=2), torch.zeros(4, dtype=torch.float64)
    x = oracle.sample(4, t, seed=2)
    denoised = oracle.denoised(x, t)
    if isinstance(oracle, oracles.Points):
        assert torch.allclose(denoised, x0, rtol=FLOAT64, atol=FLOAT64)
    else:
        smallest = float(torch.linalg.eigvalsh(components(oracle)[2]).min())
        expected = x + sigma**2 * oracle(x0, t)
        # From x0 to x the score changes by at most |x - x0| / (smallest variance).
        bound = SMALL_SIGMA + 2 * sigma**2 * (x - x0).flatten(1).norm(dim=1) / smallest
        assert bool(((denoised - expected).flatten(1).norm(dim=1) <= bound).all())
    in_float32 = oracle.denoised(x.float(), t)
    assert bool(((in_float32 - x0.float()).abs() <= 10 * sigma + FLOAT32).all())


def test_directions_without_variance_stay_at_the_mean() -> None:
    U, _ = torch.linalg.qr(torch.tensor([[1.0, 2.0, 0.3], [0.5, -1.0, 0.7], [2.0, 0.1, 1.0]], dtype=torch.float64))
    covariance = (U * torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)) @ U.T
    mean = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    for sigma in (1e-1, 1e-6, 1e-12):
        process = Tabulated(Levels((sigma, 1.0)))
        oracle = oracles.Gaussian(process, mean, covariance)
        x = oracle.sample(5, 0.0, seed=1)
        off = (oracle.denoised(x, torch.zeros(5)) - mean) @ U[:, 0]
        assert float(off.abs().max()) <= FLOAT64
    with pytest.raises(ValueError, match="no density"):
        oracle.log_prob(x)


# ------------------------------------------------------------------------------------------------ fields


@pytest.mark.parametrize("shape", [(1, 7), (2, 8), (1, 4, 6), (3, 5, 4), (1, 3, 4, 2)])
def test_field_covariance_is_stationary_and_of_the_given_spectrum(shape) -> None:
    """Correlations depend on (periodic) differences alone, and their Fourier transform is the spectrum."""
    field = oracles.skewed_field(VE(), shape)
    _, C = field.data_moments()
    C = C.reshape(shape[0], -1, shape[0], C.shape[1] // shape[0])
    sizes, axes = shape[1:], tuple(range(1, len(shape)))
    index = torch.arange(C.shape[1]).reshape(sizes)
    for shift in [(1,) * len(sizes), tuple(range(1, len(sizes) + 1))]:
        moved = index.roll(shift, tuple(range(len(sizes)))).reshape(-1)
        assert torch.allclose(C[:, moved][:, :, :, moved], C, rtol=FLOAT64, atol=FLOAT64)
    first = C[:, 0].diagonal(dim1=0, dim2=1).T.reshape(shape)  # of pixel 0 with all pixels of its channel
    spectrum = torch.fft.fftn(first, dim=axes)
    assert float(spectrum.imag.abs().max()) <= FLOAT64
    ratio = spectrum.real / spectrum.real.mean(dim=axes, keepdim=True)
    expected = oracles.field.matern_spectrum(sizes, tuple(1.0 + 0.7 * a for a in range(len(sizes))), 1.5, 1.0)
    assert torch.allclose(ratio, expected.expand(shape), rtol=1e3 * FLOAT64, atol=FLOAT64)


def test_field_is_the_dense_gaussian_with_its_moments() -> None:
    for name in ("VE", "VP"):
        field = oracles.skewed_field(PROCESSES[name], (3, 4, 5))  # the eigenvectors of three channels are not symmetric
        dense = oracles.Gaussian(field.process, *field.data_moments())
        t = times(field.process, 5)
        x = field.sample(5, t)
        assert torch.allclose(field(x, t), dense(x, t), rtol=1e3 * ORACLE_SCORE, atol=ORACLE_SCORE)
        assert torch.allclose(field.log_prob(x, t), dense.log_prob(x, t), rtol=ORACLE_SCORE, atol=ORACLE_SCORE)
        assert torch.allclose(field.denoised(x, t), dense.denoised(x, t), rtol=ORACLE_SCORE, atol=ORACLE_SCORE)


def test_field_with_a_measured_spectrum_and_pixel_variance() -> None:
    kernel = torch.tensor([[4.0, 1.0, 0.5, 1.0], [2.0, 0.3, 0.1, 0.3], [2.0, 0.3, 0.1, 0.3]], dtype=torch.float64)
    spectrum = torch.fft.fftn(kernel).abs() ** 2
    field = oracles.GaussianField(VE(), (2, 3, 4), power_spectrum=spectrum, mean=torch.tensor([1.0, -3.0]))
    mean, C = field.data_moments()
    assert torch.allclose(C.diagonal(), spectrum.mean().expand(24), rtol=FLOAT64)
    assert torch.equal(mean[:, 0, 0], torch.tensor([1.0, -3.0], dtype=torch.float64))
    assert float(C[:12, 12:].abs().max()) <= FLOAT64  # channels are independent unless told


def test_field_of_64_by_64_pixels_needs_no_matrix() -> None:
    field = oracles.GaussianField(VE(), (3, 64, 64), correlation_length=4.0, mean=0.5)
    t = torch.tensor([0.1, 0.9], dtype=torch.float64)
    x = field.sample(2, t, seed=1)
    assert torch.isfinite(field(x, t)).all() and torch.isfinite(field.log_prob(x, t)).all()


# ------------------------------------------------------------------------------------------------ classes


@pytest.mark.parametrize("make", [oracles.skewed_mixture, oracles.skewed_points])
def test_classes_partition_the_law(make) -> None:
    """p = sum_c p(c) p(. | c), conditional densities are those of the components alone, and Bayes gives p(c | x)."""
    process = PROCESSES["VP"]
    oracle = make(process)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    x = oracle.sample(4, t)
    conditional = torch.stack(
        [oracle.log_prob(x, t, {"class": torch.full((4,), c, dtype=torch.int64)}) for c in (0, 1)], dim=1
    )
    prior = torch.stack([oracle.weights[oracle.labels == c].sum() for c in (0, 1)]).log()
    assert torch.allclose((conditional + prior).logsumexp(1), oracle.log_prob(x, t), rtol=FLOAT64, atol=FLOAT64)
    bayes = (conditional + prior).log_softmax(1)
    assert torch.allclose(oracle.class_log_prob(x, t), bayes, rtol=ORACLE_SCORE, atol=ORACLE_SCORE)
    unknown = {"class": torch.full((4,), -1)}
    assert torch.equal(oracle(x, t, unknown), oracle(x, t))
    weights, means, covariances = components(oracle)
    alone = oracle.labels == 1
    if isinstance(oracle, oracles.Mixture):
        part = oracles.Mixture(process, weights[alone], means[alone], covariances[alone])
    else:
        part = oracles.Points(process, means[alone], weights[alone])
    ones = {"class": torch.ones(4, dtype=torch.int64)}
    assert torch.allclose(oracle(x, t, ones), part(x, t), rtol=ORACLE_SCORE, atol=ORACLE_SCORE)
    assert torch.allclose(oracle.denoised(x, t, ones), part.denoised(x, t), rtol=FLOAT64, atol=FLOAT64)


def test_conditional_samples_come_from_their_class() -> None:
    oracle = oracles.skewed_points(VE())
    labels = torch.arange(40) % 2
    x = oracle.sample(40, condition={"class": labels})
    found = (x[:, None] == oracle.points).all(2).int().argmax(1)
    assert torch.equal(found % 2, labels)  # the example's classes alternate


def test_mixture_of_fields() -> None:
    process = PROCESSES["VE"]
    rough = oracles.GaussianField(process, (1, 4, 4), correlation_length=0.5)
    smooth = oracles.GaussianField(process, (1, 4, 4), correlation_length=3.0, mean=1.0)
    mixture = oracles.Mixture.of(process, torch.tensor([1.0, 3.0]), (rough, smooth), labels=(0, 1))
    t = torch.full((5,), 0.5, dtype=torch.float64)
    x = mixture.sample(5, t)
    one = {"class": torch.ones(5, dtype=torch.int64)}
    assert torch.allclose(mixture(x, t, one), smooth(x, t), rtol=FLOAT64)
    both = torch.stack([rough.log_prob(x, t) + math.log(0.25), smooth.log_prob(x, t) + math.log(0.75)])
    assert torch.allclose(mixture.log_prob(x, t), both.logsumexp(0), rtol=FLOAT64)


# ------------------------------------------------------------------------------------------------ refusals


def _gaussian(**changes):
    fields = {"mean": torch.zeros(2), "covariance": torch.eye(2)} | changes
    return oracles.Gaussian(VE(), **fields)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _gaussian(covariance=torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "eigenvalue -1"),
        (lambda: _gaussian(covariance=torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (lambda: _gaussian(covariance=torch.eye(3)), r"give \(2, 2\)"),
        (lambda: _gaussian(covariance=torch.tensor([1.0, float("nan")])), "negative"),
        (lambda: _gaussian(mean=torch.tensor(0.0)), "torch.zeros"),
        (lambda: _gaussian()(torch.zeros(3, 5), torch.ones(3)), r"takes a batch of shape \(B, 2\)"),
        (lambda: _gaussian()(torch.zeros(3, 2), torch.ones(2)), "one time per example"),
        (lambda: _gaussian()(torch.zeros(1, 2), torch.zeros(1)), "outside"),
        (lambda: _gaussian().denoised(torch.zeros(1, 2), torch.full((1,), 1.1)), "outside"),
        (lambda: _gaussian().log_prob(torch.zeros(1, 2), 1.5), "t=None"),
        (lambda: _gaussian().log_prob(torch.zeros(1, 2), -0.1), "t=None"),
        (lambda: _gaussian()(torch.zeros(1, 2), torch.ones(1), {"class": torch.zeros(1)}), "no condition"),
        (lambda: oracles.skewed_points(VE()).log_prob(torch.zeros(1, 2)), "no density"),
        (lambda: oracles.Points(VE(), torch.zeros(3)), "N, \\*event"),
        (lambda: oracles.Points(VE(), torch.zeros(3, 2), torch.ones(2)), "one per point"),
        (lambda: oracles.Points(VE(), torch.zeros(3, 2), torch.tensor([1.0, 0.0, 1.0])), "positive"),
        (lambda: oracles.Points(VE(), torch.zeros(3, 2), labels=[0, 1]), "one class per component"),
        (lambda: oracles.Mixture(VE(), torch.ones(2), torch.zeros(2, 2), torch.ones(3)), "one per component"),
        (lambda: oracles.Mixture(VE(), torch.ones(3), torch.zeros(2, 2), torch.ones(2)), "3 weights"),
        (lambda: _labelled({"class": torch.tensor([5])}), r"class \[5\]; give one of \[0, 1\]"),
        (lambda: _labelled({"class": torch.tensor([0, 1])}), "one label per example"),
        (lambda: _labelled({"age": torch.tensor([0])}), "age"),
        (lambda: oracles.Points(VE(), torch.zeros(1, 2)).class_log_prob(torch.zeros(1, 2), 1.0), "no classes"),
        (lambda: oracles.GaussianField(VE(), (4,), correlation_length=1.0), "spatial axis"),
        (lambda: oracles.GaussianField(VE(), (1, 4)), "either"),
        (lambda: oracles.GaussianField(VE(), (1, 4), power_spectrum=torch.arange(4.0)), "even"),
        (lambda: oracles.GaussianField(VE(), (1, 4), power_spectrum=torch.ones(5)), "spatial shape"),
        (lambda: oracles.GaussianField(VE(), (1, 2), power_spectrum=torch.tensor([1.0, -1.0])), "negative"),
        (lambda: oracles.GaussianField(VE(), (1, 4), correlation_length=(1.0, 2.0)), "spatial axes"),
        (
            lambda: oracles.GaussianField(VE(), (2, 4), correlation_length=1.0, channel_covariance=-torch.eye(2)),
            "eigenvalue",
        ),
    ],
)
def test_refusals(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def _labelled(condition):
    return oracles.skewed_mixture(VE())(torch.zeros(1, 2), torch.ones(1), condition)
