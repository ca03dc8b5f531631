"""Noises against SciPy, observations in any units, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from inverse.cases import F64, IMAGE, numbers
from scorefield import DataSpec
from scorefield import inverse as inv
from scorefield._codec import dumps, loads
from scorefield._random import IndexedNoise, StepNoise
from scorefield.inverse import GaussianNoise, LaplaceNoise, MeasurementNoise, Observation, PoissonNoise
from scorefield.inverse import StudentNoise as Student
from tolerance import FLOAT32, FLOAT64, SIGNIFICANCE


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=10 * FLOAT64, atol=10 * FLOAT64)


# ------------------------------------------------------------------------------------------------ noise

NOISES: list[tuple[MeasurementNoise, object]] = [
    (GaussianNoise(0.3), lambda m: stats.norm(m, 0.3)),
    (LaplaceNoise(0.3), lambda m: stats.laplace(m, 0.3)),
    (Student(0.3, 2.5), lambda m: stats.t(2.5, m, 0.3)),
    (PoissonNoise(0.25), lambda m: stats.poisson(m / 0.25)),
]


@pytest.mark.parametrize("noise, law", NOISES, ids=lambda v: type(v).__name__)
def test_noise_is_scipys(noise: MeasurementNoise, law) -> None:  # type: ignore[no-untyped-def]
    mean = numbers(3, 2, 5).abs() * 3
    unit = 0.25 if isinstance(noise, PoissonNoise) else 1.0
    y = noise.sample(mean, StepNoise(IndexedNoise(0, range(3)), 0))
    assert y.dtype == F64 and y.shape == mean.shape
    own = law(mean.numpy())
    density = own.logpmf if unit != 1.0 else own.logpdf
    expected = density((y / unit).numpy()).sum(axis=(1, 2))
    np.testing.assert_allclose(noise.log_prob(y, mean).numpy(), expected, rtol=10 * FLOAT64)
    np.testing.assert_allclose(noise.variance(mean).numpy(), own.var() * unit**2, rtol=10 * FLOAT64)
    noise.check(y.float())
    assert loads(dumps(noise), type(noise)) == noise


def uniform(noise: MeasurementNoise, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Draws about a mean, and uniform numbers."""
    mean = torch.full((4, 10_000), level, dtype=F64)
    y = noise.sample(mean, StepNoise(IndexedNoise(1, range(4)), 0))
    return y.flatten().numpy(), np.random.default_rng(0).random(y.numel())


@pytest.mark.parametrize("noise, law", NOISES[:3], ids=lambda v: type(v).__name__)
def test_samples_have_the_law(noise: MeasurementNoise, law) -> None:  # type: ignore[no-untyped-def]
    """By the probability transform; wider noise is rejected."""
    y, _ = uniform(noise, 2.0)
    right, wrong = (stats.kstest(law(0.0).cdf((y - 2.0) * factor), "uniform").pvalue for factor in (1.0, 1.15))
    assert right > SIGNIFICANCE > wrong


@pytest.mark.parametrize("level", [0.3, 5000.0])
def test_counts_have_the_law(level: float) -> None:
    """By the probability transform, randomised within each step; another mean is rejected."""
    noise = PoissonNoise(0.25)
    y, u = uniform(noise, level)
    k = np.round(y / noise.gain)

    def pvalue(law) -> float:  # type: ignore[no-untyped-def]
        return stats.kstest(law.cdf(k - 1) + u * law.pmf(k), "uniform").pvalue

    assert pvalue(stats.poisson(level / 0.25)) > SIGNIFICANCE > pvalue(stats.poisson(level / 0.25 * 1.05))


