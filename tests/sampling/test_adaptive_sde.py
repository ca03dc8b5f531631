"""Adaptive steps of the reverse SDE on a Brownian tree."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sampling.doubles import Generated
from scorefield._random import IndexedNoise, StepNoise
from scorefield.process import VE, VP, GeometricSigmas, Process, SubVP, Tabulated
from scorefield.process.grids import EveryLevel, Uniform
from scorefield.sampling import Sampler
from scorefield.sampling.adaptive_sde import AdaptiveSDE, BrownianTree
from scorefield.score import FunctionScore
from scorefield.score.oracles import Gaussian, skewed_mixture
from tolerance import FLOAT64, SAMPLES_EQUAL, SIGNIFICANCE

F64 = torch.float64


def clock(u: float) -> float:
    return 0.2 + 3.0 * u**2


def tree(batch: int, seed: int = 0) -> BrownianTree:
    return BrownianTree(clock, StepNoise(IndexedNoise(seed, range(batch)), 0), torch.empty(batch, 1, dtype=F64))


def test_a_point_is_the_same_by_every_way_and_for_every_batch() -> None:
    everyone, alone = tree(5), tree(5)
    for index, depth in ((3, 3), (6, 4), (12, 5)):
        assert torch.equal(everyone.value(index, depth, range(5)), everyone.value(3, 3, range(5)))
        assert torch.equal(alone.value(index, depth, [2]), everyone.value(3, 3, range(5))[2:3])
    assert not everyone.value(0, 4, range(5)).any()
    assert torch.equal(everyone.value(16, 4, range(5)), everyone.value(1, 0, range(5)))


def test_increments_are_those_of_brownian_motion() -> None:
    """Increments are independent with mean 0 and variance w_b - w_a; a bridge with the wrong variance is rejected."""
    n = 20_000

    def worst(spread: float) -> float:
        made = BrownianTree(clock, StepNoise(Generated(3, spread), 0), torch.empty(n, 1, dtype=F64))
        # Generated noise is not keyed, so each point is asked for once.
        quarter, half, whole = _three(made)
        parts = torch.stack([quarter, half - quarter, whole - half], dim=1)
        w = [clock(u) for u in (0.0, 0.25, 0.5, 1.0)]
        scaled = parts / torch.tensor([b - a for a, b in zip(w, w[1:], strict=False)], dtype=F64).sqrt()
        correlation = scaled.T @ scaled / n
        z = (correlation - torch.eye(3, dtype=F64)) * n**0.5
        return 9 * math.erfc(float(z.abs().max()) / 2.0)

    assert worst(1.0) > SIGNIFICANCE > worst(1.05)


def _three(made: BrownianTree) -> tuple[Tensor, Tensor, Tensor]:
    """W at 1/4, 1/2 and 1 of one path, computed by hand from the tree's own draws."""
    rows = range(len(made._like))
    whole = made._draw(0, math.sqrt(clock(1.0) - clock(0.0)), rows)
    a, m, b = clock(0.0), clock(0.5), clock(1.0)
    half = (m - a) / (b - a) * whole + made._draw(1, math.sqrt((m - a) * (b - m) / (b - a)), rows)
    a, m, b = clock(0.0), clock(0.25), clock(0.5)
    quarter = (m - a) / (b - a) * half + made._draw(2, math.sqrt((m - a) * (b - m) / (b - a)), rows)
    return quarter[:, 0], half[:, 0], whole[:, 0]


def test_the_tree_bridges_as_by_hand() -> None:
    made = tree(7)
    quarter, half, whole = _three(made)
    assert torch.allclose(made.value(1, 2, range(7))[:, 0], quarter, rtol=FLOAT64)
    assert torch.allclose(made.value(2, 2, range(7))[:, 0], half, rtol=FLOAT64)
    assert torch.allclose(made.value(1, 0, range(7))[:, 0], whole, rtol=FLOAT64)


PROCESSES = {
    "VE": VE(0.01, 5.0),
    "VP": VP(),
    "sub-VP": SubVP(),
    "ladder": Tabulated(GeometricSigmas(0.01, 5.0, 60)),
}


def sampler(process: Process, tolerance: float) -> Sampler:
    return Sampler(AdaptiveSDE(tolerance, tolerance), Uniform(1), final="none")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("VE", "sub-VP", "ladder")]


