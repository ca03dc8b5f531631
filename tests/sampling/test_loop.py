"""The loop does not wait for the device, compute coefficients in every step, or change values by prefetching."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from process.examples import times as times_of
from sampling.doubles import sines
from scorefield._random import IndexedNoise, Noise, Prefetched
from scorefield.process import VE, VP, Process, SubVP
from scorefield.process.grids import LogSNR
from scorefield.sampling import (
    DDIM,
    Ancestral,
    Chain,
    EulerMaruyama,
    ExponentialMultistep,
    FlowEuler,
    FlowHeun,
    KarrasHeun,
    Langevin,
    Progress,
    ReverseDiffusion,
    Step,
    StepResult,
    drive,
)
from scorefield.sampling.on_grid import on_grid
from scorefield.score import FunctionScore, NetworkScore, Score
from scorefield.score.oracles import Gaussian
from scorefield.score.parametrisation import ScaledTime, ScoreForm
from tolerance import FLOAT64

F64 = torch.float64
DETERMINISTIC = [
    DDIM(),
    ExponentialMultistep(2, start="low"),
    ExponentialMultistep(4, corrector=True, start="low"),
    ExponentialMultistep(3, "noise"),
    FlowEuler(),
    FlowHeun(),
    KarrasHeun(),
]


class Copies(TorchDispatchMode):
    """Counts copies between devices. On the meta device, which holds no numbers, reading a value raises."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {a.device.type for a in (*args, out) if isinstance(a, Tensor) and a.ndim}
        self.count += func.overloadpacket.__name__ in ("_to_copy", "copy_") and len(devices) > 1
        return out


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, device="meta"))

    def forward(self, x: Tensor, c: Tensor, condition: Any = None) -> Tensor:
        assert c.device == x.device and c.shape == (len(x),)
        return x * self.weight + c[:, None]


def copies_in_loop(step: Step) -> int:
    score = NetworkScore(Network(), VP(), ScoreForm(), ScaledTime())

    def stop(progress: Progress) -> None:
        if progress.step == progress.steps:
            raise KeyboardInterrupt

    x = torch.empty(4, 3, device="meta")
    with Copies() as seen, torch.no_grad(), pytest.raises(KeyboardInterrupt):
        drive(score.bind(None), VP(), step, LogSNR(6).times(VP()), x, sines(), (stop,))
    return seen.count


@pytest.mark.parametrize("step", DETERMINISTIC, ids=lambda s: f"{type(s).__name__} {getattr(s, 'predict', '')}")
def test_steps_without_noise_never_wait_for_the_device(step: Step) -> None:
    assert copies_in_loop(step) == 0


def test_a_step_that_waits_is_noticed() -> None:
    class Copying(FlowEuler):
        def __call__(self, score: Any, process: Any, x: Tensor, *rest: Any) -> StepResult:  # type: ignore[override]
            return StepResult(x * rest[0].to(x.device)[:, None], x)

    class Reading(FlowEuler):
        def __call__(self, score: Any, process: Any, x: Tensor, *rest: Any) -> StepResult:  # type: ignore[override]
            return StepResult(x * float(x.norm()), x)

    assert copies_in_loop(Copying()) == 6
    with pytest.raises(RuntimeError, match="meta"):
        copies_in_loop(Reading())


# ------------------------------------------------------------------------------------------------ coefficients


class Counting(VP):
    """A process that counts evaluations of its coefficients."""

    asked: Counter[str] = Counter()

    def alpha(self, t: Tensor) -> Tensor:
        Counting.asked["alpha"] += 1
        return super().alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        Counting.asked["sigma"] += 1
        return super().sigma(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        Counting.asked["rate"] += 1
        return super().diffusion_squared(t)


@pytest.mark.parametrize("step", [*DETERMINISTIC[:3], FlowHeun(), EulerMaruyama(), Ancestral(), ReverseDiffusion()])
def test_coefficients_are_computed_once_for_the_whole_grid(step: Step) -> None:
    """The number of coefficient evaluations is the same for three steps as for thirty."""
    asked = []
    for n in (3, 30):
        Counting.asked.clear()
        score = FunctionScore(lambda x, t: x, VP()).bind(None)
        score.denoised = lambda x, t, condition=None: x  # type: ignore[method-assign]
        drive(score, Counting(), step, LogSNR(n).times(VP()), torch.ones(2, 3), sines())
        asked.append(dict(Counting.asked))
    assert asked[0] == asked[1] and asked[0]


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()], ids=lambda p: type(p).__name__)
def test_a_process_on_a_grid_answers_as_itself(process: Process) -> None:
    grid = LogSNR(7).times(process)
    known = on_grid(process, grid)
    shared, own = grid[3].expand(5), times_of(process, 0.1, 0.5, 0.9)
    for t in (shared, grid[-1].expand(5), own, own[:1]):
        for name in ("alpha", "sigma", "log_alpha_rate", "diffusion_squared", "diffusion", "log_snr"):
            got, expected = getattr(known, name)(t), getattr(process, name)(t)
            assert torch.allclose(got.expand(len(t)), expected, rtol=FLOAT64, atol=0), name
    for s, t in ((grid[4].expand(5), shared), (grid[5].expand(5), shared), (own[:1], own[1:2])):
        for got, expected in zip(known.kernel(s, t), process.kernel(s, t), strict=True):
            assert torch.allclose(got.expand(len(t)), expected, rtol=FLOAT64, atol=0)
    assert known.prior_std == process.prior_std and known.t_min == process.t_min
    with pytest.raises(ValueError, match=type(process).__name__):
        known.check_time(torch.tensor([1.5], dtype=F64))


# ------------------------------------------------------------------------------------------------ noise ahead


def end(step: Step, noise: Noise) -> Tensor:
    score: Score = Gaussian(VP(), torch.zeros(3), 0.5)
    return drive(score.bind(None), VP(), step, LogSNR(9).times(VP()), torch.ones(4, 3), noise).x


@pytest.mark.parametrize("step", [Ancestral(), Chain((Langevin(), ReverseDiffusion()))], ids=["one draw", "two draws"])
def test_noise_drawn_ahead_is_the_same_noise(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, drawn, numbers = end(step, IndexedNoise(3, range(4))), [], IndexedNoise._numbers

    def watched(self: IndexedNoise, shape: torch.Size, at: int, draw: int, kind: Any, pinned: bool = False) -> Tensor:
        drawn.append((at, draw, threading.current_thread() is threading.main_thread()))
        return numbers(self, shape, at, draw, kind, pinned)

    monkeypatch.setattr(IndexedNoise, "_numbers", watched)
    assert torch.equal(end(step, Prefetched(3, range(4), 9)), plain)
    draws = 2 if isinstance(step, Chain) else 1
    assert sorted(drawn) == [(k, d, k == 0) for k in range(9) for d in range(draws)]


def test_a_wider_state_around_a_float32_network_loses_less() -> None:
    """Over 400 steps a float32 state is rounded at each step; with a float64 state only the score is rounded."""
    exact = Gaussian(VP(), torch.full((3,), 0.3, dtype=F64), 0.5)
    network = FunctionScore(lambda x, t: exact(x.float(), t).to(x), VP())
    times, start = LogSNR(400).times(VP()), torch.tensor([[1.1, -0.4, 2.0]], dtype=F64)
    ends = [
        drive(score.bind(None), VP(), DDIM(), times, start.to(dtype), sines()).x.double()
        for score, dtype in ((exact, F64), (network, torch.float32), (network, F64))
    ]
    narrow, wide = ((x - ends[0]).norm() for x in ends[1:])
    assert 0.0 < 3.0 * wide < narrow
