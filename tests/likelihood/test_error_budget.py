"""The terms of the error budget, each against a closed form of the error that it estimates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from likelihood.cases import GivenNoise, NoNoise, at
from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.likelihood.divergence import Exact, Hutchinson, HutchPlusPlus
from scorefield.likelihood.error_budget import DEVIATIONS, Moments, Term, interval, prior_mismatch, truncation
from scorefield.likelihood.log_prob import LogProb, difference, flow_log_prob
from scorefield.likelihood.probability_flow import FlowSettings, log_density
from scorefield.process import VE, VP, Process, SubVP
from scorefield.score import FunctionScore, oracles
from tolerance import CALIBRATED, FLOAT64, FLOW_DENSITY, FLOW_FLOAT32, TRUNCATED

F64 = torch.float64
LOOSE = FlowSettings(1e-3, 1e-3, divergence="hutchinson", loosened=None)


# ---------------------------------------------------------------------------------------------------- divergences

MATRIX = torch.tensor([[2.0, 0.5, -1.0], [0.3, -1.0, 0.7], [-0.8, 0.2, 0.4]], dtype=F64)
SYMMETRIC = MATRIX + MATRIX.T


def linear(matrix: Tensor):
    return lambda x: x @ matrix.T


def signs(P: int, B: int, D: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(0, 2, (P, B, D), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def test_estimates_of_each_probe_and_what_is_carried() -> None:
    probes, x, rows = signs(2, 5), torch.zeros(3, 3, dtype=F64), torch.tensor([4, 0, 2])
    value, estimates, carried = Hutchinson(probes, True).evaluate(linear(MATRIX), x + 1.0, rows)
    v = probes[:, rows]
    torch.testing.assert_close(value, (x + 1.0) @ MATRIX.T, rtol=FLOAT64, atol=0.0)
    torch.testing.assert_close(estimates, torch.einsum("pbi,ij,pbj->bp", v, MATRIX, v), rtol=FLOAT64, atol=FLOAT64)
    torch.testing.assert_close(carried, torch.einsum("pbi,ij->bpj", v, MATRIX).flatten(1), rtol=FLOAT64, atol=FLOAT64)
    _, exact, nothing = Exact().evaluate(linear(MATRIX), x, rows)
    torch.testing.assert_close(exact[:, 0], MATRIX.trace().expand(3), rtol=FLOAT64, atol=0.0)
    assert nothing.shape == (3, 0) and not Exact().variance(nothing).any()


@pytest.mark.parametrize("P", [2, 3])
def test_variance_of_an_estimate_is_right_on_average_and_from_one_probe_no_less(P: int) -> None:
    """2 (|M|_F^2 - sum M_ii^2), the variance of v' M v for signs v and symmetric M, over 4000 sets of probes."""
    B = 4000
    expected = 2.0 * float(SYMMETRIC.square().sum() - SYMMETRIC.diagonal().square().sum())
    for count in (1, P):
        how = Hutchinson(signs(count, B, seed=count), True)
        _, estimates, carried = how.evaluate(linear(SYMMETRIC), torch.zeros(B, 3, dtype=F64), torch.arange(B))
        found = float(how.variance(carried).mean())
        if count == 1:
            assert found > expected
            torch.testing.assert_close(float(estimates.var()), expected, rtol=CALIBRATED, atol=0.0)
        else:  # clipped below at what the trace allows, so a little high
            assert expected * (1 - CALIBRATED) < found < 2.0 * expected


