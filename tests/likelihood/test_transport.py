"""The probability flow as a map between data and latents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from likelihood.cases import EXACT, PROCESSES, TIGHT, NoNoise, at, gaussian_flow, small_score
from scorefield.likelihood.probability_flow import FlowSettings, log_density, require_flow, transport
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, Process, Tabulated
from scorefield.score import FunctionScore, LevelLabel, NetworkScore, NoiseForm, Score, oracles
from tolerance import FLOW_DENSITY, FLOW_FLOAT32


@pytest.mark.parametrize("name", PROCESSES)
def test_gaussian_both_ways(name: str) -> None:
    oracle, s = oracles.skewed_gaussian(PROCESSES[name], 3), PROCESSES[name].t_min.sampling
    x = oracle.sample(3, s)
    latent = gaussian_flow(oracle, x, s, 1.0)
    up = transport(oracle.bind(None), x, s, 1.0, TIGHT)
    down = transport(oracle.bind(None), latent, 1.0, s, TIGHT)
    torch.testing.assert_close(up.latent, latent, rtol=FLOW_DENSITY, atol=FLOW_DENSITY)
    torch.testing.assert_close(down.latent, x, rtol=FLOW_DENSITY, atol=FLOW_DENSITY)
    assert bool(up.nats.isnan().all()) and not up.status.any()


WEIGHTS = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 0.8, 2.0], dtype=torch.float64)
VARIANCES = torch.tensor([0.2, 0.05, 0.01], dtype=torch.float64)


def distribution(process: Process, x: Tensor, t: float) -> Tensor:
    """P(x_t <= x) of the mixture."""
    alpha, sigma = process.alpha(at(t)), process.sigma(at(t))
    return torch.special.ndtr((x - alpha * MEANS) / (alpha**2 * VARIANCES + sigma**2).sqrt()) @ WEIGHTS


@pytest.mark.parametrize("name", PROCESSES)
def test_quantiles_map_to_quantiles(name: str) -> None:
    """In one dimension the flow is increasing: it maps the q-quantile of p_s to that of p_1, and back."""
    process = PROCESSES[name]
    s = process.t_min.sampling
    oracle = oracles.Mixture(process, WEIGHTS, MEANS[:, None], VARIANCES[:, None, None])
    x = torch.tensor([-2.0, -1.0, 0.0, 0.75, 1.5, 2.05], dtype=torch.float64)[:, None]
    settings = FlowSettings(1e-6, 1e-6)
    latent = transport(oracle.bind(None), x, s, 1.0, settings).latent
    assert bool((latent.diff(dim=0) > 0).all())
    torch.testing.assert_close(
        distribution(process, latent, 1.0), distribution(process, x, s), rtol=0.0, atol=FLOW_DENSITY
    )
    back = transport(oracle.bind(None), latent, 1.0, s, settings).latent
    # Between the components the way back spreads what the way there brought together: in probability it is as exact.
    torch.testing.assert_close(distribution(process, back, s), distribution(process, x, s), rtol=0.0, atol=FLOW_DENSITY)


def test_latents_are_those_of_the_density_and_keep_their_type() -> None:
    score = small_score(VP())
    x = torch.tensor([[0.3, -1.0], [0.5, 2.0]])
    condition = {"side": torch.tensor([1, 0])}
    with_density = log_density(score.bind(condition), x, NoNoise(), TIGHT)
    bound = score.bind(condition)
    without = transport(bound, x, VP().t_min.likelihood, 1.0, TIGHT)
    assert without.latent.dtype == torch.float32 and not without.latent.requires_grad
    torch.testing.assert_close(without.latent, with_density.latent, rtol=0.0, atol=FLOW_FLOAT32)
    assert bound.calls == int(without.calls.max())


def test_status_of_examples_and_empty_batches() -> None:
    oracle = oracles.skewed_gaussian(VP(), 2)
    x = oracle.sample(2, 0.5)
    stopped = transport(oracle.bind(None), x, 1.0, 1e-3, FlowSettings(max_steps=2, retries=0))
    assert stopped.status.tolist() == [1, 1] and bool(stopped.latent.isnan().all())
    assert transport(oracle.bind(None), x[:0], 1.0, 1e-3, FlowSettings()).latent.shape == (0, 2)
    still = transport(oracle.bind(None), x, 0.5, 0.5, FlowSettings())
    assert torch.equal(still.latent, x) and still.calls.tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------------- ladders

TABLE = Tabulated(LinearBetas(levels=50))


def on_a_ladder(between: str) -> NetworkScore:
    label = LevelLabel(between=between)  # type: ignore[arg-type]
    return NetworkScore(small_score(VP()).network, VP(), NoiseForm(), label, levels=TABLE)


def test_a_network_defined_only_at_levels_is_refused() -> None:
    x = torch.zeros(1, 2)
    for score in (on_a_ladder("refuse"), on_a_ladder("refuse").bind(None), on_a_ladder("refuse").bind(None).bind(None)):
        with pytest.raises(ValueError, match=r"levels .*pc, ancestral or ald.*LevelLabel\(between='linear'\)"):
            require_flow(score)
        with pytest.raises(ValueError, match="levels"):
            transport(score.bind(None), x, 1.0, 1e-3, FlowSettings())
        with pytest.raises(ValueError, match="levels"):
            log_density(score.bind(None), x, NoNoise(), FlowSettings())


def test_the_linear_rule_has_a_flow() -> None:
    require_flow(on_a_ladder("linear"))
    require_flow(on_a_ladder("floor"))
    found = log_density(on_a_ladder("linear").bind(None), torch.zeros(1, 2), NoNoise(), EXACT)
    assert found.status.tolist() == [0] and bool(found.nats.isfinite().all())


def test_a_process_that_stands_still_between_levels_is_refused() -> None:
    floor = Tabulated(GeometricSigmas(0.1, 5.0, 10), between="floor")
    score = FunctionScore(lambda x, t: -x, floor).bind(None)
    with pytest.raises(ValueError, match="between='linear'"):
        transport(score, torch.zeros(1, 2), 0.0, 1.0, FlowSettings())
    with pytest.raises(ValueError, match="between='linear'"):
        log_density(score, torch.zeros(1, 2), NoNoise(), FlowSettings())


def test_ladder_with_a_linear_rule_carries_quantiles_too() -> None:
    """The process of a table is continuous between its levels; its exact score has an exact flow."""
    process = Tabulated(GeometricSigmas(0.05, 20.0, 30))
    oracle = oracles.skewed_gaussian(process, 2)
    x = oracle.sample(2, 0.0)
    found = transport(oracle.bind(None), x, 0.0, 1.0, FlowSettings(1e-6, 1e-6))
    assert not found.status.any()
    torch.testing.assert_close(found.latent, gaussian_flow(oracle, x, 0.0, 1.0), rtol=FLOW_DENSITY, atol=FLOW_DENSITY)


def test_a_score_without_a_network_has_a_flow() -> None:
    scores: list[Score] = [FunctionScore(lambda x, t: -x, VE()), oracles.skewed_points(VP())]
    for score in scores:
        require_flow(score)
