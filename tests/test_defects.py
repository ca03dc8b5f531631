"""Numerical defects that were published in this field, and the test here that fails when one of them is made.

Of the released sampler and trainer of multi-scale energies (Li et al. 2019):

    trained on the test split                                         lab/data/test_readers.py, an IDX folder's splits
    leapfrog steps without the closing half kick                      inference/test_chains.py, made there
    momenta of one mass, kinetic energy of another                    here
    a trajectory's reference energy replaced by the proposal's        here (every proposal is accepted)
    annealed importance sampling with moves that are not tested       here
    noise of the known part sigma_0 T^(1/4)                           sampling/test_temperature.py, both rules by number
    the Inception score is the constant 1                             cannot be made: no code for it
    gradients of x collect in the parameters                          here, and losses/test_sliced.py
    levels off by one or without an end                               here
    only one device's generator is seeded                             cannot be made: noise is an argument
    an unknown data set raises nothing                                lab/data/test_bad_input.py
    normalisation layers that are never used                          nets/test_energy_nets.py, by the published counts
    no guard against chains that leave for infinity                   here

Of libraries of energies:

    denoising score matching learns -E; the trace divided by D        losses/test_sliced.py, made there
    Hamiltonian chains for vectors alone                              here
    a loss that is not finite becomes a constant                      losses/test_sliced.py, lab/test_trainer.py
    an exported class that cannot be made                             the laws of each room make every class
    the bias of unadjusted Langevin goes unsaid                       sampling/test_langevin.py, v / (1 - e / (2 v))
    reverse chains from one mode called an upper bound                inference/test_log_z.py, made there
    error bars that collapse with the weights                         here
    steps adapted while the counted chains run                        here
    forward and reverse estimate called an interval                   here
    an area under a curve by a slow loop over ties                    metrics/test_detection.py, its value with ties

And a defect of our own, trajectories of a fixed length: inference/test_chains.py, made there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import scorefield.energy.annealed_importance as annealing
import scorefield.energy.bridge_sampling as bridging
import scorefield.energy.transition as moves
from sampling.doubles import Generated
from scorefield._random import IndexedNoise
from scorefield.energy.annealed_importance import GaussianBase, Schedule
from scorefield.energy.chains import Chains, run_chains
from scorefield.energy.normalising_constant import path_to
from scorefield.energy.transition import Kernel
from scorefield.losses import DenoisingScoreMatching
from scorefield.process import GeometricSigmas, LinearSigmas, Tabulated
from scorefield.score import Energy
from tolerance import FLOAT64

F64 = torch.float64
LIMIT = 4.9
"""Deviations of a standard normal, 1e-6 on both sides."""


def gumbel(x: Tensor) -> tuple[Tensor, Tensor]:
    """E = sum of x + exp(-x), whose law is skewed, and its gradient."""
    return (x + torch.exp(-x)).flatten(1).sum(1), 1.0 - torch.exp(-x)


GUMBEL = Energy(lambda x: gumbel(x)[0], with_gradient=gumbel)


def off_target(n: int = 6000) -> float:
    """How far the mean and the mean square of chains from exact starts are from exact, standard errors; images."""
    u = torch.rand(n, 2, 1, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    kernel = Kernel(leapfrog=2, epsilon=0.9)
    x = run_chains(GUMBEL, -torch.log(-torch.log(u)), draws=1, thin=8, kernel=kernel, noise=Generated(1)).last
    centred, variance = x.flatten() - 0.5772156649015329, math.pi**2 / 6
    first = float(centred.mean()) / math.sqrt(variance / centred.numel())
    # The fourth moment is 5.4 variances squared.
    second = (float(centred.square().mean()) / variance - 1.0) / math.sqrt(4.4 / centred.numel())
    return max(abs(first), abs(second))


def wrong_mass(before: Tensor, after: Tensor) -> Tensor:
    """Momenta N(0, 1), kinetic energy |p|^2 / (2 m) with m = 2."""
    return 0.25 * ((before - after) * (before + after)).flatten(1).sum(1)


def always(log_ratio: Tensor, uniform: Tensor) -> Tensor:
    """No test at all."""
    return torch.ones_like(log_ratio, dtype=torch.bool)


def test_chains_that_are_not_exact_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert off_target() < LIMIT
    for name, defect in (("kinetic_difference", wrong_mass), ("accepts", always)):
        with monkeypatch.context() as patched:
            patched.setattr(moves, name, defect)
            assert off_target() > LIMIT, name
    with monkeypatch.context() as patched, pytest.raises((RuntimeError, IndexError)):
        patched.setattr(moves, "kinetic_difference", lambda p, q: 0.5 * ((p - q) * (p + q)).sum(-1))
        off_target(8)  # vectors alone


def test_chains_that_leave_for_infinity_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """E = -x^4 is unbounded below; what leaves the numbers is rejected and counted."""

    def run() -> Chains:
        start = torch.full((8, 1), 1e9)  # a step away E is -inf
        return run_chains(lambda x: -x.flatten(1).pow(4).sum(1), start, draws=5, kernel=Kernel(epsilon=0.5))

    found = run()
    assert bool(found.x.isfinite().all()) and int(found.not_finite.sum()) > 0 and found.finite < 1.0
    monkeypatch.setattr(moves, "accepts", always)
    assert not bool(run().x.isfinite().all())


def test_gradients_of_x_leave_none_in_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(2, 1)

    def collected() -> bool:
        net.zero_grad()
        run_chains(lambda x: net(x)[:, 0] + x.square().sum(1), torch.zeros(3, 2), draws=1, kernel=Kernel(epsilon=0.1))
        return net.weight.grad is not None

    def backward(self: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
        point = x.detach().requires_grad_(True)
        energy = self(point)
        energy.sum().backward()
        assert point.grad is not None
        return energy.detach(), point.grad

    assert not collected()
    monkeypatch.setattr(Energy, "with_gradient", backward)
    assert collected()


# ------------------------------------------------------------------------------------------------ log Z

BASE = GaussianBase(torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64))
FEW = Schedule((0.0, 0.5, 1.0), (0.5,), 1, 1.0)


def parabola(std: float) -> Energy:
    """Of N(0, std^2), without the normaliser."""
    return Energy(lambda x: 0.5 * x.square().sum(1) / std**2)


def bias(std: float, reverse: bool) -> float:
    """Of the mean weight, standard errors: zero for moves that leave their law invariant, however few."""
    noise, n = Generated(0), 20_000
    start = (std if reverse else 1.0) * noise.normal(torch.empty(n, 1, dtype=F64), 0, 0)
    found = annealing.collect_work(path_to(parabola(std), BASE), FEW, start, noise, reverse=reverse).log_weight
    log_z = math.log(std * math.sqrt(2.0 * math.pi))
    weight = (found + log_z if reverse else found - log_z).exp()
    return abs(float((weight.mean() - 1.0) / (weight.std() / math.sqrt(n))))


def test_moves_without_a_test_bias_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """In either direction; each towards the narrower law, where weights are bounded."""
    assert bias(0.5, False) < LIMIT and bias(2.0, True) < LIMIT
    monkeypatch.setattr(moves, "accepts", always)
    assert bias(0.5, False) > LIMIT and bias(2.0, True) > LIMIT


def test_a_step_that_follows_other_chains_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work values are functions of (seed, index) alone once the schedule is frozen."""
    x = torch.linspace(-2.0, 2.0, 6, dtype=F64)[:, None]

    def depends() -> bool:
        laws = path_to(parabola(0.5), BASE)
        together = annealing.collect_work(laws, FEW, x, IndexedNoise(0, range(6))).log_weight
        alone = [annealing.collect_work(laws, FEW, x[k : k + 1], IndexedNoise(0, [k])).log_weight for k in range(6)]
        return not torch.allclose(together, torch.cat(alone), rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)

    true = moves.transition

    def adapting(terms, weights, state, size, steps, noise):  # type: ignore[no-untyped-def]
        return true(terms, weights, state, size * (0.2 + float(state.x.square().mean())), steps, noise)

    assert not depends()
    monkeypatch.setattr(annealing, "transition", adapting)
    assert depends()


