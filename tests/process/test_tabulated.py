"""Ladders: the level of a time, and the process between the levels and below them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limit
from hypothesis import strategies as st

from process.examples import LADDERS, concrete
from scorefield._codec import dumps, loads
from scorefield.process import GeometricSigmas, Levels, LinearBetas, LinearSigmas, Tabulated
from scorefield.process.tabulated import SNAP, Ladder
from tolerance import FLOAT32, FLOAT64


def ladder_of(levels: int, between: Any = "linear") -> Tabulated:
    return Tabulated(GeometricSigmas(0.01, 50.0, levels), between)


def test_every_ladder_is_here() -> None:
    assert concrete(Ladder) == {GeometricSigmas, LinearBetas, LinearSigmas, Levels}


# ---------------------------------------------------------------------------------------------------- indexing


@pytest.mark.parametrize("levels", [2, 10, 232, 1000, 2000, 2311])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_label_finds_its_level(levels: int, dtype: torch.dtype) -> None:
    """t = 1 - l / (L - 1) for the published label l, 0 the most noise, in the precision of a training loop."""
    process = ladder_of(levels)
    label = torch.arange(levels)
    t = 1.0 - label.to(dtype) / (levels - 1)
    assert torch.equal(process.level(t), levels - 1 - label)
    sigmas = process.ladder.table()[1].flip(0)
    torch.testing.assert_close(process.sigma(t).double(), sigmas, rtol=FLOAT32, atol=0)


def test_a_plain_floor_would_not() -> None:
    """The reason for snapping: 45 of 232 labels."""
    t = 1.0 - torch.arange(232).float() / 231
    assert int(((t * 231).floor().long() != torch.arange(231, -1, -1)).sum()) == 45


@pytest.mark.parametrize(
    ("levels", "epsilon"), [(1000, 1e-5), (1000, 1e-3), (2000, 1e-5), (500, 1e-3), (500, 1e-5), (100, 1e-3)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_published_sampling_grid(levels: int, epsilon: float, dtype: torch.dtype) -> None:
    """linspace(1, eps, N) visits level N - 1 - i at its point i, in both precisions, the last at t = eps too."""
    t = torch.linspace(1.0, epsilon, levels, dtype=dtype)
    assert torch.equal(ladder_of(levels).level(t), torch.arange(levels - 1, -1, -1))


def test_the_published_grid_that_is_off_by_one() -> None:
    """N = 2000 with eps = 1e-3: the release's floor is one too high from i = 1000 on, and so is ours."""
    t = torch.linspace(1.0, 1e-3, 2000, dtype=torch.float64)
    off = ladder_of(2000).level(t) - torch.arange(1999, -1, -1)
    i = torch.arange(2000)
    assert torch.equal(off[i < 999], torch.zeros(999, dtype=torch.int64))
    assert torch.equal(off[i > 1001], torch.ones(998, dtype=torch.int64))


@limit(max_examples=15)
@given(levels=st.integers(2, 3000), level=st.integers(0, 2999), inside=st.floats(0.0, 1.0))
def test_floor_and_snap(levels: int, level: int, inside: float) -> None:
    process = ladder_of(levels)
    level = level % (levels - 1)
    between = torch.tensor([(level + 2 * SNAP + inside * (1 - 4 * SNAP)) / (levels - 1)], dtype=torch.float64)
    near = torch.tensor([level - 0.9 * SNAP, level + 0.9 * SNAP], dtype=torch.float64) / (levels - 1)
    assert process.level(between).tolist() == [level]
    assert process.level(near).tolist() == [level, level]
    assert process.position(near).tolist() == [level, level]
    assert process.level(process.time(torch.tensor([level]))).tolist() == [level]


def test_beyond_the_ladder() -> None:
    process = ladder_of(10)
    assert process.level(torch.tensor([-1 / 9, -0.5, -0.02, 1.0, 1.3])).tolist() == [-1, -1, -1, 9, 9]
    assert process.sigma(torch.tensor([1.3])).tolist() == [50.0]


# ---------------------------------------------------------------------------------------------------- the ends


@limit(max_examples=15)
@given(ladder=LADDERS, between=st.sampled_from(["linear", "floor"]))
def test_below_level_zero_there_is_no_noise(ladder: Ladder, between: Any) -> None:
    process = Tabulated(ladder, between)
    below, lowest = process.time(torch.tensor([-1])), process.time(torch.tensor([0]))
    assert (float(process.alpha(below)), float(process.sigma(below))) == (1.0, 0.0)
    a, b = process.kernel(below, lowest)
    assert float(a) == float(process.alpha(lowest))
    torch.testing.assert_close(b, process.sigma(lowest), rtol=FLOAT64, atol=0)
    with pytest.raises(ValueError, match="least noise"):
        process.check_time(below)