@pytest.mark.parametrize("name", ["VP", *SLOW])
def test_the_law_of_a_gaussian(name: str) -> None:
    process = PROCESSES[name]
    target = Gaussian(process, torch.tensor([0.7, -2.0], dtype=F64), 0.3)
    run = sampler(process, 0.02).run(target, (2,), indices=range(400), seed=5, dtype=F64)
    assert not run.status.any()
    variance = 0.3 + float(process.sigma(torch.tensor([process.t_min.sampling], dtype=F64))) ** 2

    def p_value(x: Tensor) -> float:
        z = (x.var(dim=0) / variance - 1.0) * (len(x) / 2.0) ** 0.5
        shift = (x.mean(dim=0) - target.mean) * (len(x) / variance) ** 0.5
        return 4 * math.erfc(float(torch.cat([z, shift]).abs().max()) / math.sqrt(2.0))

    assert p_value(run.x) > SIGNIFICANCE
    centre = run.x.mean(dim=0)
    assert p_value(centre + 1.35 * (run.x - centre)) < SIGNIFICANCE, "the test must notice a wider target"


@pytest.mark.slow
def test_tolerances_follow_one_path() -> None:
    """With the same noise, finer tolerances converge and take more steps; with other noise the result differs."""
    process = VP()
    target = skewed_mixture(process)
    ends, calls = [], []
    for tolerance in (0.1, 0.02, 0.004, 1e-3):
        run = sampler(process, tolerance).run(target, target.shape, indices=range(4), seed=1, dtype=F64)
        assert not run.status.any()
        ends.append(run.x)
        calls.append(float(run.calls.double().mean()))
    off = [float((x - ends[-1]).square().mean().sqrt()) for x in ends[:-1]]
    assert off[2] < 0.5 * off[1] < 0.5 * off[0] and off[2] < 0.02
    assert calls == sorted(calls) and calls[0] < 0.4 * calls[-1]
    other = sampler(process, 0.004).run(target, target.shape, indices=range(4), seed=2, dtype=F64).x
    assert float((other - ends[-1]).square().mean().sqrt()) > 20 * off[2]


def test_steps_too_long_to_see_collapse() -> None:
    """A limit on the step is needed: one step over the whole interval is accepted and returns a single point."""
    target = Gaussian(VP(), torch.tensor([0.7], dtype=F64), 0.3)
    blind = Sampler(AdaptiveSDE(longest=0), Uniform(1), final="none")
    run = blind.run(target, (1,), indices=range(100), seed=5, dtype=F64)
    assert not run.status.any() and float(run.x.var()) < 0.8 * 0.3


def test_batch_mates_do_not_matter() -> None:
    process = VP()
    target, made = skewed_mixture(process), sampler(process, 0.02)
    together = made.run(target, target.shape, indices=range(12), seed=4, dtype=F64)
    alone = torch.cat([made.run(target, target.shape, indices=[i], seed=4, dtype=F64).x for i in (0, 5, 11)])
    assert float((together.x[[0, 5, 11]] - alone).abs().max()) <= SAMPLES_EQUAL
    assert len(set(together.calls.tolist())) > 1, "examples must take their own steps"


def test_a_hard_example_has_a_status_and_the_others_their_samples() -> None:
    process = VP()
    easy = Gaussian(process, torch.tensor([0.5], dtype=F64), 0.3)
    start = torch.tensor([[0.2], [30.0]], dtype=F64)
    broken = FunctionScore(lambda x, t: torch.where(x > 5.0, torch.nan, easy(x, t)), process)
    step = Sampler(AdaptiveSDE(depth=8), Uniform(1), final="none")
    run = step.run(broken, (1,), indices=[0, 1], latent=start, dtype=F64)
    assert run.status.tolist() == [0, 3] and bool(run.x[0].isfinite())
    few = Sampler(AdaptiveSDE(max_steps=3), Uniform(1), final="none")
    assert few.run(easy, (1,), indices=[0], dtype=F64).status.tolist() == [1]


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="one must be positive"):
        AdaptiveSDE(0.0, 0.0)
    with pytest.raises(ValueError, match="longest <= depth"):
        AdaptiveSDE(depth=3)
    ladder = Tabulated(GeometricSigmas(0.5, 0.6, 2))
    target = Gaussian(ladder, torch.zeros(1, dtype=F64), 0.3)
    with pytest.raises(ValueError, match="cannot step; end at a level with noise"):
        Sampler(AdaptiveSDE(longest=0), EveryLevel(), final="none").run(target, (1,), indices=[0], dtype=F64)