Interval = Callable[[bridging.Bridge], tuple[Tensor, Tensor]]


def covered(spread: float, *intervals: Interval) -> list[float]:
    """Share of 120 replicates of 48 chains each way whose interval holds the truth, 0, of those with verdict ok.

    Work values obey w_F ~ N(-s^2 / 2, s^2) and so do those in reverse. 1 where the verdict is never ok.
    """
    z = torch.randn(2, 120, 48, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = bridging.bridge(*(spread * z - spread**2 / 2), resamples=20)
    ok = found.verdict == 0
    shares = []
    for interval in intervals:
        low, high = interval(found)
        inside = ((low <= 0) & (high >= 0))[ok].double()
        shares.append(float(inside.mean()) if len(inside) else 1.0)
    return shares


def stated(found: bridging.Bridge) -> tuple[Tensor, Tensor]:
    """What is reported."""
    return found.low, found.high


def range_of_both(found: bridging.Bridge) -> tuple[Tensor, Tensor]:
    """From the forward to the reverse estimate."""
    return torch.minimum(found.forward, found.reverse), torch.maximum(found.forward, found.reverse)


def by_weights(found: bridging.Bridge) -> tuple[Tensor, Tensor]:
    """The forward estimate and its own standard error, from the spread of the weights."""
    half = 2.0 * (1.0 / found.ess_forward - 1.0 / 48).sqrt()
    return found.forward - half, found.forward + half


def test_intervals_that_do_not_hold_what_they_say_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    least = 0.83  # 0.95 less six standard errors
    own, both = covered(0.6, stated, range_of_both)
    assert own > least > both
    assert covered(3.0, stated, by_weights) == [1.0, 1.0], "no estimate of so little overlap is called ok"
    for name, off in (("LEAST_EFFECTIVE", 0.0), ("FEW_EFFECTIVE", 0.0), ("LEAST_OVERLAP", 0.0)):
        monkeypatch.setattr(bridging, name, off)
    monkeypatch.setattr(bridging, "LARGEST_GAP", math.inf)
    assert covered(3.0, by_weights)[0] < least, "degenerate weights have small error bars"


# ------------------------------------------------------------------------------------------------ levels


@pytest.mark.parametrize(
    ("table", "sigmas"),
    [
        (LinearSigmas(0.05, 1.2, 128), torch.linspace(0.05, 1.2, 128, dtype=F64)),
        (GeometricSigmas(0.1, 3.0, 128), torch.logspace(-1, math.log10(3), 128, dtype=F64)),
    ],
)
def test_levels_off_by_one_or_without_an_end_are_seen(
    table: LinearSigmas | GeometricSigmas, sigmas: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stratified batch of as many examples as levels has every level once, both ends among them.

    The slope that an energy learns from them does not show the last: without the highest level it moves by 4e-4.
    """
    ladder, one = Tabulated(table), 1.0 / 127

    def right() -> bool:
        objective, generator = DenoisingScoreMatching(stratified=True), torch.Generator().manual_seed(0)
        t = objective.draw(ladder, torch.empty(128, 1), generator).t
        return torch.allclose(ladder.sigma(t).double().sort().values, sigmas, rtol=1e4 * FLOAT64, atol=0.0)

    assert right()
    true = Tabulated.time
    defects = {
        "a level too low": lambda t: (t - one).clamp_min(0.0),
        "a level too high": lambda t: (t + one).clamp_max(1.0),
        "without the lowest": lambda t: t.clamp_min(one),
        "without the highest": lambda t: t.clamp_max(1.0 - one),
        "one for the batch": lambda t: t[:1].expand(128),
    }
    for name, wrong in defects.items():
        monkeypatch.setattr(Tabulated, "time", lambda self, level, w=wrong: w(true(self, level)))
        assert not right(), name
