"""The arguments that objectives pass to the score, what they refuse, and their JSON form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from losses.cases import CONTINUOUS, PROCESSES, Recorded, Zero, rate, sigma_squared, some_times
from scorefield._codec import CodecError, dumps, loads, record_types
from scorefield._typing import Condition
from scorefield.losses import Custom, DenoisingScoreMatching, Draw, Likelihood, NoiseVariance, Objective, Weighting
from scorefield.process import VE, VP, GeneralSDE, GeometricSigmas, LinearBetas, Process, Tabulated, TimeLimits
from scorefield.score import FunctionScore, LevelLabel, NetworkScore, NoiseForm, ScaledScoreForm, ScaledTime, oracles
from tolerance import FLOAT32, FLOAT64, MOMENT_EQUATIONS

OBJECTIVES = [
    DenoisingScoreMatching(),
    DenoisingScoreMatching(Likelihood(), "half_sum", stratified=True),
    DenoisingScoreMatching(Custom(sigma_squared), levels=Tabulated(LinearBetas(levels=50))),
]


def batch(process: Process, *event: int) -> tuple[Tensor, Draw]:
    t = some_times(process)
    generator = torch.Generator().manual_seed(1)
    x0, z = torch.randn(2, len(t), *event, generator=generator)
    return x0, Draw(t, z)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_loss_of_an_example_does_not_depend_on_its_batch(name: str) -> None:
    """Permuting the batch permutes the losses, and a batch of one example has the same loss."""
    process = PROCESSES[name]
    score = NetworkScore(Recorded(), process, NoiseForm(), ScaledTime())
    x0, draw = batch(process, 2, 3)
    loss = DenoisingScoreMatching()(score, x0, draw)
    assert loss.shape == (5,) and loss.dtype == torch.float32
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(DenoisingScoreMatching()(score, x0[order], Draw(draw.t[order], draw.z[order])), loss[order])
    alone = [
        DenoisingScoreMatching()(score, x0[i : i + 1], Draw(draw.t[i : i + 1], draw.z[i : i + 1])) for i in range(5)
    ]
    torch.testing.assert_close(torch.cat(alone), loss, rtol=FLOAT32, atol=0.0)


def test_condition_reaches_the_network() -> None:
    net = Recorded()
    x0, draw = batch(VP(), 3)
    condition = {"class": torch.tensor([0, 1, 2, -1, 0])}
    DenoisingScoreMatching()(NetworkScore(net, VP(), NoiseForm(), ScaledTime()), x0, draw, condition)
    DenoisingScoreMatching()(NetworkScore(net, VP(), NoiseForm(), ScaledTime()), x0, draw)
    assert [seen[2] for seen in net.seen] == [condition, None]
    assert len(net.seen) == 2  # one network call each


def test_gradients_reach_the_network_and_are_finite() -> None:
    net = Recorded()
    x0, draw = batch(VE(), 3)
    DenoisingScoreMatching()(NetworkScore(net, VE(), ScaledScoreForm(), ScaledTime()), x0, draw).mean().backward()
    assert net.slope.grad is not None and bool(net.slope.grad.isfinite()) and float(net.slope.grad) != 0.0


@pytest.mark.parametrize("name", CONTINUOUS)
def test_custom_weightings_agree_with_the_named_ones(name: str) -> None:
    process = PROCESSES[name]
    x0, draw = batch(process, 3)
    for function, named in ((sigma_squared, NoiseVariance()), (rate, Likelihood())):
        custom = DenoisingScoreMatching(Custom(function))(Zero(process), x0, draw)
        expected = DenoisingScoreMatching(named)(Zero(process), x0, draw)
        torch.testing.assert_close(custom, expected, rtol=FLOAT32, atol=0.0)


def test_discrete_noise_regression() -> None:
    """DDPM's loss: (net(sqrt(abar) x + sqrt(1 - abar) z, label) - z)^2 with integer labels, on the process VP."""
    table, net = Tabulated(LinearBetas(levels=100)), Recorded()
    objective = DenoisingScoreMatching(levels=table)
    score = NetworkScore(net, VP(), NoiseForm(), LevelLabel(), levels=table)
    x0, draw = batch(table, 2, 3)
    loss = objective(score, x0, draw)
    labels = table.level(draw.t)
    kept = torch.cumprod(1 - torch.linspace(0.001, 0.2, 100, dtype=torch.float64), 0)[labels].float()[:, None, None]
    x_t = kept.sqrt() * x0 + (1 - kept).sqrt() * draw.z
    seen, c, _ = net.seen[0]
    assert torch.equal(c, labels.float()) and set(labels.tolist()) >= {0, 99}
    torch.testing.assert_close(seen, x_t, rtol=FLOAT32, atol=FLOAT32)
    torch.testing.assert_close(loss, (net(x_t, c) - draw.z).square().flatten(1).mean(1), rtol=FLOAT32, atol=0.0)


