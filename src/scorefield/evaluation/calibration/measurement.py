"""Posterior samples of a solver for simulated problems, and their calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield import _codec
from scorefield.evaluation.calibration.problems import EXACT, Problems
from scorefield.inverse.calibration import (
    Calibration,
    Estimate,
    calibrate,
    distance,
    error_of_mean,
    misfit,
    of_several,
    reference_points,
    spread_over_exact,
    uniformity,
)
from scorefield.inverse.noise import GaussianNoise
from scorefield.inverse.operators.operator import LinearOperator
from scorefield.inverse.posterior import posterior
from scorefield.inverse.residual import residual_test
from scorefield.inverse.solvers.solver import Solver
from scorefield.sampling.sampler import Sampler
from scorefield.score.oracles import Oracle

Arrays = dict[str, Tensor]

DOUBT = 1e-3
"""p-values below which a test is said to reject: ten solvers with four tests each rarely have one by chance."""


def answers(problems: Problems, solver: Solver, sampler: Sampler, n: int, *, seed: int, rows: slice) -> Arrays:
    """n answers to some problems: x (P, n, *event) in model units, calls, residuals with p-values, seconds of each."""
    found = posterior(
        problems.subject.score,
        problems.observation.rows(rows),
        n,
        solver=solver,
        sampler=sampler,
        seed=seed,
        start=rows.start * n,
        device=problems.subject.device,
    )
    P = len(found.x)
    x = found.x.masked_fill(~found.good.reshape(*found.good.shape, *(1,) * (found.x.ndim - 2)), math.nan)
    return {
        "x": x,
        "nfe": found.nfe,
        "seconds": torch.full((P,), found.seconds / P, dtype=torch.float64),
        **_residual(found.residual.rms, found.residual.statistic, found.residual.p_value),
    }


def _residual(rms: Tensor, statistic: Tensor | None, p_value: Tensor | None) -> Arrays:
    nothing = torch.full_like(rms, math.nan)
    return {
        "residual": rms,
        "discrepancy": nothing if statistic is None else statistic,
        "p": nothing if p_value is None else p_value,
    }


def has_exact(problems: Problems) -> bool:
    """Whether the posterior is known in closed form."""
    observation = problems.observation
    return (
        problems.subject.oracle is not None
        and isinstance(observation.operator, LinearOperator)
        and isinstance(observation.noise, GaussianNoise)
    )


def exact_law(problems: Problems, row: int) -> Oracle:
    """p(x | y) of one problem, where `has_exact`."""
    oracle, operator = problems.subject.oracle, problems.observation.operator
    noise = problems.observation.noise
    assert oracle is not None and isinstance(operator, LinearOperator) and isinstance(noise, GaussianNoise)
    return oracle.posterior(operator.matrix(), problems.observation.observed[row], noise.std)


def exact_answers(problems: Problems, n: int, *, seed: int, rows: slice) -> Arrays:
    """n exact answers to some problems, with the moments they are drawn from: what nothing can do better than."""
    numbers = range(rows.start, rows.stop)
    laws = [exact_law(problems, row) for row in numbers]
    x = torch.stack([law.sample(n, seed=seed, start=EXACT + row * n) for law, row in zip(laws, numbers, strict=True)])
    moments = [law.data_moments() for law in laws]
    local = problems.observation.rows([row for row in numbers for _ in range(n)])
    test = residual_test(x.flatten(0, 1), local)
    shaped = {
        name: value.reshape(len(x), n) for name, value in _residual(test.rms, test.statistic, test.p_value).items()
    }
    deviation = [C.diagonal().clamp(min=0.0).sqrt().reshape(m.shape) for m, C in moments]
    return {
        "x": x,
        "nfe": torch.zeros(x.shape[:2], dtype=torch.long),
        "seconds": torch.zeros(len(x), dtype=torch.float64),
        "mean": torch.stack([m for m, _ in moments]),
        "std": torch.stack(deviation),
        **shaped,
    }


@dataclass(frozen=True)
class SolverRow:
    """A solver's answers to all problems, judged.

    Args:
        name: Name of the solver; "exact" for the exact posterior.
        calls: Network evaluations of an answer.
        seconds: Seconds per posterior sample.
        failed: Answers that are not finite.
        calibration: Ranks, coverage, spread.
        ranks: p-value of all quantities of x alone.
        misfit: Test of the ranks of -log p(y | x); None where y is exact.
        tarp: Test of the ranks of distances to points that depend on y.
        residual: Test that y - A(x) is noise, with one sample of each problem; None where y is exact.
        discrepancy: Mean of -2 log p(y | x) over answers over that of the truths; None where y is exact.
        rms: Root mean square of y - A(x), units of y.
        width: Deviation over that of the exact posterior, where it is known.
        mean_error: Mean squared error of the mean in exact variances, where they are known.
        settings: Solver and sampler, as JSON.
    """

    name: str
    calls: float
    seconds: float
    failed: int
    calibration: Calibration
    ranks: float
    misfit: float | None
    tarp: float
    residual: float | None
    discrepancy: float | None
    rms: float
    width: Estimate | None = None
    mean_error: Estimate | None = None
    settings: Any = None

    @property
    def verdict(self) -> str:
        """Which tests reject it, at `DOUBT`, and in which direction it is off."""
        tests = {"ranks": self.ranks, "misfit": self.misfit, "TARP": self.tarp, "residual": self.residual}
        bad = [name for name, p in tests.items() if p is not None and p < DOUBT]
        spread = self.calibration.spread
        narrow = (spread.value - 1.0) / spread.error
        if not bad and abs(narrow) < 4.0:
            return "not rejected"
        words = ["narrow"] if narrow < -4.0 else ["wide"] if narrow > 4.0 else []
        return "; ".join([*words, *(["rejected by " + ", ".join(bad)] if bad else [])])

    def record(self) -> dict[str, Any]:
        """The row as JSON values."""
        found = self.calibration
        return {
            "solver": self.name,
            "verdict": self.verdict,
            "problems": found.problems,
            "dropped": found.dropped,
            "answers": found.answers,
            "failed": self.failed,
            "coverage": [vars(part) for part in found.coverage],
            "spread": vars(found.spread),
            "bias": vars(found.bias),
            "p-values": {
                "ranks": self.ranks, "misfit": self.misfit, "TARP": self.tarp, "residual": self.residual,
            },
            "tests": {name: vars(test) for name, test in found.tests.items()},
            "discrepancy": self.discrepancy,
            "residual": self.rms,
            "width": None if self.width is None else vars(self.width),
            "error of mean": None if self.mean_error is None else vars(self.mean_error),
            "calls": self.calls,
            "seconds": self.seconds,
            "settings": self.settings,
        }  # fmt: skip


def judge(
    name: str,
    problems: Problems,
    arrays: Arrays,
    *,
    exact: Arrays | None = None,
    solver: Solver | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> SolverRow:
    """The row of a solver.

    Args:
        name: Name of the solver.
        problems: All of them.
        arrays: Its answers to them.
        exact: Moments of the exact posterior, as `exact_answers` gives them.
        solver: The solver, for the record.
        sampler: The sampler, for the record.
        seed: Seed of reference points, directions and ties.

    Raises:
        ValueError: Too few problems have answers that are finite.
    """
    x, observation = arrays["x"].double(), problems.observation
    truth = problems.truth.to(x)
    has_density = not (isinstance(observation.noise, GaussianNoise) and observation.noise.std == 0.0)
    more = {"TARP": distance(truth, x, reference_points(observation, seed=seed))}
    if has_density:
        more["misfit"] = misfit(truth, x, observation)
    found = calibrate(truth, x, more, seed=seed)
    good = torch.isfinite(x).flatten(2).all(dim=2)
    first = arrays["p"][:, 0]
    first = first[torch.isfinite(first)]
    tested = uniformity(first) if len(first) >= 16 else None
    expected = residual_test(truth, observation).statistic if has_density else None
    D = arrays["discrepancy"]
    return SolverRow(
        name=name,
        calls=float(arrays["nfe"].double().mean()),
        seconds=float(arrays["seconds"].mean()) / x.shape[1],
        failed=int((~good).sum()),
        calibration=found,
        ranks=found.p_value("projection", "pixel", "norm"),
        misfit=found.p_value("misfit") if has_density else None,
        tarp=found.p_value("TARP"),
        residual=None if tested is None else of_several([tested.ks, tested.chi_square]),
        discrepancy=None if expected is None else float(D[torch.isfinite(D)].mean() / expected.mean()),
        rms=float(arrays["residual"][good].square().mean().sqrt()),
        width=None if exact is None else spread_over_exact(x, exact["std"]),
        mean_error=None if exact is None else error_of_mean(x, exact["mean"], exact["std"]),
        settings={"solver": _codec.encode(solver), "sampler": _codec.encode(sampler)} if solver is not None else None,
    )