def test_counts_know_what_is_impossible() -> None:
    noise, y = PoissonNoise(2.0), torch.tensor([[0.0, 4.0]])
    assert float(noise.log_prob(y, torch.tensor([[0.0, 4.0]]))) > -math.inf
    for mean in ([[-1.0, 4.0]], [[1.0, 0.0]]):
        assert float(noise.log_prob(y, torch.tensor(mean))) == -math.inf
    x = torch.tensor([[-1.0, 4.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(noise.log_prob(y, x).sum(), x)
    assert slope.tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="A\\(x\\) goes down to -1"):
        noise.sample(x.detach(), StepNoise(IndexedNoise(0, [0]), 0))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GaussianNoise(-1.0), "must not be negative"),
        (lambda: LaplaceNoise(0.0), "must be positive: an exact measurement is"),
        (lambda: Student(1.0, math.inf), "dof=inf .* are GaussianNoise"),
        (lambda: PoissonNoise(0.0), "gain=0.0 .* must be positive"),
        (lambda: PoissonNoise(2.0).check(torch.tensor([3.0])), "0, 1, 2, ... times gain=2.0; got values from 3 to 3"),
        (lambda: GaussianNoise(0.0).log_prob(torch.zeros(1, 2), torch.zeros(1, 2)), "exact measurement .* no density"),
    ],
)
def test_noises_refuse(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------------ observations

UNITS = {
    "0 to 255": DataSpec(IMAGE, 0.0, 255.0),
    "another model range": DataSpec(IMAGE, 0.0, 255.0, model_range=(0.0, 1.0)),
    "bounds per channel": DataSpec(IMAGE, (0.0, -5.0, 10.0), (255.0, 260.0, 250.0)),
    "standardised": DataSpec(IMAGE, offset=100.0, scale=40.0),
    "standardised by channel": DataSpec(IMAGE, offset=(90.0, 100.0, 120.0), scale=(30.0, 40.0, 60.0)),
}
MODELS: dict[str, tuple[inv.Operator, MeasurementNoise]] = {
    "mask": (inv.Mask(numbers(4, 6) > 0, IMAGE), GaussianNoise(3.0)),
    "blur": (inv.Convolution.gaussian(1.0, IMAGE, "zero"), LaplaceNoise(3.0)),
    "grey": (inv.Channels.grey(IMAGE), Student(2.0, 3.0)),
    "counts": (inv.Downsample(2, IMAGE), PoissonNoise(0.5)),
    "curve": (inv.Function(lambda x: x.square().mean(-1) / 100.0, IMAGE), GaussianNoise(3.0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_likelihood_does_not_know_the_units_of_the_model(name: str) -> None:
    operator, noise = MODELS[name]
    x = 60 + 100 * torch.rand(2, *IMAGE, generator=torch.Generator().manual_seed(5), dtype=F64)
    y = noise.sample(operator(x), StepNoise(IndexedNoise(0, range(2)), 0))
    observation = Observation(operator, y, noise)
    truth = observation.log_likelihood(x)
    for spec in UNITS.values():
        inside = observation.in_model_units(spec)
        m = spec.to_model(x)
        close(inside.log_likelihood(m), truth)
        close(inside.residual(m), observation.residual(x))
        close(inside.rows([1]).log_likelihood(m[1:]), truth[1:])
        # The gradient in model units is that in data units times the data unit that is one model unit.
        p, q = m.clone().requires_grad_(True), x.clone().requires_grad_(True)
        (a,) = torch.autograd.grad(inside.log_likelihood(p).sum(), p)
        (b,) = torch.autograd.grad(observation.log_likelihood(q).sum(), q)
        close(a * spec.affine()[0].reshape(-1, 1, 1), b)


def test_the_same_problem_in_other_units_of_the_data() -> None:
    """Grey values of 0..255 and the same of 0..1: log p(y | x) differs by the units of y, the posterior not at all."""
    x = 255 * torch.rand(2, *IMAGE, generator=torch.Generator().manual_seed(5), dtype=F64)
    mask = inv.Mask(numbers(4, 6) > 0, IMAGE)
    y = mask(x) + 3 * numbers(2, *mask.observed)
    grey = Observation(mask, y, GaussianNoise(3.0)).in_model_units(DataSpec(IMAGE, 0.0, 255.0))
    unit = Observation(mask, y / 255, GaussianNoise(3.0 / 255)).in_model_units(DataSpec(IMAGE, 0.0, 1.0))
    m = numbers(2, *IMAGE, seed=2)
    close(grey.log_likelihood(m) + y[0].numel() * math.log(255), unit.log_likelihood(m))


def test_a_signal_on_a_large_offset_keeps_its_digits() -> None:
    spec = DataSpec((1, 8), offset=1e6, scale=1.0)
    A = inv.Convolution.gaussian(1.0, (1, 8))
    m = numbers(1, 1, 8)
    y = A(spec.to_data(m))
    seen = Observation(A, y, GaussianNoise(1.0)).in_model_units(spec)
    assert float(seen.residual(m).abs().max()) < 1e6 * FLOAT64
    assert float(seen.residual(m.float()).abs().max()) < FLOAT32, "the offset was taken off before rounding"


def test_one_deviation_per_entry() -> None:
    std = numbers(3, 2, 3).abs() + 0.1
    for A in (inv.Downsample(2, IMAGE), inv.Function(lambda x: x[:, :, ::2, ::2] ** 2, IMAGE)):
        x = numbers(4, *IMAGE)
        y = A(x) + std * numbers(4, 3, 2, 3, seed=3)
        seen = Observation.whitened(A, y, std)
        expected = stats.norm.logpdf(y.numpy(), A(x).numpy(), std.numpy()).sum(axis=(1, 2, 3))
        close(seen.log_likelihood(x) - std.log().sum(), torch.from_numpy(expected))
        assert seen.gaussian and seen.linear == isinstance(A, inv.LinearOperator)
    for bad, message in ((torch.zeros(3, 2, 3), "positive and finite"), (torch.ones(5), r"\(5,\) deviations .* shape")):
        with pytest.raises(ValueError, match=message):
            Observation.whitened(inv.Downsample(2, IMAGE), torch.zeros(3, 2, 3), bad)


MASK = inv.Mask(torch.eye(4, 6), IMAGE)
UNIT = DataSpec(IMAGE, 0, 1)
BYTES = DataSpec(IMAGE, 0.0, 255.0, units="counts")


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: Observation(MASK, torch.zeros(11), GaussianNoise(1.0)),
            r"y has shape \(11,\).* or \(n, 12\)",
        ),
        (lambda: Observation(MASK, torch.zeros(IMAGE), GaussianNoise(1.0)), r"operator.observe\(...\) takes it from"),
        (lambda: Observation(MASK, torch.full((12,), math.nan), GaussianNoise(1.0)), "leave what was not measured out"),
        (lambda: Observation(MASK, torch.full((12,), -1.0), PoissonNoise(1.0)), "y of counts is"),
        (lambda: Observation(MASK, torch.full((12,), 1j), GaussianNoise(1.0)), r"y is complex.*observe\(spectrum\)"),
        (
            lambda: Observation(MASK, torch.zeros(12), GaussianNoise(1.0)).in_model_units(DataSpec((3, 6, 4))),
            r"examples of shape \(3, 4, 6\); the model has \(3, 6, 4\)",
        ),
        (
            lambda: Observation(MASK, torch.full((12,), 200.0), GaussianNoise(0.1)).in_model_units(
                DataSpec(IMAGE, 0, 1)
            ),
            "y ranges from 200 to 200, and data between 0 and 1 give values from 0 to 1, .*in data units",
        ),
        (
            lambda: Observation(inv.Sums((1, 2), IMAGE), torch.full((3,), -900.0), GaussianNoise(1.0)).in_model_units(
                BYTES
            ),
            r"between 0.0 and 255.0 \(counts\) give values from 0 to 6120",
        ),
        (lambda: Observation(MASK, torch.zeros(2, 12), GaussianNoise(1.0)).y(torch.zeros(3, *IMAGE)), "2 observations"),
    ],
)
def test_observations_refuse(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_whole_numbers_keep_their_digits() -> None:
    y = torch.full((12,), 2**24 + 1)
    assert bool((Observation(MASK, y, PoissonNoise(1.0)).observed == y).all())


def test_noise_excuses_what_lies_outside() -> None:
    y = torch.full((12,), 300.0)
    Observation(MASK, y, GaussianNoise(10.0)).in_model_units(BYTES)
    Observation(MASK, y, Student(1.0, 2.0)).in_model_units(BYTES)
    whole = Observation(MASK, torch.arange(12), GaussianNoise(10.0))
    assert whole.observed.dtype == torch.float64
