"""Levels chosen from data: the published numbers of NCSNv2 and ACSM, and brute force."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limit
from hypothesis import strategies as st

from scorefield._codec import dumps, loads
from scorefield.process import GeometricSigmas, Tabulated
from scorefield.process.levels import (
    MAX_RATIO,
    LevelChoice,
    choose_levels,
    farthest_pair,
    langevin_step,
    langevin_variance_ratio,
    largest_distance,
    overlap_ladder,
    shell_overlap,
)
from tolerance import FLOAT32, FLOAT64, FOUR_DECIMALS, THREE_DIGITS

# sigma_max, side of the RGB images, L, T; ratio, overlap, variance ratio at the released step, best step; L for 0.5
PUBLISHED = {
    "cifar10": (50.0, 32, 232, 5, 6.2e-6, 1.037559, 0.5670, 1.0555, 6.18e-6, 219),
    "celeba": (90.0, 64, 500, 5, 3.3e-6, 1.018414, 0.5669, 1.0314, 3.34e-6, 472),
    "church": (140.0, 96, 788, 4, 4.9e-6, 1.012205, 0.5662, 1.0247, 2.31e-6, 745),
    "bedroom": (190.0, 128, 1086, 3, 1.8e-6, 1.009122, 0.5665, 1.0174, 1.77e-6, 1026),
    "ffhq": (348.0, 256, 2311, 3, 9e-7, 1.004537, 0.5669, 1.0089, 8.93e-7, 2182),
    "ncsn": (1.0, 32, 10, 100, 2e-5, 1.668101, 0.0, 1.1111, 3.23e-6, None),
}
RELEASES = pytest.mark.parametrize("name", PUBLISHED)


# ---------------------------------------------------------------------------------------------------- technique 1


@limit(max_examples=30)
@given(
    count=st.integers(2, 60),
    width=st.integers(1, 5),
    block=st.integers(1, 70),
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0.0, 1e3]),
    heavy=st.booleans(),
)
def test_largest_distance_is_exact(count: int, width: int, block: int, seed: int, offset: float, heavy: bool) -> None:
    """Every block size against all pairs, with outliers (where the search ends early) and without, and off centre."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (x**5 if heavy else x) + offset
    want = torch.pdist(x)
    distance, first, second = farthest_pair(x, block=block)
    assert distance == pytest.approx(float(want.max()), rel=FLOAT64 * (1 + offset))
    assert first < second
    assert float((x[first] - x[second]).norm()) == pytest.approx(distance, rel=FLOAT64)


def test_distance_of_points_on_a_sphere() -> None:
    """All examples are equally far from the mean, so no pair of blocks can be skipped."""
    angle = torch.arange(101, dtype=torch.float64) * 2 * math.pi / 101
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert largest_distance(x, block=8) == pytest.approx(2 * math.cos(math.pi / 202), rel=FLOAT64)