def test_discrete_score_regression() -> None:
    """SMLD's loss: sigma^2 |net(x + sigma z, label) / sigma + z / sigma|^2 / 2, label 0 the most noise, on VE."""
    table, net = Tabulated(GeometricSigmas(0.01, 5.0, 12)), Recorded()
    objective = DenoisingScoreMatching(reduce="half_sum", levels=table)
    score = NetworkScore(net, VE(0.01, 5.0), ScaledScoreForm(), LevelLabel(descending=True), levels=table)
    x0, draw = batch(table, 2, 3)
    loss = objective(score, x0, draw)
    labels = 11 - table.level(draw.t)
    sigma = torch.logspace(torch.tensor(5.0).log10(), -2, 12, dtype=torch.float64)[labels].float()[:, None, None]
    noise = sigma * draw.z
    residual = net(x0 + noise, labels.float()) / sigma + noise / sigma**2
    expected = 0.5 * residual.square().flatten(1).sum(1) * sigma.flatten() ** 2
    assert torch.equal(net.seen[0][1], labels.float())
    torch.testing.assert_close(loss, expected, rtol=FLOAT32, atol=0.0)


def test_likelihood_weighting_is_refused_on_a_ladder() -> None:
    ladder = PROCESSES["sigmas"]
    x0, draw = batch(ladder, 3)
    with pytest.raises(ValueError, match=r"12 levels.*Custom"):
        DenoisingScoreMatching(Likelihood())(Zero(ladder), x0, draw)


# ---------------------------------------------------------------------------------------------------- general SDEs


def vp_drift(x: Tensor, t: Tensor) -> Tensor:
    return VP().drift(x, t)


def vp_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return VP().diffusion(t)


def curved_drift(x: Tensor, t: Tensor) -> Tensor:
    return -(x**3)


LIMITS = TimeLimits(1e-3, 1e-3, 1e-3)


def general_score(process: GeneralSDE, function) -> FunctionScore:
    return FunctionScore(function, process)  # type: ignore[arg-type]


def test_general_sde_with_the_coefficients_of_vp_has_the_loss_of_vp() -> None:
    general = GeneralSDE(vp_drift, vp_diffusion, affine=True, state_dependent=False, t_min=LIMITS)
    oracle = oracles.skewed_gaussian(VP(), 2)
    x0, t = oracle.sample(4), torch.tensor([1e-3, 0.1, 0.5, 1.0], dtype=torch.float64)
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = DenoisingScoreMatching()(oracle, x0, Draw(t, z))
    loss = DenoisingScoreMatching()(general_score(general, oracle.__call__), x0, Draw(t, z))
    torch.testing.assert_close(loss, expected, rtol=MOMENT_EQUATIONS, atol=0.0)


def test_general_sde_takes_no_other_weight_and_no_curved_drift() -> None:
    general = GeneralSDE(vp_drift, vp_diffusion, affine=True, state_dependent=False, t_min=LIMITS)
    x0, draw = batch(VP(), 2)
    draw = Draw(draw.t.clamp_min(1e-3), draw.z)
    with pytest.raises(ValueError, match="NoiseVariance"):
        DenoisingScoreMatching(Likelihood())(general_score(general, lambda x, t: -x), x0, draw)
    curved = GeneralSDE(curved_drift, vp_diffusion, state_dependent=False, t_min=LIMITS)
    with pytest.raises(ValueError, match="sliced score matching"):
        DenoisingScoreMatching()(general_score(curved, lambda x, t: -x), x0, draw)


# ---------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_round_trip_through_json(objective: Objective) -> None:
    read = loads(dumps(objective), Objective, trust=["losses.cases"])  # where the function of Custom is defined
    assert read == objective and type(read) is type(objective)


def test_every_weighting_is_known_to_the_codec() -> None:
    assert {NoiseVariance, Likelihood, Custom} <= set(record_types(Weighting).values())


def test_a_weight_without_a_name_is_not_saved() -> None:
    with pytest.raises(CodecError, match="function"):
        dumps(DenoisingScoreMatching(Custom(lambda process, t: t)))


def test_a_bound_condition_and_a_plain_call_agree() -> None:
    """A score with a bound condition has the same loss as the score called with that condition."""
    oracle = oracles.skewed_mixture(VP(), 2)
    x0, draw = batch(VP(), 2)
    condition: Condition = {"class": torch.zeros(5, dtype=torch.int64)}
    plain = DenoisingScoreMatching()(oracle, x0.double(), Draw(draw.t, draw.z.double()), condition)
    bound = DenoisingScoreMatching()(oracle.bind(condition), x0.double(), Draw(draw.t, draw.z.double()))
    torch.testing.assert_close(plain, bound, rtol=FLOAT64, atol=0.0)
