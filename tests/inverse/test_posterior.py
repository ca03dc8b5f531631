"""Posterior samples: shapes, noise by index, failures, the residual test, choices and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from inverse.exact_posterior import FAULTS, NOISE, OPERATOR, PRIOR, Exact, problems
from scorefield._random import StepNoise
from scorefield.inverse import (
    Function,
    GaussianNoise,
    MeasurementNoise,
    Observation,
    choose,
    posterior,
    residual_test,
    solver_named,
)
from scorefield.inverse.solvers import table
from scorefield.sampling import FlowHeun, Sampler
from tolerance import FLOAT64, SIGNIFICANCE

F64 = torch.float64


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact solver alone stands in the table."""
    monkeypatch.setattr(table, "all_solvers", lambda: {"exact": Exact})
    monkeypatch.setattr(table, "PREFERRED", (("exact", "the prior is an oracle"),))


def one() -> Observation:
    """The second of three problems alone."""
    _, many = problems(3)
    return Observation(OPERATOR, many.observed[1], NOISE)


def test_samples_depend_on_seed_and_index_alone() -> None:
    """B observations in one call are B calls with their starts, whatever the batch size."""
    _, many = problems(3)
    whole = posterior(PRIOR, many, 5, solver=Exact(), seed=3, start=7, dtype=F64)
    parts = posterior(PRIOR, many, 5, solver=Exact(), seed=3, start=7, batch_size=4, dtype=F64)
    alone = posterior(PRIOR, one(), 5, solver=Exact(), seed=3, start=7 + 5, dtype=F64)
    assert whole.x.shape == (3, 5, 4) and alone.x.shape == (5, 4) and whole.nfe.shape == (3, 5)
    assert torch.equal(whole.x, parts.x) and torch.equal(whole.x[1], alone.x)
    assert whole.residual.p_value is not None and alone.residual.p_value is not None
    assert torch.equal(whole.residual.p_value[1], alone.residual.p_value)
    assert not torch.equal(alone.x, posterior(PRIOR, one(), 5, solver=Exact(), seed=4, start=12, dtype=F64).x)
    torch.testing.assert_close(whole.mean, whole.x.mean(1), rtol=FLOAT64, atol=FLOAT64)
    torch.testing.assert_close(whole.std, whole.x.std(1), rtol=1e2 * FLOAT64, atol=0)


def test_evidence_is_the_mean_of_the_estimates() -> None:
    found = posterior(PRIOR, one(), 4, solver=Exact())
    exact = PRIOR.log_evidence(OPERATOR.matrix(), one().observed, NOISE.std)
    assert found.log_evidence is not None and float(found.log_evidence) == pytest.approx(exact, rel=1e-6)


def test_samples_that_are_not_finite_are_named_and_left_out() -> None:
    _, many = problems(2)
    found = posterior(PRIOR, many, 6, solver=Exact(broken=(13, 14)), start=10)
    clean = posterior(PRIOR, many, 6, solver=Exact(), start=10)
    assert found.failures() == (
        "sample 13 (observation 0, answer 3): not finite",
        "sample 14 (observation 0, answer 4): not finite",
    )
    kept = clean.x[0, [0, 1, 2, 5]]
    torch.testing.assert_close(found.mean[0], kept.mean(0))
    torch.testing.assert_close(found.std[0], kept.std(0))
    assert torch.equal(found.mean[1], clean.mean[1]) and bool(found.x[0, 3].isnan().all())
    assert found.residual.p_value is not None and found.residual.combined is not None
    assert bool(found.residual.p_value[0, 3].isnan()) and bool(found.residual.combined.isfinite().all())
    none = posterior(PRIOR, one(), 1, solver=Exact(broken=(0,)))
    assert bool(none.mean.isnan().all()) and bool(none.std.isnan().all())


def test_residual_has_the_law_of_the_noise_over_problems() -> None:
    """Exact samples pass at 1e-6; samples that do not hear y, or that follow its noise, do not."""
    _, many = problems(400)
    found = posterior(PRIOR, many, 1, solver=Exact()).residual
    assert found.freedom == 3 and found.p_value is not None and found.statistic is not None
    assert float(found.statistic.mean()) == pytest.approx(3.0, abs=5 * math.sqrt(6 / 400))
    assert stats.kstest(found.p_value.flatten(), "uniform").pvalue > SIGNIFICANCE
    deaf = posterior(PRIOR, many, 1, solver=FAULTS["ignoring y"]).residual.p_value
    assert deaf is not None and stats.kstest(deaf.flatten(), "uniform").pvalue < SIGNIFICANCE
    fitted = torch.linalg.lstsq(OPERATOR.A, many.observed.T).solution.T
    wrong = residual_test(fitted, many).p_value
    assert wrong is not None and stats.kstest(wrong, "uniform").pvalue < SIGNIFICANCE


