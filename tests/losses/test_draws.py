"""The random numbers of the losses: distributions of times, levels and noise, and on what they depend."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from losses.cases import CONTINUOUS, PROCESSES, Zero
from scorefield.losses import DenoisingScoreMatching, Draw
from scorefield.process import VE, VP, GeneralSDE, GeometricSigmas, LinearBetas, Process, Tabulated, TimeLimits
from tolerance import FLOAT32, SIGNIFICANCE

LADDERS = {name: p for name, p in PROCESSES.items() if isinstance(p, Tabulated)}


def drawn(process: Process, batch: int, seed: int = 0, event: tuple[int, ...] = (), **fields) -> Draw:
    like = torch.empty(batch, *event)
    return DenoisingScoreMatching(**fields).draw(process, like, torch.Generator().manual_seed(seed))


def unit(process: Process, t: Tensor) -> Tensor:
    """t mapped from [t_min.training, 1] to [0, 1]."""
    low = process.t_min.training
    return (t - low) / (1.0 - low)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_times_lie_between_the_training_limit_and_one(name: str, stratified: bool) -> None:
    process = PROCESSES[name]
    t = drawn(process, 4096, stratified=stratified).t
    assert t.shape == (4096,) and t.dtype == torch.float64 and t.device.type == "cpu"
    assert process.t_min.training <= float(t.min()) < 1e-3 and 0.999 < float(t.max()) < 1.0


def still(x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(x)


def test_a_late_training_limit_is_the_first_time_drawn() -> None:
    process = GeneralSDE(still, still, "diagonal", t_min=TimeLimits(0.25, 0.1, 0.1))
    t = (
        DenoisingScoreMatching(stratified=True)
        .draw(
            process,  # type: ignore[arg-type]
            torch.empty(1000, 2),
            torch.Generator().manual_seed(0),
        )
        .t
    )
    assert 0.25 <= float(t.min()) < 0.25 + 0.75e-3 and 1.0 - 0.75e-3 <= float(t.max()) < 1.0


@pytest.mark.parametrize("batch", [1, 7, 128])
def test_stratified_times_take_every_part_once_in_random_order(batch: int) -> None:
    parts = torch.stack([(unit(VP(), drawn(VP(), batch, s, stratified=True).t) * batch).floor() for s in range(8)])
    assert torch.equal(parts.sort(dim=1).values, torch.arange(batch).double().expand(8, -1))
    if batch > 1:  # the assignment of times to examples is random
        assert len(parts.unique(dim=0)) == 8


@pytest.mark.parametrize("stratified", [False, True])
def test_times_of_one_example_are_uniform(stratified: bool) -> None:
    """The time of the first example over many batches; a distribution that slightly favours small times is rejected."""
    u = torch.stack([unit(VP(), drawn(VP(), 2, seed, stratified=stratified).t)[0] for seed in range(4000)]).numpy()
    assert stats.kstest(u, "uniform").pvalue > SIGNIFICANCE
    assert stats.kstest(u**1.2, "uniform").pvalue < SIGNIFICANCE


@pytest.mark.parametrize("name", LADDERS)
def test_stratified_levels_are_equally_frequent(name: str) -> None:
    ladder = LADDERS[name]
    levels = ladder.level(drawn(ladder, 4 * ladder.levels, stratified=True).t)
    assert torch.equal(levels.bincount(), torch.full((ladder.levels,), 4))


def test_levels_are_uniform() -> None:
    """The mutant that rounds to the nearest level draws the first and last level half as often and is rejected."""
    ladder, n, count = PROCESSES["sigmas"], 12, 12_000
    assert isinstance(ladder, Tabulated)
    t = drawn(ladder, count).t
    levels = ladder.level(t)
    assert torch.equal(ladder.time(levels), t)
    assert stats.chisquare(levels.bincount(minlength=n).numpy()).pvalue > SIGNIFICANCE
    u = torch.rand(count, generator=torch.Generator().manual_seed(1))
    rounded = (u * (n - 1)).round().long()
    assert stats.chisquare(rounded.bincount(minlength=n).numpy()).pvalue < SIGNIFICANCE


def test_levels_given_to_the_objective_replace_the_times_of_the_process() -> None:
    table = Tabulated(LinearBetas(levels=50))
    t = drawn(VP(), 100, levels=table, stratified=True).t
    assert torch.equal(table.time(table.level(t)), t)
    assert set(table.level(t).tolist()) == set(range(50))


def test_a_ladder_of_one_level_is_drawn_at_time_one() -> None:
    assert torch.equal(drawn(Tabulated(GeometricSigmas(levels=1)), 5).t, torch.ones(5, dtype=torch.float64))


def test_draws_are_a_function_of_the_generator() -> None:
    objective, shape = DenoisingScoreMatching(stratified=True), (6, 2, 3)

    def draw(like: Tensor) -> Draw:
        return objective.draw(VE(), like, torch.Generator().manual_seed(3))

    first = draw(torch.zeros(shape))
    torch.manual_seed(11)
    torch.set_default_dtype(torch.float64)
    try:
        wide = draw(torch.full(shape, 7.0, dtype=torch.float64))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(first.t, wide.t)
    assert wide.z.dtype == torch.float64 and torch.equal(first.z.double(), wide.z)
    generator = torch.Generator().manual_seed(3)
    again, later = (objective.draw(VE(), torch.zeros(shape), generator) for _ in range(2))
    assert torch.equal(first.z, again.z) and not torch.equal(again.z, later.z) and not torch.equal(again.t, later.t)


def test_an_empty_batch_draws_nothing() -> None:
    draw = drawn(VP(), 0, event=(3,), stratified=True)
    assert draw.t.shape == (0,) and draw.z.shape == (0, 3)


def test_a_zero_network_loses_the_square_of_the_noise() -> None:
    """The expected loss is 1 with "mean" and D / 2 = 1536 with "half_sum"; noise 5 percent too large is rejected."""
    x0 = torch.zeros(64, 3, 32, 32)
    draw = drawn(VP(), 64, event=(3, 32, 32))
    mean = DenoisingScoreMatching()(Zero(VP()), x0, draw)
    half_sum = DenoisingScoreMatching(reduce="half_sum")(Zero(VP()), x0, draw)
    torch.testing.assert_close(mean, draw.z.square().flatten(1).mean(1), rtol=FLOAT32, atol=0.0)
    torch.testing.assert_close(half_sum, 1536 * mean, rtol=FLOAT32, atol=0.0)
    count = x0.numel()
    low, high = stats.chi2.ppf([SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2], count) / count
    assert low < float(mean.double().mean()) < high
    assert not low < float(1.05**2 * mean.double().mean()) < high