@pytest.mark.parametrize("between", ["linear", "floor"])
@pytest.mark.parametrize("ladder", [GeometricSigmas(0.01, 2.0, 1), LinearBetas(0.1, 0.5, 1), Levels((2.0,))])
def test_one_level(ladder: Ladder, between: Any) -> None:
    process = Tabulated(ladder, between)
    assert process.levels == 1
    assert process.time(torch.tensor([0, -1])).tolist() == [1.0, 0.0]
    assert process.level(torch.tensor([1.0, 0.0])).tolist() == [0, -1]
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(process.sigma(one), ladder.table()[1], rtol=FLOAT64, atol=0)
    assert float(process.sigma(zero)) == 0.0
    assert process.t_min.smallest == 1.0
    assert process.time_at_sigma(torch.tensor([2.0, 0.1])).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"of one level.*kernel\(s, t\)"):
        process.diffusion(one)


# ---------------------------------------------------------------------------------------------------- between levels


@limit(max_examples=15)
@given(ladder=LADDERS)
def test_levels_are_the_table(ladder: Ladder) -> None:
    alphas, sigmas = ladder.table()
    for between in ("linear", "floor"):
        process = Tabulated(ladder, between)
        t = process.time(torch.arange(process.levels))
        torch.testing.assert_close(process.alpha(t), alphas, rtol=FLOAT64, atol=0)
        torch.testing.assert_close(process.sigma(t), sigmas, rtol=FLOAT64, atol=0)


@limit(max_examples=15)
@given(ladder=LADDERS, u=st.floats(0.01, 0.99), level=st.integers(0, 10_000))
def test_between_rules(ladder: Ladder, u: float, level: int) -> None:
    """linear: the geometric mean weighted by the position; floor: the level below."""
    alphas, sigmas = ladder.table()
    k = level % (len(sigmas) - 1)
    t = torch.tensor([(k + u) / (len(sigmas) - 1)], dtype=torch.float64)
    linear, floor = Tabulated(ladder, "linear"), Tabulated(ladder, "floor")
    for table, function in ((alphas, "alpha"), (sigmas, "sigma")):
        torch.testing.assert_close(
            getattr(linear, function)(t).log(), (1 - u) * table[k : k + 1].log() + u * table[k + 1 : k + 2].log(),
            rtol=FLOAT64, atol=FLOAT64,
        )  # fmt: skip
        assert float(getattr(floor, function)(t)) == float(table[k])


def test_the_rate_at_the_top_is_that_of_the_last_interval() -> None:
    """A sampler starts at t = 1; a rate of zero there would waste its first step."""
    process = ladder_of(1000)
    t = torch.tensor([1.0, 1.0 - 0.5 / 999], dtype=torch.float64)
    rate = process.diffusion_squared(t) / process.sigma(t) ** 2
    torch.testing.assert_close(rate[0], rate[1], rtol=FLOAT64, atol=0)
    assert float(rate[0]) > 0


def test_a_staircase_has_no_rate() -> None:
    process = ladder_of(10, "floor")
    t, x = torch.tensor([0.5]), torch.ones(1, 2)
    for call in (lambda: process.diffusion(t), lambda: process.drift(x, t), lambda: process.reverse_drift(x, t, x)):
        with pytest.raises(ValueError, match="between='linear'"):
            call()


def test_the_ladder_of_ve_is_ve() -> None:
    """Between its levels the geometric ladder is VE itself: same sigma and same diffusion at every t."""
    from scorefield.process import VE

    ve, process = VE(0.01, 50.0), ladder_of(37)
    t = torch.linspace(0.001, 1, 57, dtype=torch.float64)
    torch.testing.assert_close(process.sigma(t), ve.sigma(t), rtol=FLOAT64, atol=0)
    torch.testing.assert_close(process.diffusion(t), ve.diffusion(t), rtol=FLOAT64, atol=0)
    assert process.prior_std == pytest.approx(ve.prior_std)


# ---------------------------------------------------------------------------------------------------- refusals, codec


@limit(max_examples=15)
@given(ladder=LADDERS)
def test_ladders_are_saved(ladder: Ladder) -> None:
    assert loads(dumps(ladder), Ladder) == ladder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GeometricSigmas(0.0, 1.0, 10), "0 < sigma_min"),
        (lambda: GeometricSigmas(2.0, 1.0, 10), "got 2.0, 1.0 and 10"),
        (lambda: GeometricSigmas(0.1, 1.0, 0), "levels >= 1"),
        (lambda: GeometricSigmas(1.0, 1.0, 10), "pass levels=1"),
        (lambda: LinearBetas(0.1, 20.0, 20), "more than 20 levels"),
        (lambda: LinearBetas(0.0, 20.0, 1000), "0 < beta_min"),
        (lambda: Levels(()), "positive and increase"),
        (lambda: Levels((0.2, 0.1)), "increase strictly"),
        (lambda: Levels((0.1, float("nan"))), "positive and increase"),
        (lambda: Levels((0.1, 0.2), (1.0,)), "2 positive numbers"),
        (lambda: Levels((0.1, 0.2), (0.4, 0.9)), "sigma / alpha must increase"),
    ],
)
def test_bad_ladders(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