def test_variance_with_normal_probes() -> None:
    B = 4000
    probes = torch.randn(1, B, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    how = Hutchinson(probes, False)
    _, estimates, carried = how.evaluate(linear(SYMMETRIC), torch.zeros(B, 3, dtype=F64), torch.arange(B))
    expected = 2.0 * float(SYMMETRIC.square().sum())
    torch.testing.assert_close(float(how.variance(carried).mean()), expected, rtol=CALIBRATED, atol=0.0)
    torch.testing.assert_close(float(estimates.var()), expected, rtol=CALIBRATED, atol=0.0)


def test_hutch_plus_plus_is_exact_for_what_its_sketch_spans() -> None:
    """Hutch++ is exact for rank 1 with one column and for any matrix with D, and unbiased over all sign probes."""
    x, rows = torch.zeros(1, 3, dtype=F64), torch.arange(1)
    u, w = torch.tensor([1.0, -2.0, 0.5], dtype=F64), torch.tensor([0.3, 1.0, 1.0], dtype=F64)
    sketch = torch.randn(3, 1, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)[:, None]
    for matrix, k, probes, exact in (
        (torch.outer(u, w), 1, signs(1, 1), True),
        (MATRIX, 3, signs(1, 1), True),
        (MATRIX, 1, every, False),
    ):
        how = HutchPlusPlus(probes, True, sketch[:k])
        _, estimates, carried = how.evaluate(linear(matrix), x, rows)
        torch.testing.assert_close(estimates.mean(), matrix.trace(), rtol=FLOAT64, atol=FLOAT64)
        spread = float(estimates.std(correction=0)) if len(probes) > 1 else 0.0
        assert (float(how.variance(carried)) < FLOAT64) == exact and (spread < FLOAT64) == exact
        assert float(how.variance(carried)) >= (1.0 - CALIBRATED) * spread**2


@pytest.mark.parametrize("settings", [FlowSettings(probes=4), FlowSettings(divergence="hutch++", probes=2, sketch=4)])
def test_standard_errors_are_those_of_the_errors(settings: FlowSettings) -> None:
    """Errors of one point under 200 sets of probes, against the exact divergence and divided by the stated error."""
    oracle, n = oracles.skewed_mixture(VP(), 12), 200
    x = oracle.sample(1, 1e-5, seed=2).expand(n, 12)
    both = {"rtol": 1e-3, "atol": 1e-3}
    found = log_density(oracle.bind(None), x, IndexedNoise(0, range(n)), replace(settings, **both))
    exact = log_density(oracle.bind(None), x[:1], NoNoise(), FlowSettings(1e-5, 1e-5, divergence="exact"))
    z = (found.nats - exact.nats) / found.std_error
    assert abs(float(z.square().mean().sqrt()) - 1.0) < CALIBRATED
    assert abs(float(z.mean())) < 5.0 / math.sqrt(n)
    torch.testing.assert_close(found.nats, found.per_probe.mean(dim=1), rtol=FLOAT64, atol=0.0)


# ---------------------------------------------------------------------------------------------------- more probes


def test_probes_are_added_until_the_error_is_met_each_example_for_itself() -> None:
    oracle = oracles.skewed_gaussian(VP(), 12)
    x = oracle.sample(4, 1e-5, seed=3)
    settings = FlowSettings(1e-2, 1e-2, divergence="hutchinson", probes=2, target_se=0.5)
    once = log_density(oracle.bind(None), x, IndexedNoise(1, range(4)), FlowSettings(1e-2, 1e-2, probes=2))
    found = log_density(oracle.bind(None), x, IndexedNoise(1, range(4)), settings)
    assert float(once.std_error.max()) > 0.5 and bool((found.std_error <= 0.5).all())
    touched = once.std_error > 0.5
    assert bool((found.calls > once.calls).eq(touched).all()) and torch.equal(found.nats[~touched], once.nats[~touched])
    exact = log_density(oracle.bind(None), x, NoNoise(), FlowSettings(1e-4, 1e-4, divergence="exact"))
    assert bool(((found.nats - exact.nats).abs() < 5.0 * found.std_error).all())
    hardest = int(once.std_error.argmax())
    alone = log_density(oracle.bind(None), x[[hardest]], IndexedNoise(1, [hardest]), settings)
    torch.testing.assert_close(alone.nats[0], found.nats[hardest], rtol=0.0, atol=FLOW_FLOAT32)


def test_a_small_target_makes_the_divergence_exact_and_a_limit_is_kept() -> None:
    oracle = oracles.skewed_mixture(VP(), 12)
    x = oracle.sample(2, 1e-5, seed=3)
    settings = FlowSettings(1e-3, 1e-3, probes=2, target_se=1e-3)
    found = log_density(oracle.bind(None), x, IndexedNoise(1, range(2)), settings)
    exact = log_density(oracle.bind(None), x, NoNoise(), FlowSettings(1e-3, 1e-3, divergence="exact"))
    assert not found.std_error.any()
    torch.testing.assert_close(found.nats, exact.nats, rtol=0.0, atol=FLOW_DENSITY)
    noise = GivenNoise(torch.randn(6, 1, 12, generator=torch.Generator().manual_seed(0)))
    limited = FlowSettings(1e-3, 1e-3, divergence="hutchinson", probes=2, target_se=1e-3, max_probes=6)
    stopped = log_density(oracle.bind(None), x, noise, limited)
    assert {draw for _, draw in noise.calls} == set(range(6)) and bool((stopped.std_error > 1e-3).all())


def test_probes_in_common_make_differences_more_certain_than_densities() -> None:
    oracle, data = oracles.skewed_gaussian(VP(), 16), DataSpec((16,))
    x = oracle.sample(1, 1e-5, seed=1)
    pair = torch.cat([x, x + 0.01])
    common = FlowSettings(1e-4, 1e-4, probes=4, common_probes=True, loosened=None)
    found = flow_log_prob(oracle, pair, data, IndexedNoise(0, [3, 8]), settings=common, dtype=F64)
    assert found.per_probe is not None and found.std_error is not None

    def part(i: int) -> LogProb:
        return LogProb(found.nats[[i]], None, found.nfe, found.status, "", per_probe=found.per_probe[[i]])  # type: ignore[index]

    change, error = difference(part(0), part(1))
    exact = oracle.log_prob(pair, 1e-5)
    assert float(error) < 0.01 * float(found.std_error[0])
    assert abs(float(change) - float(exact[0] - exact[1])) < 0.1 * abs(float(exact[0] - exact[1]))
    with pytest.raises(ValueError, match="common_probes"):
        difference(part(0), LogProb(found.nats, None, found.nfe, found.status, ""))
    with pytest.raises(TypeError, match="IndexedNoise"):
        log_density(oracle.bind(None), pair, GivenNoise(torch.ones(4, 16)), common)


# ---------------------------------------------------------------------------------------------------- corrections


@pytest.mark.parametrize("process", [VE(0.05, 20.0), VP(), SubVP()])
def test_truncation(process: Process) -> None:
    oracle, s = oracles.skewed_mixture(process, 3), 1e-3
    x = oracle.sample(6, 0.0, seed=1)
    found = truncation(oracle.bind(None), x, Exact(), s)
    expected = oracle.log_prob(x, 0.0) - oracle.log_prob(x, s)
    torch.testing.assert_close(found.value, expected, rtol=0.0, atol=TRUNCATED + 0.1 * float(found.uncertainty.max()))
    assert float(expected.abs().max()) > 10 * TRUNCATED
    assert bool(((found.value - expected).abs() <= found.uncertainty + TRUNCATED).all())
    assert not truncation(oracle.bind(None), x, Exact(), 0.0).value.any()


@pytest.mark.parametrize("process", [VE(0.05, 20.0), VP()])
def test_prior_mismatch(process: Process) -> None:
    """For Gaussian data the term is exact with the full moments, and within its uncertainty otherwise."""
    oracle, data = oracles.skewed_gaussian(process, 3), DataSpec((3,))
    z = process.prior_sample(torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=F64))
    mean, covariance = oracle.data_moments()
    expected = oracle.log_prob(z, 1.0) - process.prior_log_prob(z)
    bound = oracle.bind(None)
    for moments, atol in (
        (Moments(mean.flatten(), covariance), FLOAT64),
        (Moments(mean.flatten(), covariance.diagonal()), None),
        (None, None),
    ):
        found = prior_mismatch(bound, z, data, moments)
        assert found is not None
        miss = (found.value - expected).abs()
        if atol is None:
            assert float((miss <= found.uncertainty).double().mean()) >= 0.85
            assert float(found.uncertainty.max()) < float(expected.abs().max())
        else:
            torch.testing.assert_close(found.value, expected, rtol=1e-6, atol=atol)
    assert bound.calls == 1, "only without moments is the score asked"


