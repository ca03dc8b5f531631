"""Numerical defects that were published in this field, with the test that fails when each of them is introduced.

In the published sampler and trainer of multi-scale energies (Li et al. 2019):

    defect                                                       test
    training on the test split                                   data/test_readers.py, by the splits of an IDX folder
    leapfrog steps without the closing half kick                 energy/test_chains.py
    momenta of one mass with the kinetic energy of another       here
    energy before a trajectory replaced by the proposal's        here (every proposal is accepted)
    annealed importance sampling without Metropolis tests        here
    noise of the known part sigma_0 T^(1/4)                      sampling/test_temperature.py, by values of both rules
    an Inception score that is always 1                          not possible: there is no such code path
    gradients with respect to x accumulate in the parameters     here, and losses/test_sliced.py
    levels off by one, or without one of the ends                here
    only one device's generator is seeded                        not possible: noise is an argument
    an unknown data set is accepted without an error             data/test_bad_input.py
    normalisation layers that are never used                     nets/test_energy_nets.py, by the published counts
    no guard against diverging chains                            here

In libraries of energies:

    defect                                                       test
    denoising score matching learns -E; trace divided by D       losses/test_sliced.py
    Hamiltonian chains for vectors only                          here
    a loss that is not finite is replaced by a constant          losses/test_sliced.py, training/test_trainer.py
    an exported class that cannot be constructed                 the tests of every package construct all its classes
    the bias of unadjusted Langevin dynamics is not stated       sampling/test_langevin.py, v / (1 - e / (2 v))
    reverse chains from one mode are called an upper bound       energy/test_log_z.py
    error bars that collapse together with the weights           here
    steps that are adapted while the counted chains run          here
    forward and reverse estimate are called an interval          here
    an area under a curve by a slow loop over ties               metrics/test_detection.py, by its value with ties

One defect of this library itself, trajectories of a fixed length, has its test in energy/test_chains.py.
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
"""Standard deviations of a normal distribution at the two-sided significance 1e-6."""


def gumbel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energy sum of x + exp(-x), whose distribution is skewed, and its gradient."""
    return (x + torch.exp(-x)).flatten(1).sum(1), 1.0 - torch.exp(-x)


GUMBEL = Energy(lambda x: gumbel(x)[0], with_gradient=gumbel)


