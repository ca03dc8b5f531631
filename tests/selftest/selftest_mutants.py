"""Deliberate defects of one coefficient or one line each, with the checks of the selftest that must find them.

`python -m selftest.selftest_mutants [GROUP ...]`, run in the folder `tests`, applies each defect in turn, runs the
given groups of checks (by default all, which takes more than a minute per defect) and prints which checks failed.
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
from scorefield.selftest import GROUPS, Bench, run_check

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """A defect.

    Args:
        patch: Function that applies the defect.
        among: Keys of the checks that are run; the name of a group stands for all of its checks.
        caught_by: Keys of the checks that must fail; all others must pass.
        slow: Whether it takes more than a second or two.
    """

    patch: Patch
    among: tuple[str, ...]
    caught_by: frozenset[str]
    slow: bool = False


def with_scaled_noise(step: type[Any], factor: float) -> Patch:
    """Return the patch that multiplies the noise of a step by a factor."""
    call = step.__call__

    def mutant(self: Any, *arguments: Any) -> StepResult:
        moved = call(self, *arguments)
        return replace(moved, x=moved.mean + factor * (moved.x - moved.mean))

    return lambda patch: patch.setattr(step, "__call__", mutant)


def with_unequal_heun_weights(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: FlowHeun, score: Any, process: Any, x: Tensor, t: Tensor, s: Tensor, *rest: Any) -> StepResult:
        h, slope = over_event(s - t, x), process.flow_drift(x, t, score(x, t))
        guess = x + h * slope
        x = x + h * (0.48 * slope + 0.52 * process.flow_drift(guess, s, score(guess, s)))
        return StepResult(x, x)

    patch.setattr(FlowHeun, "__call__", mutant)


def with_wrong_third_weight(patch: pytest.MonkeyPatch) -> None:
    weights_of = ExponentialMultistep._weights

    def mutant(self: ExponentialMultistep, a: Any, b: Any, nodes: Any) -> list[float]:
        weights = weights_of(self, a, b, nodes)
        return weights if len(weights) != 4 else [*weights[:3], 0.9 * weights[3]]

    patch.setattr(ExponentialMultistep, "_weights", mutant)


def with_too_much_consistent_noise(patch: pytest.MonkeyPatch) -> None:
    def mutant(
        self: Consistent, score: Any, process: Any, x: Tensor, t: Tensor, s: Tensor, noise: Any, *rest: Any
    ) -> StepResult:
        a_t, a_s = (over_event(process.alpha(u), x) for u in (t, s))
        r_t, r_s = over_event(process.sigma(t), x) / a_t, over_event(process.sigma(s), x) / a_s
        y = x / a_t
        mean = y + self.eta * (score.denoised(x, t) - y)
        missing = (r_s**2 - (1.0 - self.eta) ** 4 * r_t**2).clamp_min(0.0).sqrt()
        return StepResult(a_s * (mean + missing * noise(x)), a_s * mean)

    patch.setattr(Consistent, "__call__", mutant)


def with_noise_by_batch_position(patch: pytest.MonkeyPatch) -> None:
    numbers = IndexedNoise._numbers

    def mutant(self: IndexedNoise, *arguments: Any, **more: Any) -> Tensor:
        return numbers(IndexedNoise(self.seed, range(len(self.indices))), *arguments, **more)

    patch.setattr(IndexedNoise, "_numbers", mutant)


def with_diagonal_terms(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: _Discrepancy, x: Tensor) -> Tensor:
        return torch.cat([self.kernel(part, x).sum(dim=1) for part in x.split(BLOCK)])

    patch.setattr(_Discrepancy, "_inside", mutant)


def without_kernel_weights(patch: pytest.MonkeyPatch) -> None:
    move = _Filter._move

    def mutant(self: _Filter, k: int, noise: Any) -> Tensor:
        mean = move(self, k, noise)
        self.log_kernels = torch.zeros_like(self.log_kernels)
        return mean

    patch.setattr(_Filter, "_move", mutant)


def with_negative_prior_mismatch(patch: pytest.MonkeyPatch) -> None:
    original = log_prob.prior_mismatch

    def mutant(*arguments: Any) -> Any:
        term = original(*arguments)
        assert term is not None
        return replace(term, value=-term.value)

    patch.setattr(log_prob, "prior_mismatch", mutant)


def without_dequantisation(patch: pytest.MonkeyPatch) -> None:
    original = DataSpec.log_jacobian
    patch.setattr(DataSpec, "log_jacobian", lambda self, dequantised: original(self, dequantised=False))


def with_attribute(owner: Any, name: str, value: Any) -> Patch:
    """Return the patch that sets an attribute."""
    return lambda patch: patch.setattr(owner, name, value)


SOME_ORDERS = tuple(
    f"sampling: order of {name}"
    for name in ("FlowHeun", "FlowEuler", "DDIM", "EulerMaruyama", "Ancestral", "ExponentialMultistep(order=3)")
)
STATIONARY = (
    "sampling: Langevin conventions",
    "sampling: annealed temperature",
    "sampling: consistent annealing of a Gaussian",
)

MUTANTS = {
    "VP drift 10 percent too strong": Mutant(
        with_attribute(VP, "log_alpha_rate", lambda self, t: -0.55 * self.beta(t)),
        ("process", "score"),
        frozenset({"process: rates", "score: Fokker-Planck"}),
    ),
    "sub-VP with the noise of VP": Mutant(
        with_attribute(SubVP, "sigma", VP.sigma),
        ("process",),
        frozenset({"process: schedules", "process: rates", "process: times of noise levels"}),
    ),
    "noise parametrisation without its sign": Mutant(
        with_attribute(NoiseForm, "score_coefficients", lambda self, a, s: (torch.zeros_like(s), 1.0 / s)),
        ("score",),
        frozenset({"score: parametrisations"}),
    ),
    "DSM weighted by sigma^3": Mutant(
        with_attribute(NoiseVariance, "times_noise_variance", lambda self, process, t: process.sigma(t)),
        ("losses",),
        frozenset(f"losses: {name}" for name in ("DSM value", "DSM floor", "implicit and denoising", "MDSM")),
    ),
    "Heun's slopes weighted 0.48 and 0.52": Mutant(
        with_unequal_heun_weights,
        ("sampling: order of FlowHeun", "sampling: order of FlowEuler"),
        frozenset({"sampling: order of FlowHeun"}),
    ),
    "third multistep weight times 0.9": Mutant(
        with_wrong_third_weight, SOME_ORDERS, frozenset({"sampling: order of ExponentialMultistep(order=3)"}), slow=True
    ),
    "ancestral noise times 1.05": Mutant(
        with_scaled_noise(Ancestral, 1.05),
        (*SOME_ORDERS, "sampling: exact on the unit Gaussian"),
        frozenset({"sampling: order of Ancestral", "sampling: exact on the unit Gaussian"}),
        slow=True,
    ),
    "Langevin noise times 1.05": Mutant(
        with_scaled_noise(Langevin, 1.05), STATIONARY, frozenset({"sampling: Langevin conventions"}), slow=True
    ),
    "consistent annealing adds too much noise": Mutant(
        with_too_much_consistent_noise,
        (*STATIONARY, "sampling: consistent annealing"),
        frozenset({"sampling: consistent annealing", "sampling: consistent annealing of a Gaussian"}),
        slow=True,
    ),
    "Metropolis proposals always accepted": Mutant(
        with_attribute(metropolis, "accepts", lambda log_ratio, uniform: torch.ones_like(log_ratio, dtype=torch.bool)),
        ("sampling: Metropolis tests", "sampling: noise"),
        frozenset({"sampling: Metropolis tests"}),
        slow=True,
    ),
    "noise keyed by the position in the batch": Mutant(
        with_noise_by_batch_position,
        ("sampling: noise", "sampling: independence of the batch", "sampling: adaptive flow"),
        frozenset({"sampling: noise", "sampling: independence of the batch"}),
        slow=True,
    ),
    "prior mismatch with the wrong sign": Mutant(
        with_negative_prior_mismatch,
        ("likelihood",),
        frozenset({"likelihood: likelihood", "likelihood: error budget"}),
        slow=True,
    ),
    "twisted particles without kernel weights": Mutant(
        without_kernel_weights, ("posteriors",), frozenset({"posteriors: twisted particles"}), slow=True
    ),
    "Frechet covariances with divisor N": Mutant(
        with_attribute(Moments, "covariance", property(lambda self: self.scatter / self.count)),
        ("metrics: Frechet distance of Gaussians", "metrics: Frechet distance of samples", "metrics: merging"),
        frozenset({"metrics: Frechet distance of samples"}),
    ),
    "kernel distances with diagonal terms": Mutant(
        with_diagonal_terms, ("metrics",), frozenset({"metrics: unbiased estimators"}), slow=True
    ),
    "log-Jacobian without dequantisation": Mutant(
        without_dequantisation, ("data",), frozenset({"data: Jacobians", "data: bits"})
    ),
}
"""Name -> defect; of the checks that are run, exactly those named must fail."""


def failing(among: tuple[str, ...]) -> set[str]:
    """Return the keys of the checks that fail, of the given groups and checks."""
    bench = Bench(torch.device("cpu"))
    checks = [c for group in GROUPS.values() for c in group.checks if c.group in among or c.key in among]
    assert {c.group for c in checks} | {c.key for c in checks} >= set(among), "a name is neither a group nor a check"
    return {c.key for c in checks if not c.accelerator and not run_check(c, bench).passed}


def table(groups: tuple[str, ...]) -> None:
    """Print which checks of whole groups each defect makes fail."""
    torch.set_num_threads(1)
    for name, mutant in {"no defect": Mutant(lambda patch: None, groups, frozenset()), **MUTANTS}.items():
        with pytest.MonkeyPatch.context() as patch:
            mutant.patch(patch)
            found = sorted(failing(groups))
        sys.stdout.write(f"{name}: {len(found)} failed: {'; '.join(found) or 'none'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    table(tuple(sys.argv[1:]) or tuple(GROUPS))
