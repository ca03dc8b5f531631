"""Time grids of samplers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limit
from hypothesis import strategies as st

from process.examples import BROWNIAN, PROCESSES, concrete
from scorefield._codec import dumps, loads
from scorefield.process import VE, VP, GeometricSigmas, Levels, LinearBetas, Process, SubVP, Tabulated
from scorefield.process.grids import EveryLevel, Focused, GeometricSigma, Grid, LogSNR, PowerSigma, Quadratic, Uniform
from tolerance import BISECTION, FLOAT64

FREE = (Uniform, Quadratic, LogSNR, GeometricSigma, PowerSigma, Focused)
SHOWN = [
    VE(),
    VP(),
    SubVP(),
    Tabulated(GeometricSigmas(0.01, 50.0, 232)),
    Tabulated(LinearBetas()),
    Tabulated(Levels((0.1, 0.3, 0.6), (0.99, 0.9, 0.3))),
]


def test_every_grid_is_here() -> None:
    of_this_room = {cls for cls in concrete(Grid) if cls.__module__.startswith("scorefield.process.")}
    assert of_this_room == {*FREE, EveryLevel}


@limit(max_examples=25)
@given(
    process=st.one_of(*PROCESSES.values()),
    grid=st.one_of(
        *(st.builds(cls, st.integers(1, 60)) for cls in FREE), st.builds(PowerSigma, st.just(9), st.floats(1, 9))
    ),
)
def test_grids_run_from_one_to_the_end(process: Process, grid: Any) -> None:
    t = grid.times(process)
    assert t.dtype == torch.float64
    assert t.shape == (grid.steps + 1,)
    assert (float(t[0]), float(t[-1])) == (1.0, process.t_min.sampling)
    assert bool((t.diff() < 0).all())


def equal_steps(values: torch.Tensor) -> None:
    steps = values.diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=BISECTION * 10, atol=BISECTION)


@pytest.mark.parametrize("process", SHOWN, ids=lambda p: type(getattr(p, "ladder", p)).__name__)
def test_steps_are_equal_in_the_named_clock(process: Process) -> None:
    equal_steps(Uniform(20).times(process))
    equal_steps(Quadratic(20).times(process).sqrt())
    equal_steps(process.log_snr(LogSNR(20).times(process)))
    equal_steps(process.sigma(GeometricSigma(20).times(process)).log())
    for rho in (1.0, 3.0, 7.0):
        ratio = (-0.5 * process.log_snr(PowerSigma(20, rho).times(process))).exp()
        equal_steps(ratio ** (1 / rho))
    log_ratio = -0.5 * process.log_snr(Focused(20, 0.3, 1.7).times(process))
    equal_steps(((log_ratio - math.log(0.3)) / 1.7).asinh())


def test_power_grid_is_the_published_one() -> None:
    """Karras et al. 2022, eq. 5, on VE: sigma_i = (a + i / N (b - a))^rho; a large rho is the geometric grid."""
    process = VE(0.002, 80.0)
    lowest = float(process.sigma(torch.tensor([process.t_min.sampling], dtype=torch.float64)))
    i = torch.arange(19, dtype=torch.float64)
    want = (80.0 ** (1 / 7) + i / 18 * (lowest ** (1 / 7) - 80.0 ** (1 / 7))) ** 7
    torch.testing.assert_close(process.sigma(PowerSigma(18).times(process)), want, rtol=BISECTION, atol=0)
    geometric = GeometricSigma(18).times(process)
    far = (PowerSigma(18, 1e5).times(process) - geometric).abs().max()
    assert float(far) < float((PowerSigma(18, 1e2).times(process) - geometric).abs().max()) / 100


@pytest.mark.parametrize("levels", [2, 10, 232])
@pytest.mark.parametrize("clean", [True, False])
def test_every_level(levels: int, clean: bool) -> None:
    process = Tabulated(GeometricSigmas(0.01, 50.0, levels), "floor")
    t = EveryLevel(clean).times(process)
    assert process.level(t).tolist() == list(range(levels - 1, -2 if clean else -1, -1))
    sigmas = process.ladder.table()[1].flip(0)
    torch.testing.assert_close(process.sigma(t)[:levels], sigmas, rtol=FLOAT64, atol=0)
    assert not clean or float(process.sigma(t)[-1]) == 0.0


def test_one_level() -> None:
    process = Tabulated(GeometricSigmas(0.1, 0.5, 1))
    assert EveryLevel().times(process).tolist() == [1.0, 0.0]
    for cls in FREE:
        with pytest.raises(ValueError, match=r"EveryLevel\(clean=True\)"):
            cls(5).times(process)


@pytest.mark.parametrize("between", ["linear", "floor"])
def test_focused_steps_on_levels(between: Any) -> None:
    process = Tabulated(GeometricSigmas(0.01, 50.0, 40), between)
    free = Focused(12).times(Tabulated(GeometricSigmas(0.01, 50.0, 40)))  # its log sigma is linear in t
    t = Focused(12, on_levels=True).times(process)
    levels = process.position(t)
    assert torch.equal(levels, levels.round()) and (float(t[0]), float(t[-1])) == (1.0, 0.0)
    assert len(t) == 13 and float((t - free).abs().max()) <= 0.5 / 39 + BISECTION
    crowded = Focused(60, on_levels=True).times(process)
    assert len(crowded) < 41 and bool((crowded.diff() < 0).all())


def test_a_general_process_has_grids_in_time_alone() -> None:
    for cls in (Uniform, Quadratic):
        t = cls(7).times(BROWNIAN)
        assert (len(t), float(t[-1])) == (8, BROWNIAN.t_min.sampling)
    for cls in (LogSNR, GeometricSigma, PowerSigma, Focused):
        with pytest.raises(ValueError, match=f"{cls.__name__} places steps by the noise level.*use Uniform"):
            cls(7).times(BROWNIAN)


def test_codec_round_trip() -> None:
    free = (Uniform(3), Quadratic(4), LogSNR(5), GeometricSigma(6), PowerSigma(7, 3.0), Focused(8, on_levels=True))
    for grid in (*free, EveryLevel(False)):
        assert loads(dumps(grid), Grid) == grid


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Uniform(0), "at least one step; got steps=0"),
        (lambda: LogSNR(-3), "got steps=-3"),
        (lambda: PowerSigma(5, 0.0), "rho must be positive and finite, .*; got 0.0"),
        (lambda: PowerSigma(0), "at least one step"),
        (lambda: Focused(5, centre=0.0), "centre and width must be positive"),
        (lambda: Focused(5, on_levels=True).times(VP()), "this process is VP"),
        (lambda: EveryLevel().times(VE()), "this one is VE; use Uniform"),
        (lambda: LogSNR(50).times(Tabulated(GeometricSigmas(0.1, 1.0, 4), "floor")), "between='linear'"),
    ],
)
def test_refusals(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