def test_moments_of_examples() -> None:
    x = torch.randn(50, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    found = Moments.of(x)
    torch.testing.assert_close(found.mean, x.flatten(1).mean(dim=0), rtol=FLOAT64, atol=0.0)
    torch.testing.assert_close(found.covariance, torch.cov(x.flatten(1).T), rtol=FLOAT64, atol=FLOAT64)
    assert Moments.of(x[:5]).covariance.shape == (4,) and found.count == 50
    with pytest.raises(ValueError, match="at least 2 examples"):
        Moments.of(x[:1])


def test_interval_by_hand() -> None:
    """The interval reaches from nats to the corrected value, plus the root of summed squares on both sides."""
    one = torch.ones(1, dtype=F64)
    found = interval(10.0 * one, 0.5 * one, 4, [3.0 * one], [Term(-2.0 * one, 4.0 * one), Term(0.5 * one, 0.0 * one)])
    u = math.sqrt((1.125 * DEVIATIONS * 0.5) ** 2 + 9.0 + 16.0)
    torch.testing.assert_close(found, torch.tensor([[8.5 - u, 10.0 + u]], dtype=F64), rtol=FLOAT64, atol=0.0)
    assert abs(DEVIATIONS - 1.6448536) < 1e-6


def test_the_interval_of_exact_scores_holds_the_density_and_is_narrow() -> None:
    for process in (VE(0.05, 20.0), VP()):
        oracle = oracles.skewed_mixture(process, 2)
        x = oracle.sample(40, 0.0, seed=4)
        mean, covariance = oracle.data_moments()
        moments = Moments(mean, covariance)
        found = flow_log_prob(oracle, x, DataSpec((2,)), NoNoise(), moments=moments, dtype=F64)
        assert found.interval is not None and found.solver_error is not None
        low, high = found.interval.T
        truth = oracle.log_prob(x, 0.0)
        assert float(((low <= truth) & (truth <= high)).double().mean()) >= 0.9
        assert float((high - low).median()) < 3.0 * float((found.nats - truth).abs().median())
        corrected = found.nats + found.truncation + found.prior_mismatch  # type: ignore[operator]
        assert float((corrected - truth).abs().median()) < 0.2 * float((found.nats - truth).abs().median())


@pytest.mark.slow
def test_solver_error_covers_what_a_loose_tolerance_does() -> None:
    oracle = oracles.skewed_mixture(VP(), 6)
    x = oracle.sample(40, 1e-5, seed=5)
    tight = flow_log_prob(
        oracle, x, DataSpec((6,)), NoNoise(), settings=FlowSettings(1e-8, 1e-8, loosened=None), dtype=F64
    )
    assert tight.solver_error is None and tight.interval is None and tight.std_error is not None
    for tolerance in (1e-3, 1e-5):
        settings = FlowSettings(tolerance, tolerance)
        found = flow_log_prob(oracle, x, DataSpec((6,)), NoNoise(), settings=settings, dtype=F64)
        assert found.solver_error is not None
        off = (found.nats - tight.nats).abs()
        assert float((off <= found.solver_error).double().mean()) >= 0.85
        assert float(found.solver_error.median()) < 100 * float(off.median())


# ---------------------------------------------------------------------------------------------------- refusals


def test_refused_settings() -> None:
    for wrong, message in (
        ({"target_se": 0.0}, "target_se=0"),
        ({"target_se": -1.0}, "positive number of nats"),
        ({"loosened": 1.0}, "greater than 1"),
        ({"sketch": 0}, "sketch=0"),
        ({"rtol": 0.0}, "must both be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            FlowSettings(**wrong)  # type: ignore[arg-type]
    oracle = oracles.skewed_gaussian(VP(), 2)
    with pytest.raises(ValueError, match="draws=2"):
        flow_log_prob(oracle, torch.zeros(1, 2), DataSpec((2,)), NoNoise(), draws=2)
    with pytest.raises(ValueError, match="outside"):
        score = FunctionScore(lambda x, t: -x, VP())
        flow_log_prob(score, torch.zeros(1, 2), DataSpec((2,)), NoNoise(), settings=FlowSettings(start=1e-7))


def test_a_failure_names_example_time_and_norm_and_keeps_its_state() -> None:
    oracle = oracles.skewed_gaussian(VP(), 2)

    def broken_late(x: Tensor, t: Tensor) -> Tensor:
        late = (t > 0.3) & (x[:, 0] > 0)
        return torch.where(late[:, None], torch.nan, oracle(x, t))

    x = torch.tensor([[-3.0, 0.0], [3.0, 0.0]], dtype=F64)
    score = FunctionScore(broken_late, VP())
    found = flow_log_prob(score, x, DataSpec((2,)), NoNoise(), dtype=F64)
    assert found.status.tolist() == [0, 3] and found.nats.isnan().tolist() == [False, True]
    (line,) = found.failures()
    assert line.startswith("example 1: not finite at t = 0.3") and "root mean square" in line
    flow = log_density(score.bind(None), x, NoNoise(), FlowSettings())
    assert bool(flow.state.isfinite().all()) and flow.failures() == found.failures()
    exact = oracle.process.alpha(at(float(flow.time[1])))
    assert float(flow.state[1, 0]) > 0 and 0.0 < float(exact) < 1.0
