"""Defects made on purpose, one coefficient or one line each, and which checks of the selftest must find them.

`python -m selftest.selftest_mutants [ROOM ...]`, run in the folder `tests`, makes each of them in turn, runs those
rooms (all of them by default: more than a minute a defect) and prints which checks failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from scorefield._math import over_event
from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.inverse.solvers.twisted_particles import _Filter
from scorefield.likelihood import log_prob
from scorefield.losses import NoiseVariance
from scorefield.metrics.frechet import Moments
from scorefield.metrics.kernels import BLOCK, _Discrepancy
from scorefield.process import VP, SubVP
from scorefield.sampling import Ancestral, Consistent, ExponentialMultistep, FlowHeun, Langevin, StepResult, metropolis
from scorefield.score import NoiseForm
from scorefield.selftest import ROOMS, Bench, run_check

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """A defect.

    Args:
        patch: Makes it.
        among: Checks that are run, by room and name; a room alone stands for all of its checks.
        caught_by: Those that must fail, and no others.
        slow: More than a second or two.
    """

    patch: Patch
    among: tuple[str, ...]
    caught_by: frozenset[str]
    slow: bool = False


def louder(step: type[Any], factor: float) -> Patch:
    """The step with its noise multiplied."""
    call = step.__call__

    def loud(self: Any, *arguments: Any) -> StepResult:
        moved = call(self, *arguments)
        return replace(moved, x=moved.mean + factor * (moved.x - moved.mean))

    return lambda patch: patch.setattr(step, "__call__", loud)


def unequal_slopes(patch: pytest.MonkeyPatch) -> None:
    def heun(self: FlowHeun, score: Any, process: Any, x: Tensor, t: Tensor, s: Tensor, *rest: Any) -> StepResult:
        h, slope = over_event(s - t, x), process.flow_drift(x, t, score(x, t))
        guess = x + h * slope
        x = x + h * (0.48 * slope + 0.52 * process.flow_drift(guess, s, score(guess, s)))
        return StepResult(x, x)

    patch.setattr(FlowHeun, "__call__", heun)


def wrong_third_weight(patch: pytest.MonkeyPatch) -> None:
    row = ExponentialMultistep._weights

    def mutant(self: ExponentialMultistep, a: Any, b: Any, nodes: Any) -> list[float]:
        weights = row(self, a, b, nodes)
        return weights if len(weights) != 4 else [*weights[:3], 0.9 * weights[3]]

    patch.setattr(ExponentialMultistep, "_weights", mutant)


def too_much_noise(patch: pytest.MonkeyPatch) -> None:
    def consistent(
        self: Consistent, score: Any, process: Any, x: Tensor, t: Tensor, s: Tensor, noise: Any, *rest: Any
    ) -> StepResult:
        a_t, a_s = (over_event(process.alpha(u), x) for u in (t, s))
        r_t, r_s = over_event(process.sigma(t), x) / a_t, over_event(process.sigma(s), x) / a_s
        y = x / a_t
        mean = y + self.eta * (score.denoised(x, t) - y)
        missing = (r_s**2 - (1.0 - self.eta) ** 4 * r_t**2).clamp_min(0.0).sqrt()
        return StepResult(a_s * (mean + missing * noise(x)), a_s * mean)

    patch.setattr(Consistent, "__call__", consistent)


def by_place_in_the_batch(patch: pytest.MonkeyPatch) -> None:
    numbers = IndexedNoise._numbers

    def mutant(self: IndexedNoise, *arguments: Any, **more: Any) -> Tensor:
        return numbers(IndexedNoise(self.seed, range(len(self.indices))), *arguments, **more)

    patch.setattr(IndexedNoise, "_numbers", mutant)


def with_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    def inside(self: _Discrepancy, x: Tensor) -> Tensor:
        return torch.cat([self.kernel(part, x).sum(dim=1) for part in x.split(BLOCK)])

    patch.setattr(_Discrepancy, "_inside", inside)


def without_kernels(patch: pytest.MonkeyPatch) -> None:
    move = _Filter._move

    def careless(self: _Filter, k: int, noise: Any) -> Tensor:
        mean = move(self, k, noise)
        self.log_kernels = torch.zeros_like(self.log_kernels)
        return mean

    patch.setattr(_Filter, "_move", careless)


def mismatch_subtracted(patch: pytest.MonkeyPatch) -> None:
    right = log_prob.prior_mismatch

    def wrong(*arguments: Any) -> Any:
        term = right(*arguments)
        assert term is not None
        return replace(term, value=-term.value)

    patch.setattr(log_prob, "prior_mismatch", wrong)


def bins_forgotten(patch: pytest.MonkeyPatch) -> None:
    right = DataSpec.log_jacobian
    patch.setattr(DataSpec, "log_jacobian", lambda self, dequantised: right(self, dequantised=False))


def setting(where: Any, name: str, value: Any) -> Patch:
    return lambda patch: patch.setattr(where, name, value)


SOME_ORDERS = tuple(
    f"sampling: order of {name}"
    for name in ("FlowHeun", "FlowEuler", "DDIM", "EulerMaruyama", "Ancestral", "ExponentialMultistep(order=3)")
)
LAWS = (
    "sampling: Langevin conventions",
    "sampling: annealed temperature",
    "sampling: consistent annealing of a Gaussian",
)

MUTANTS = {
    "VP drift 10 percent too strong": Mutant(
        setting(VP, "log_alpha_rate", lambda self, t: -0.55 * self.beta(t)),
        ("process", "score"),
        frozenset({"process: rates", "score: Fokker-Planck"}),
    ),
    "sub-VP with the noise of VP": Mutant(
        setting(SubVP, "sigma", VP.sigma),
        ("process",),
        frozenset({"process: schedules", "process: rates", "process: clocks"}),
    ),
    "noise parametrisation without its sign": Mutant(
        setting(NoiseForm, "score_coefficients", lambda self, a, s: (torch.zeros_like(s), 1.0 / s)),
        ("score",),
        frozenset({"score: meanings of outputs"}),
    ),
    "DSM weighted by sigma^3": Mutant(
        setting(NoiseVariance, "times_noise_variance", lambda self, process, t: process.sigma(t)),
        ("losses",),
        frozenset(f"losses: {name}" for name in ("DSM value", "DSM floor", "implicit is denoising", "MDSM")),
    ),
    "Heun's slopes weighed 48 to 52": Mutant(
        unequal_slopes,
        ("sampling: order of FlowHeun", "sampling: order of FlowEuler"),
        frozenset({"sampling: order of FlowHeun"}),
    ),
    "third multistep weight times 0.9": Mutant(
        wrong_third_weight, SOME_ORDERS, frozenset({"sampling: order of ExponentialMultistep(order=3)"}), slow=True
    ),
    "ancestral noise times 1.05": Mutant(
        louder(Ancestral, 1.05),
        (*SOME_ORDERS, "sampling: exact on the unit Gaussian"),
        frozenset({"sampling: order of Ancestral", "sampling: exact on the unit Gaussian"}),
        slow=True,
    ),
    "Langevin noise times 1.05": Mutant(
        louder(Langevin, 1.05), LAWS, frozenset({"sampling: Langevin conventions"}), slow=True
    ),
    "consistent annealing adds too much noise": Mutant(
        too_much_noise,
        (*LAWS, "sampling: consistent annealing"),
        frozenset({"sampling: consistent annealing", "sampling: consistent annealing of a Gaussian"}),
        slow=True,
    ),
    "proposals always accepted": Mutant(
        setting(metropolis, "accepts", lambda log_ratio, uniform: torch.ones_like(log_ratio, dtype=torch.bool)),
        ("sampling: Metropolis tests", "sampling: noise"),
        frozenset({"sampling: Metropolis tests"}),
        slow=True,
    ),
    "noise by the place in the batch": Mutant(
        by_place_in_the_batch,
        ("sampling: noise", "sampling: samples keep to themselves", "sampling: adaptive flow"),
        frozenset({"sampling: noise", "sampling: samples keep to themselves"}),
        slow=True,
    ),
    "prior mismatch with the wrong sign": Mutant(
        mismatch_subtracted,
        ("likelihood",),
        frozenset({"likelihood: likelihood", "likelihood: error budget"}),
        slow=True,
    ),
    "particles that forget their kernels": Mutant(
        without_kernels, ("posteriors",), frozenset({"posteriors: twisted particles"}), slow=True
    ),
    "Frechet covariances over N": Mutant(
        setting(Moments, "covariance", property(lambda self: self.scatter / self.count)),
        ("metrics: Frechet distance of Gaussians", "metrics: Frechet distance of samples", "metrics: merging"),
        frozenset({"metrics: Frechet distance of samples"}),
    ),
    "kernel distances with the diagonal": Mutant(
        with_the_diagonal, ("metrics",), frozenset({"metrics: unbiased estimators"}), slow=True
    ),
    "Jacobian that forgets the bins": Mutant(bins_forgotten, ("data",), frozenset({"data: Jacobians", "data: bits"})),
}
"""Name -> defect; each is to be caught by exactly the checks named, of those that are run."""


def failing(among: tuple[str, ...]) -> set[str]:
    """The checks that fail, of rooms or of checks by their keys."""
    bench = Bench(torch.device("cpu"))
    checks = [c for room in ROOMS.values() for c in room.checks if c.room in among or c.key in among]
    assert {c.room for c in checks} | {c.key for c in checks} >= set(among), "a check of another name"
    return {c.key for c in checks if not c.accelerator and not run_check(c, bench).passed}


def table(rooms: tuple[str, ...]) -> None:
    """Print what each defect does to whole rooms."""
    torch.set_num_threads(1)
    for name, mutant in {"no defect": Mutant(lambda patch: None, rooms, frozenset()), **MUTANTS}.items():
        with pytest.MonkeyPatch.context() as patch:
            mutant.patch(patch)
            found = sorted(failing(rooms))
        sys.stdout.write(f"{name}: {len(found)} failed: {'; '.join(found) or 'none'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    table(tuple(sys.argv[1:]) or tuple(ROOMS))