def off_target(n: int = 6000) -> float:
    """Return the error of mean and mean square of chains with exact starts, in standard errors; states are images."""
    u = torch.rand(n, 2, 1, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    kernel = Kernel(leapfrog=2, epsilon=0.9)
    x = run_chains(GUMBEL, -torch.log(-torch.log(u)), draws=1, thin=8, kernel=kernel, noise=Generated(1)).last
    centred, variance = x.flatten() - 0.5772156649015329, math.pi**2 / 6
    first = float(centred.mean()) / math.sqrt(variance / centred.numel())
    # The fourth moment is 5.4 variances squared.
    second = (float(centred.square().mean()) / variance - 1.0) / math.sqrt(4.4 / centred.numel())
    return max(abs(first), abs(second))


def wrong_mass(before: Tensor, after: Tensor) -> Tensor:
    """Return the difference of kinetic energies |p|^2 / (2 m) with m = 2, although momenta are N(0, 1)."""
    return 0.25 * ((before - after) * (before + after)).flatten(1).sum(1)


def always_accept(log_ratio: Tensor, uniform: Tensor) -> Tensor:
    """Accept every proposal."""
    return torch.ones_like(log_ratio, dtype=torch.bool)


def test_chains_that_are_not_exact_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert off_target() < LIMIT
    for name, defect in (("kinetic_difference", wrong_mass), ("accepts", always_accept)):
        with monkeypatch.context() as patched:
            patched.setattr(moves, name, defect)
            assert off_target() > LIMIT, name
    with monkeypatch.context() as patched, pytest.raises((RuntimeError, IndexError)):
        patched.setattr(moves, "kinetic_difference", lambda p, q: 0.5 * ((p - q) * (p + q)).sum(-1))
        off_target(8)  # this kinetic energy is for vectors only, and states are images


def test_diverging_chains_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """E = -x^4 is unbounded below; proposals that are not finite are rejected and counted."""

    def run() -> Chains:
        start = torch.full((8, 1), 1e9)  # after one step E is -inf
        return run_chains(lambda x: -x.flatten(1).pow(4).sum(1), start, draws=5, kernel=Kernel(epsilon=0.5))

    found = run()
    assert bool(found.x.isfinite().all()) and int(found.not_finite.sum()) > 0 and found.finite < 1.0
    monkeypatch.setattr(moves, "accepts", always_accept)
    assert not bool(run().x.isfinite().all())


def test_gradients_with_respect_to_x_do_not_accumulate_in_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(2, 1)

    def accumulates() -> bool:
        net.zero_grad()
        run_chains(lambda x: net(x)[:, 0] + x.square().sum(1), torch.zeros(3, 2), draws=1, kernel=Kernel(epsilon=0.1))
        return net.weight.grad is not None

    def backward(self: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
        point = x.detach().requires_grad_(True)
        energy = self(point)
        energy.sum().backward()
        assert point.grad is not None
        return energy.detach(), point.grad

    assert not accumulates()
    monkeypatch.setattr(Energy, "with_gradient", backward)
    assert accumulates()


# ------------------------------------------------------------------------------------------------ log Z

BASE = GaussianBase(torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64))
FEW = Schedule((0.0, 0.5, 1.0), (0.5,), 1, 1.0)


def parabola(std: float) -> Energy:
    """Return the energy of N(0, std^2) without its normalising constant."""
    return Energy(lambda x: 0.5 * x.square().sum(1) / std**2)


def bias(std: float, reverse: bool) -> float:
    """Return the bias of the mean weight in standard errors.

    It is zero for any number of moves that leave their distribution invariant.
    """
    noise, n = Generated(0), 20_000
    start = (std if reverse else 1.0) * noise.normal(torch.empty(n, 1, dtype=F64), 0, 0)
    found = annealing.collect_work(path_to(parabola(std), BASE), FEW, start, noise, reverse=reverse).log_weight
    log_z = math.log(std * math.sqrt(2.0 * math.pi))
    weight = (found + log_z if reverse else found - log_z).exp()
    return abs(float((weight.mean() - 1.0) / (weight.std() / math.sqrt(n))))


def test_moves_without_a_metropolis_test_bias_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directions are tested, each towards the narrower distribution, where weights are bounded."""
    assert bias(0.5, False) < LIMIT and bias(2.0, True) < LIMIT
    monkeypatch.setattr(moves, "accepts", always_accept)
    assert bias(0.5, False) > LIMIT and bias(2.0, True) > LIMIT


def test_a_step_size_that_depends_on_other_chains_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fixed schedule, work values are functions of (seed, index) only."""
    x = torch.linspace(-2.0, 2.0, 6, dtype=F64)[:, None]

    def depends_on_others() -> bool:
        path = path_to(parabola(0.5), BASE)
        batch = annealing.collect_work(path, FEW, x, IndexedNoise(0, range(6))).log_weight
        alone = [annealing.collect_work(path, FEW, x[k : k + 1], IndexedNoise(0, [k])).log_weight for k in range(6)]
        return not torch.allclose(batch, torch.cat(alone), rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)

    transition = moves.transition

    def adapting(terms, weights, state, size, steps, noise):  # type: ignore[no-untyped-def]
        return transition(terms, weights, state, size * (0.2 + float(state.x.square().mean())), steps, noise)

    assert not depends_on_others()
    monkeypatch.setattr(annealing, "transition", adapting)
    assert depends_on_others()


Interval = Callable[[bridging.Bridge], tuple[Tensor, Tensor]]


def covered(spread: float, *intervals: Interval) -> list[float]:
    """Return the coverage of intervals of log Z, whose exact value is 0, among replicates with the verdict ok.

    There are 120 replicates of 48 chains in each direction. Forward work values are w ~ N(-s^2 / 2, s^2) with
    s = `spread`, and so are reverse ones. The result is 1 where no replicate has the verdict ok.
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
    """Return the reported interval."""
    return found.low, found.high


def range_of_both(found: bridging.Bridge) -> tuple[Tensor, Tensor]:
    """Return the interval from the forward to the reverse estimate."""
    return torch.minimum(found.forward, found.reverse), torch.maximum(found.forward, found.reverse)


def by_weights(found: bridging.Bridge) -> tuple[Tensor, Tensor]:
    """Return the forward estimate +- two standard errors from the spread of its weights."""
    half = 2.0 * (1.0 / found.ess_forward - 1.0 / 48).sqrt()
    return found.forward - half, found.forward + half


def test_intervals_with_too_little_coverage_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    least = 0.83  # 0.95 less six standard errors
    reported, both = covered(0.6, stated, range_of_both)
    assert reported > least > both
    assert covered(3.0, stated, by_weights) == [1.0, 1.0], "no estimate with so little overlap has the verdict ok"
    for name in ("LEAST_EFFECTIVE", "FEW_EFFECTIVE", "LEAST_OVERLAP"):
        monkeypatch.setattr(bridging, name, 0.0)
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
def test_levels_off_by_one_or_without_an_end_are_detected(
    table: LinearSigmas | GeometricSigmas, sigmas: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stratified batch of as many examples as there are levels has every level once, with both ends.

    A test by the slope of a trained energy would not detect a missing highest level, which changes it by 4e-4.
    """
    ladder, one_level = Tabulated(table), 1.0 / 127

    def correct() -> bool:
        objective, generator = DenoisingScoreMatching(stratified=True), torch.Generator().manual_seed(0)
        t = objective.draw(ladder, torch.empty(128, 1), generator).t
        return torch.allclose(ladder.sigma(t).double().sort().values, sigmas, rtol=1e4 * FLOAT64, atol=0.0)

    assert correct()
    time = Tabulated.time
    defects = {
        "a level too low": lambda t: (t - one_level).clamp_min(0.0),
        "a level too high": lambda t: (t + one_level).clamp_max(1.0),
        "without the lowest": lambda t: t.clamp_min(one_level),
        "without the highest": lambda t: t.clamp_max(1.0 - one_level),
        "one level for the batch": lambda t: t[:1].expand(128),
    }
    for name, defect in defects.items():
        monkeypatch.setattr(Tabulated, "time", lambda self, level, f=defect: f(time(self, level)))
        assert not correct(), name
