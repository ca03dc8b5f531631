"""Posterior solvers compared with exact posteriors, for a mixture of three Gaussians under linear observations.

    python benchmarks/posteriors.py                 # tables on the screen, benchmarks/results/posteriors.json
    python benchmarks/posteriors.py --only 8 --solvers pigdm twisted --n 256

The prior is the library's `skewed_mixture` (off-centre, rotated, deviations 0.1 to 0.8, weights 0.5, 0.3, 0.2) in 2, 8
and 64 dimensions, by default under VP, with its exact score. The observation is y = A x_0 + 0.2 z with M = 1, 4 and 16
rows of A, whose entries are normal with variance 1 / d. `--problems` values of y are drawn from the model itself, and
every solver draws n samples for each, with its default sampler unless the row says otherwise. The first row has as many
exact samples; its errors are due to the number of samples alone.

mean        |mean - exact mean| over the exact root mean square deviation, sqrt(trace of the covariance)
covariance  |covariance - exact| over |exact|, Frobenius norms
sliced W2   distance to 4096 exact samples over 128 directions, in units of the root mean square deviation of an entry
50 %, 90 %  probability of the exact posterior between the solver's 25 and 75 %, and 5 and 95 %, quantiles along the
            same directions: smaller values mean samples that are too narrow or displaced, larger ones too wide
calls       score evaluations per sample
seconds     wall-clock time of all problems; the score of the mixture is cheap, so that most of it is the solver's

All numbers are averages over problems and over finite samples; the number of samples that are not finite stands beside
the row's name.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.inverse import (
    DPS,
    GaussianNoise,
    Matrix,
    MomentMatched,
    Observation,
    PiGDM,
    PosteriorLangevin,
    Solver,
    TwistedParticles,
    all_solvers,
)
from scorefield.inverse.solvers.table import refusals
from scorefield.metrics.sliced_wasserstein import random_directions, wasserstein_1d
from scorefield.process import VE, VP, Process
from scorefield.score.oracles import Mixture, Oracle, skewed_mixture

F64 = torch.float64
MEASUREMENTS = {2: 1, 8: 4, 64: 16}
STD = 0.2
EXACT = 4096
PROCESSES: dict[str, Process] = {"vp": VP(), "ve": VE(0.01, 20.0)}
COLUMNS = ("mean", "covariance", "sliced W2", "50 %", "90 %", "calls", "seconds")


def variants() -> dict[str, Solver]:
    """Return every solver with its defaults, and some with other settings."""
    return {name: cls() for name, cls in all_solvers().items()} | {
        "dps, norm 0.5": DPS(0.5, "norm"),
        "pigdm, prior_std 0.5": PiGDM(prior_std=0.5),
        "moment-matched, 3 iterations": MomentMatched(iterations=3),
        "langevin, 500 rounds at the end": PosteriorLangevin(settling=500),
        "twisted, 8 particles": TwistedParticles(8),
    }


# ------------------------------------------------------------------------------------------------ problems


def problem(process: Process, d: int, problems: int) -> tuple[Mixture, Observation, list[Oracle]]:
    """Return the prior, an observation with one y for each problem, and the exact posteriors."""
    prior = skewed_mixture(process, d)
    draw = torch.Generator().manual_seed(d)
    A = torch.randn(MEASUREMENTS[d], d, dtype=F64, generator=draw) / d**0.5
    y = prior.sample(problems, seed=9) @ A.T
    y = y + STD * torch.randn(y.shape, dtype=F64, generator=draw)
    observation = Observation(Matrix(A, (d,)), y, GaussianNoise(STD))
    posteriors = [prior.posterior(A, one, STD) for one in y]
    return prior, observation, posteriors


def errors(x: Tensor, exact: Oracle) -> dict[str, float]:
    """Return the errors of the samples of one problem, (n, d)."""
    mean, covariance = exact.data_moments()
    d = len(mean)
    directions = random_directions(d, 128, seed=0)
    projected, reference = ((v @ directions).sort(dim=0).values for v in (x, exact.sample(EXACT, seed=77)))
    inside = []
    for share in (0.5, 0.9):
        low, high = (torch.quantile(projected, q, dim=0) for q in (0.5 - share / 2, 0.5 + share / 2))
        inside.append(float(((reference >= low) & (reference <= high)).double().mean()))
    rms = math.sqrt(float(covariance.trace()))
    return {
        "mean": float((x.mean(0) - mean).norm()) / rms,
        "covariance": float((torch.cov(x.T) - covariance).norm() / covariance.norm()),
        "sliced W2": math.sqrt(float(wasserstein_1d(projected, reference).mean())) / (rms / math.sqrt(d)),
        "50 %": inside[0],
        "90 %": inside[1],
    }


def averaged(samples: list[Tensor], posteriors: list[Oracle]) -> dict[str, Any]:
    """Return the errors averaged over problems; samples that are not finite are counted and left out."""
    finite = [x[torch.isfinite(x).all(1)] for x in samples]
    not_finite = sum(map(len, samples)) - sum(map(len, finite))
    if min(map(len, finite)) < 2:
        return {"not finite": not_finite}
    rows = [errors(x, exact) for x, exact in zip(finite, posteriors, strict=True)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} | {"not finite": not_finite}


# ------------------------------------------------------------------------------------------------ rows


def measure(process: Process, d: int, problems: int, n: int, chosen: Mapping[str, Solver]) -> dict[str, dict[str, Any]]:
    """Return a row for each solver, or the reason why it does not accept the problem."""
    prior, observation, posteriors = problem(process, d, problems)
    exact = [p.sample(n, seed=5) for p in posteriors]
    found = {"exact samples": averaged(exact, posteriors) | {"calls": 0, "seconds": 0.0}}
    each = observation.rows([k // n for k in range(problems * n)])
    for label, solver in chosen.items():
        if why := refusals(solver, prior, observation):
            found[label] = {"refused": "; ".join(why)}
            continue
        began = time.perf_counter()
        run = solver.run(prior, each, indices=range(problems * n))
        seconds = time.perf_counter() - began
        row = averaged(list(run.x.double().reshape(problems, n, d)), posteriors)
        found[label] = row | {"calls": int(run.calls.double().mean()), "seconds": seconds}
        if run.log_evidence is not None:
            estimates = run.log_evidence.double().reshape(problems, n).logsumexp(1) - math.log(n)
            truth = [prior.log_evidence(observation.operator.matrix(), y, STD) for y in observation.observed]  # type: ignore[attr-defined]
            found[label]["log evidence off by"] = (estimates - torch.tensor(truth, dtype=F64)).tolist()
        print(f"    {label}: {seconds:.0f} s", flush=True)
    return found


def as_markdown(d: int, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of one dimension."""
    lines = [f"| d = {d} | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for label, row in found.items():
        if "refused" in row:
            lines.append(f"| {label} | refused: {row['refused']} |" + " |" * (len(COLUMNS) - 1))
            continue
        cells = [_cell(name, row.get(name)) for name in COLUMNS]
        note = f" ({row['not finite']} not finite)" if row["not finite"] else ""
        lines.append(f"| {label}{note} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name in ("calls", "seconds") else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", choices=tuple(MEASUREMENTS), default=tuple(MEASUREMENTS))
    parser.add_argument("--solvers", nargs="+", help="names of the rows to run; default: all")
    parser.add_argument("--process", choices=tuple(PROCESSES), default="vp")
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--n", type=int, default=128, help="samples for each problem")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "posteriors.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name: s for name, s in variants().items() if options.solvers is None or name in options.solvers}
    if options.solvers and (unknown := set(options.solvers) - set(chosen)):
        parser.error(f"there are no rows {', '.join(sorted(unknown))}; the rows are {', '.join(variants())}")
    found: dict[str, Any] = {"process": options.process, "problems": options.problems, "n": options.n}
    for d in options.only:
        found[f"d = {d}"] = measure(PROCESSES[options.process], d, options.problems, options.n, chosen)
        print("\n" + as_markdown(d, found[f"d = {d}"]) + "\n", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