def test_distance_of_images_and_integers() -> None:
    x = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    x[1], x[2] = 3, 7
    assert farthest_pair(x) == (14.0, 0, 2)
    assert largest_distance(torch.ones(4, 3)) == 0.0
    half = torch.tensor([[0.0], [0.25], [-1.5]], dtype=torch.float16)
    assert largest_distance(half) == pytest.approx(1.75, rel=FLOAT32)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 3), r"N >= 2; got \(1, 3\)"),
        (torch.zeros(5), r"shape \(N, \*event\)"),
        (torch.tensor([[0.0], [math.nan]]), "not finite"),
        (torch.tensor([[0.0], [math.inf]]), "not finite"),
    ],
)
def test_distance_refuses(x: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        largest_distance(x)


# ---------------------------------------------------------------------------------------------------- technique 2


@RELEASES
def test_overlap_of_the_released_ladders(name: str) -> None:
    sigma_max, side, levels, _, _, ratio, overlap, *_ = PUBLISHED[name]
    sigmas = GeometricSigmas(0.01, sigma_max, levels).table()[1]
    gamma = float(sigmas[-1] / sigmas[-2])
    assert gamma == pytest.approx(ratio, abs=1e-2 * FOUR_DECIMALS)
    assert shell_overlap(gamma, 3 * side**2) == pytest.approx(overlap, abs=FOUR_DECIMALS)


@RELEASES
def test_levels_for_an_overlap_of_one_half(name: str) -> None:
    sigma_max, side, released, *_, levels = PUBLISHED[name]
    found, gamma = overlap_ladder(sigma_max, 0.01, 3 * side**2)
    assert levels is None or found == levels
    assert gamma == pytest.approx((sigma_max / 0.01) ** (1 / (found - 1)), rel=FLOAT64)
    if name != "ncsn":
        assert overlap_ladder(sigma_max, 0.01, 3 * side**2, PUBLISHED[name][6])[0] == pytest.approx(released, abs=1)


@pytest.mark.parametrize(
    ("ratio", "dimension", "overlap", "span", "steps"),
    [
        (0.963138, 3072, 0.5, 5e3, 226.8),
        (0.991791, 3072, 0.99, 5e3, 1033),
        (0.981223, 12288, 0.5, 1.4e4, 503.6),
        (0.995815, 12288, 0.99, 1.4e4, 2276),
    ],
)
def test_the_rule_with_the_ratio_below_one(
    ratio: float, dimension: int, overlap: float, span: float, steps: float
) -> None:
    """ACSM's numbers, printed to six digits of the ratio, whose overlap they fix to about 1e-4."""
    assert shell_overlap(ratio, dimension) == pytest.approx(overlap, abs=FOUR_DECIMALS)
    assert -math.log(span) / math.log(ratio) == pytest.approx(steps, rel=FOUR_DECIMALS * 10)


@limit(max_examples=40)
@given(
    dimension=st.integers(1, 50_000),
    overlap=st.floats(0.05, 0.99),
    span=st.floats(1.5, 1e5),
    sigma_min=st.floats(1e-3, 1),
)
def test_the_ladder_has_the_overlap(dimension: int, overlap: float, span: float, sigma_min: float) -> None:
    """One level more overlaps at least so much, one level fewer not, unless the ratio is held at its maximum."""
    levels, gamma = overlap_ladder(span * sigma_min, sigma_min, dimension, overlap)
    assert levels >= 2
    assert gamma ** (levels - 1) == pytest.approx(span, rel=FLOAT32)
    if shell_overlap(MAX_RATIO, dimension) >= overlap:
        assert gamma <= MAX_RATIO * (1 + FLOAT32)
        assert levels == 2 or span ** (1 / (levels - 2)) > MAX_RATIO * (1 - FLOAT32)
        return
    assert shell_overlap(span ** (1 / levels), dimension) >= overlap - FLOAT64
    if levels > 2:
        assert shell_overlap(span ** (1 / (levels - 2)), dimension) < overlap


def test_the_rule_says_nothing_in_few_dimensions() -> None:
    """sqrt(2 D) < 3: the overlap tends to one for wide gaps, so only the largest ratio holds."""
    assert shell_overlap(100.0, 2) > 0.99
    assert overlap_ladder(8.0, 0.01, 2) == (11, pytest.approx(800**0.1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1.0, 1.0, 10), "0 < sigma_min < sigma_max"),
        ((1.0, 0.0, 10), "0 < sigma_min"),
        ((math.inf, 0.1, 10), "got 0.1 and inf"),
        ((1.0, 0.1, 0), "dimension >= 1"),
        ((1.0, 0.1, 10, 1.0), "overlap <= 0.99"),
    ],
)
def test_overlap_refuses(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        overlap_ladder(*arguments)


# ---------------------------------------------------------------------------------------------------- technique 4


@RELEASES
def test_langevin_step_of_the_releases(name: str) -> None:
    sigma_max, _, levels, steps, released, _, _, variance, best, _ = PUBLISHED[name]
    sigmas = GeometricSigmas(0.01, sigma_max, levels).table()[1]
    gamma = float(sigmas[-1] / sigmas[-2])
    assert langevin_variance_ratio(released / 1e-4, gamma, steps) == pytest.approx(variance, abs=FOUR_DECIMALS)
    choice = langevin_step(sigmas.flip(0), steps)
    assert choice.step == pytest.approx(best, rel=THREE_DIGITS)
    assert choice.eta == pytest.approx(choice.step / 1e-4)
    assert choice.stable_below == pytest.approx(2e-4)


@pytest.mark.parametrize(("convention", "drift", "noise"), [("full", 1.0, 2.0), ("half", 0.5, 1.0)])
def test_the_variance_is_that_of_the_chain(convention: Any, drift: float, noise: float) -> None:
    """v <- (1 - c e / sigma^2)^2 v + d e for T steps, in the given convention, and no other step size is better."""
    sigmas = torch.tensor([0.2, 0.25, 0.3125], dtype=torch.float64)

    def reached(step: float, T: int) -> float:
        v = 0.25**2
        for _ in range(T):
            v = (1 - drift * step / 0.2**2) ** 2 * v + noise * step
        return v / 0.2**2

    for T in (1, 3, 10):
        choice = langevin_step(sigmas, T, convention)
        assert reached(choice.step, T) == pytest.approx(choice.variance_ratio, rel=FLOAT64)
        for other in torch.linspace(0.01, 0.999, 60).tolist():
            assert reached(other * choice.stable_below, T) >= choice.variance_ratio - FLOAT64
        assert reached(1.01 * choice.stable_below, 2000) > 10


def test_one_step_has_a_closed_form() -> None:
    """T = 1: (1 - eta)^2 gamma^2 + 2 eta is least at eta = 1 - 1 / gamma^2."""
    choice = langevin_step(torch.tensor([1.0, 1.3]), 1)
    assert choice.eta == pytest.approx(1 - 1 / 1.3**2, rel=FLOAT32)


def test_the_widest_gap_decides() -> None:
    wide, narrow = torch.tensor([0.1, 0.11, 0.15]), torch.tensor([0.1, 0.11])
    assert langevin_step(wide, 5).variance_ratio > langevin_step(narrow, 5).variance_ratio
    assert langevin_step(wide, 5).eta == pytest.approx(langevin_step(torch.tensor([1.1, 1.5]), 5).eta, rel=FLOAT32)


@pytest.mark.parametrize(
    ("sigmas", "steps", "convention", "words"),
    [
        ([0.1], 5, "full", "two or more"),
        ([0.1, 0.1], 5, "full", "distinct"),
        ([-0.1, 0.1], 5, "full", "positive"),
        ([0.1, 0.2], 0, "full", "steps must be 1 or more"),
        ([0.1, 0.2], 5, "third", "'full' or 'half'"),
    ],
)
def test_step_refuses(sigmas: list[float], steps: int, convention: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        langevin_step(torch.tensor(sigmas), steps, convention)


# ---------------------------------------------------------------------------------------------------- all three


def data(count: int = 300, *event: int) -> torch.Tensor:
    return torch.rand(count, *(event or (1, 8, 8)), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_choose_levels() -> None:
    x = data()
    choice = choose_levels(x)
    sigma_max = largest_distance(x)
    assert choice.ladder.sigma_max == sigma_max
    assert choice.ladder.sigma_min == 0.01
    assert choice.ladder.levels == overlap_ladder(sigma_max, 0.01, 64)[0]
    assert choice.langevin_step == langevin_step(choice.ladder.table()[1], choice.langevin_steps).step
    assert choice.langevin_steps == max(3, round(1000 / choice.ladder.levels))
    assert Tabulated(choice.ladder).levels == choice.ladder.levels
    assert loads(dumps(choice), LevelChoice) == choice


def test_the_reasons_say_the_numbers() -> None:
    choice = choose_levels(data(), langevin_steps=7, convention="half")
    text = "\n".join(choice.reasons)
    for part in (
        f"sigma_max = {choice.ladder.sigma_max:.4g}", "all 300 examples", "sigma_min = 0.01", "model units",
        f"{choice.ladder.levels} levels", "0.5 wanted", f"step size is {choice.langevin_step:.3g}",
        "7 steps per level", f"{7 * choice.ladder.levels} network evaluations", "(e/2) s + sqrt(e) z",
        "Technique 1", "Technique 2", "Technique 4",
    ):  # fmt: skip
        assert part in text
    assert "e s + sqrt(2 e) z" in choose_levels(data()).reasons[-1]
    assert f"a ratio of {MAX_RATIO:g}, the largest" in choose_levels(data(50, 2)).reasons[2]


def test_conventions_differ_by_two() -> None:
    full, half = choose_levels(data()), choose_levels(data(), convention="half")
    assert half.langevin_step == pytest.approx(2 * full.langevin_step, rel=FLOAT64)
    assert half.ladder == full.ladder


def test_a_stated_subset() -> None:
    """More examples than `examples`: a random subset, the same for the same seed, with indices into all the data."""
    x = data()
    x[17], x[200] = -9.0, 9.0
    assert choose_levels(x).ladder.sigma_max == pytest.approx(18.0 * 8.0)
    assert "numbers 17 and 200" in choose_levels(x).reasons[0]
    few = choose_levels(x, examples=40, seed=3)
    assert "a random 40 of 300 examples" in few.reasons[0]
    assert few == choose_levels(x, examples=40, seed=3)
    first, second = (int(word) for word in few.reasons[0].split("numbers ")[1].split(")")[0].split(" and"))
    assert float((x[first] - x[second]).norm()) == pytest.approx(few.ladder.sigma_max, rel=FLOAT32)


def test_a_published_choice() -> None:
    """Two images at distance 50 in 3 x 32 x 32: the ladder of an overlap of one half, T = 5, the release's step."""
    x = torch.zeros(2, 3, 32, 32)
    x[1] = 50.0 / math.sqrt(3072)
    choice = choose_levels(x)
    assert (choice.ladder.levels, choice.langevin_steps) == (219, 5)
    assert choice.ladder.sigma_max == pytest.approx(50.0, rel=FLOAT32)
    assert 6e-6 < choice.langevin_step < 7e-6


@pytest.mark.parametrize(
    ("x", "arguments", "words"),
    [
        (torch.ones(5, 3), {}, "0, which is not above sigma_min = 0.01"),
        (data(5, 2) * 1e-4, {}, "Pass a smaller sigma_min"),
        (torch.empty(0, 3), {}, "N >= 2"),
        (data(), {"langevin_steps": -1}, "steps must be 1 or more"),
        (data(), {"examples": 1}, "N >= 2"),
    ],
)
def test_choose_refuses(x: torch.Tensor, arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        choose_levels(x, **arguments)