def test_combined_p_values_are_small_no_more_often_than_they_say() -> None:
    """Over 200 problems with eight dependent samples each."""
    _, many = problems(200)
    combined = posterior(PRIOR, many, 8, solver=Exact()).residual.combined
    assert combined is not None
    for level in (0.05, 0.2, 0.5):
        assert stats.binom.sf(int((combined <= level).sum()) - 1, 200, level) > SIGNIFICANCE


class Heavy(MeasurementNoise):
    """Laplace noise of scale 0.2."""

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        return -((y - mean).abs() / 0.2 + math.log(0.4)).sum(1)

    def sample(self, mean: Tensor, noise: StepNoise) -> Tensor:
        u = noise.uniform(mean) - 0.5
        return mean - 0.2 * u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.4999999))

    def variance(self, mean: Tensor) -> Tensor:
        return torch.full_like(mean, 2 * 0.2**2)


def test_residual_of_noise_that_is_not_normal_is_compared_with_simulated_measurements() -> None:
    truth, _ = problems(300)  # the truth itself has the law of a posterior sample
    e = torch.distributions.Laplace(0.0, 0.2).icdf(torch.rand(300, 3, generator=torch.Generator().manual_seed(2)))
    p = residual_test(truth, Observation(OPERATOR, OPERATOR(truth) + e, Heavy())).p_value
    assert p is not None and stats.kstest(p - torch.rand(300) * 0.01, "uniform").pvalue > SIGNIFICANCE
    p = residual_test(truth, Observation(OPERATOR, OPERATOR(truth) + 1.5 * e, Heavy())).p_value
    assert p is not None and stats.kstest(p, "uniform").pvalue < SIGNIFICANCE


def test_exact_measurements_have_a_residual_and_no_test() -> None:
    x = PRIOR.sample(2, seed=1)
    found = residual_test(x, Observation(OPERATOR, OPERATOR(x) + 0.5, GaussianNoise(0.0)))
    assert found.p_value is None and found.statistic is None and found.combined is None
    torch.testing.assert_close(found.rms, torch.full((2,), 0.5, dtype=F64))


def test_auto_says_why(known: None) -> None:
    found = posterior(PRIOR, one(), 1, solver="auto")
    assert isinstance(found.solver, Exact) and found.why == "exact: the prior is an oracle"
    bent = Observation(Function(lambda x: x**2, (4,)), torch.zeros(4), NOISE)
    with pytest.raises(ValueError, match=r"no solver takes this observation; exact: exact needs a linear operator"):
        choose(PRIOR, bent)


def test_illegal_pairs_are_refused_with_the_legal_ones(known: None) -> None:
    bent = Observation(Function(lambda x: x**2, (4,)), torch.zeros(4), NOISE)
    with pytest.raises(ValueError, match="Function is not one; no solver takes this observation"):
        posterior(PRIOR, bent, 1, solver=Exact())
    with pytest.raises(ValueError, match="divides by the noise of y, which is 0"):
        posterior(PRIOR, Observation(OPERATOR, one().observed, GaussianNoise(0.0)), 1, solver="exact")
    with pytest.raises(ValueError) as refused:
        posterior(PRIOR, one(), 1, solver=Exact(), sampler=Sampler(FlowHeun()))
    assert "exact goes with the steps EulerMaruyama, DDIM, not with FlowHeun" in str(refused.value)
    assert "samplers that exact goes with here: em, ddim, its own (sampler=None)" in str(refused.value)
    assert len(posterior(PRIOR, one(), 1, solver=Exact(), sampler="em").sampler.times(PRIOR.process)) == 1001
    with pytest.raises(ValueError, match=r"there is no solver 'exat'.*exact"):
        solver_named("exat")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"seed": -1}, "not negative"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"condition": {"class": torch.zeros(2)}}, "2 entries for 1 observations"),
    ],
)
def test_numbers_that_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        posterior(PRIOR, one(), **{"n": 1, "solver": Exact(), **given})
