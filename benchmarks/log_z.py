"""Coverage of the stated intervals of log Z, and gradients per effective sample of the chains.

    python benchmarks/log_z.py                        # tables on the screen, benchmarks/results/log_z.json
    python benchmarks/log_z.py --only funnel --dimensions 2 20

Coverage. The energies have a known log Z: an off-centre anisotropic Gaussian, a mixture of two Gaussians of weights 0.8
and 0.2 and unequal widths, and Neal's funnel (v normal with deviation 1, the other coordinates with deviation
exp(v / 2)). Forward chains start from a Gaussian with the mean of the target and 1.2 times its deviation, reverse
chains from exact draws; there are 64 of each, with one schedule per target from a pilot run, which aims at a work
variance of 0.7 and is then fixed. The replicates are independent chains run as one batch. "ok", "wide" and "unusable"
are shares of verdicts. "covered" is the share of intervals that contain the exact log Z among those with the verdict ok
(beside it: among all replicates), with its 95 percent Clopper-Pearson interval.

Gradients per effective sample, d = 20. The effective sample size is the smallest bulk effective sample size of any
coordinate or its squared deviation. MALA and Hamiltonian chains (5 leapfrog steps), tuned on a pilot run, have the
exact stationary distribution; that of unadjusted Langevin dynamics is biased. On the Gaussian its variances are known,
v / (1 - e / (2 v)) for every variance v of the target: it is run at the largest step at which the worst variance is 1
percent off, and at MALA's step with the error there. On the other targets it is run at MALA's step, and the worst error
of a variance is measured with its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.stats import beta
from solvers import GeneratorNoise
from torch import Tensor

from scorefield._math import LOG_2PI
from scorefield.energy.annealed_importance import AISSettings, AnnealingPath, GaussianBase, collect_work, pilot_schedule
from scorefield.energy.bridge_sampling import bridge
from scorefield.energy.chains import run_chains
from scorefield.energy.convergence import ess_bulk, ess_mean
from scorefield.energy.transition import Kernel, tune
from scorefield.score import Energy

HERE = Path(__file__).parent
F64 = torch.float64


@dataclass(frozen=True)
class Target:
    """An energy with its exact log Z and exact draws, (n, d)."""

    energy: Energy
    log_z: float
    draws: Tensor


def gaussian(d: int, n: int, noise: GeneratorNoise) -> Target:
    """Return a Gaussian with means from -1 to 2 and deviations from 0.3 to 1.2, whose energy is lowered by 7.5."""
    m, s = torch.linspace(-1.0, 2.0, d, dtype=F64), torch.logspace(math.log10(0.3), math.log10(1.2), d, dtype=F64)

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        z = (x - m) / s
        return 0.5 * (z * z).sum(1) - 7.5, z / s

    draws = m + s * noise.normal(torch.empty(n, d, dtype=F64), 0, 0)
    return Target(
        Energy(lambda x: both(x)[0], with_gradient=both), 7.5 + float(s.log().sum()) + 0.5 * d * LOG_2PI, draws
    )


def mixture(d: int, n: int, noise: GeneratorNoise) -> Target:
    """Return the mixture 0.8 N(a, 0.5^2 I) + 0.2 N(-2 a, 0.7^2 I) with |a| = 0.8, whose energy is raised by 3."""
    a = torch.full((d,), 0.8 / math.sqrt(d), dtype=F64)
    means, widths = torch.stack([a, -2.0 * a]), torch.tensor([0.5, 0.7], dtype=F64)
    logs = torch.tensor([0.8, 0.2], dtype=F64).log() - d * widths.log() - 0.5 * d * LOG_2PI

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        differences = x[:, None] - means
        log_terms = logs - 0.5 * (differences**2).sum(2) / widths**2
        weights = torch.softmax(log_terms, dim=1) / widths**2
        return 3.0 - torch.logsumexp(log_terms, dim=1), (weights[..., None] * differences).sum(1)

    k = (noise.uniform(torch.empty(n, dtype=F64), 0, 0) > 0.8).long()
    draws = means[k] + widths[k, None] * noise.normal(torch.empty(n, d, dtype=F64), 0, 0)
    return Target(Energy(lambda x: both(x)[0], with_gradient=both), -3.0, draws)


def funnel(d: int, n: int, noise: GeneratorNoise) -> Target:
    """Return Neal's funnel, v ~ N(0, 1) and the other coordinates N(0, exp(v)), without the constants of the energy."""

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        v, rest = x[:, 0], x[:, 1:]
        inverse = torch.exp(-v)
        squares = (rest**2).sum(1)
        energy = 0.5 * v**2 + 0.5 * (d - 1) * v + 0.5 * inverse * squares
        slope = v + 0.5 * (d - 1) - 0.5 * inverse * squares
        return energy, torch.cat([slope[:, None], inverse[:, None] * rest], dim=1)

    z = noise.normal(torch.empty(n, d, dtype=F64), 0, 0)
    draws = torch.cat([z[:, :1], torch.exp(0.5 * z[:, :1]) * z[:, 1:]], dim=1)
    return Target(Energy(lambda x: both(x)[0], with_gradient=both), 0.5 * d * LOG_2PI, draws)


TARGETS = {"gaussian": gaussian, "mixture": mixture, "funnel": funnel}


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 percent Clopper-Pearson interval of a share."""
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    return low, 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))


def coverage(name: str, d: int, replicates: int, chains: int, most_rungs: int, seed: int) -> dict[str, object]:
    """Return one row of the table of coverage.

    Args:
        name: Name of the target.
        d: Dimension.
        replicates: Number of replicates.
        chains: Chains of each replicate in each direction.
        most_rungs: Largest number of rungs of the schedule.
        seed: Seed of all draws.
    """
    began, noise, n = time.process_time(), GeneratorNoise(seed), replicates * chains
    target = TARGETS[name](d, n, noise)
    base = GaussianBase.matched(TARGETS[name](d, 2000, GeneratorNoise(seed + 1)).draws, widen=1.2)
    route = AnnealingPath((base.energy, target.energy), (1.0, 0.0), (0.0, 1.0))
    settings = AISSettings(most_rungs=most_rungs, pilot=128)
    start = base.draw(GeneratorNoise(seed + 2), torch.empty(settings.pilot, d, dtype=F64))
    schedule = pilot_schedule(route, start, settings, seed=seed)
    first = base.draw(noise, torch.empty(n, d, dtype=F64))
    forward = collect_work(route, schedule, first, noise).log_weight.reshape(replicates, chains)
    reverse = collect_work(route, schedule, target.draws, noise, reverse=True).log_weight.reshape(replicates, chains)
    found = bridge(forward, reverse, resamples=300)
    inside = (found.low <= target.log_z) & (target.log_z <= found.high)
    ok = found.verdict == 0
    hits, count = int((inside & ok).sum()), int(ok.sum())
    values = found.value[ok]
    return {
        "target": name,
        "dimension": d,
        "replicates": replicates,
        "chains": chains,
        "rungs": schedule.rungs,
        "work variance": float(forward.var(dim=1).mean()),
        "ok": count / replicates,
        "wide": float((found.verdict == 1).double().mean()),
        "unusable": float((found.verdict == 2).double().mean()),
        "covered where ok": hits / count if count else None,
        "between": clopper_pearson(hits, count) if count else None,
        "covered of all": float(inside.double().mean()),
        "bias": float(values.mean() - target.log_z) if count else None,
        "deviation": float(values.std()) if count > 1 else None,
        "standard error": float(found.standard_error[ok].mean()) if count else None,
        "seconds": time.process_time() - began,
    }


def unadjusted_langevin(target: Target, start: Tensor, size: float, draws: int, noise: GeneratorNoise) -> Tensor:
    """Return the draws of chains x <- x + e score + sqrt(2 e) z with e = `size`, (chain, draw, d)."""
    x, states = start, []
    for k in range(draws):
        x = x - size * target.energy.with_gradient(x)[1] + math.sqrt(2.0 * size) * noise.normal(x, k, 0)
        states.append(x)
    return torch.stack(states, dim=1)


ALLOWED = 0.01
"""Relative error of the worst variance at which unadjusted Langevin dynamics is run on the Gaussian."""


def efficiency(name: str, d: int, draws: int, seed: int) -> list[dict[str, object]]:
    """Return the rows of MALA, HMC and unadjusted Langevin dynamics on one target."""
    target = TARGETS[name](d, 64, GeneratorNoise(seed))
    truth = TARGETS[name](d, 400_000, GeneratorNoise(seed + 1)).draws.var(dim=0)
    rows: list[dict[str, object]] = []
    steps = {}
    for label, leapfrog in (("MALA", 1), ("HMC", 5)):
        kernel = tune(target.energy, target.draws, kernel=Kernel(leapfrog), seed=seed)
        run = run_chains(
            target.energy, target.draws, draws=draws // leapfrog, kernel=kernel, noise=GeneratorNoise(seed + 2)
        )
        acceptance = float(run.acceptance.mean())
        steps[label] = size = kernel.size(1.0)
        rows.append(row_of(name, label, run.x, leapfrog, size, acceptance, truth) | {"exact": True})
    if name == "gaussian":
        # The relative error 1 / (1 - e / (2 v)) - 1 is largest at the smallest variance v; solved for e.
        smallest = 0.3**2
        steps = {f"unadjusted, {100 * ALLOWED:g} % off": 2.0 * smallest * ALLOWED / (1.0 + ALLOWED), **steps}
    for label, size in steps.items():
        if label == "HMC":
            continue
        label = "unadjusted, MALA's step" if label == "MALA" else label
        x = unadjusted_langevin(target, target.draws, size, draws, GeneratorNoise(seed + 3))[:, draws // 4 :]
        if not bool(x.isfinite().all()):
            rows.append({"target": name, "chain": label, "size": size, "diverged": diverged_share(x)})
            continue
        row = row_of(name, label, x, 1, size, 1.0, truth) | {"exact": False}
        if name == "gaussian":
            row["worst variance error, closed form"] = 1.0 / (1.0 - size / (2.0 * smallest)) - 1.0
        rows.append(row)
    return rows


def diverged_share(x: Tensor) -> float:
    """Return the share of chains with values that are not finite."""
    return 1.0 - float(x.isfinite().flatten(1).all(dim=1).double().mean())


def row_of(
    name: str, label: str, x: Tensor, cost: int, size: float, acceptance: float, truth: Tensor
) -> dict[str, object]:
    """Return one row of the table of efficiency.

    Args:
        name: Name of the target.
        label: Name of the chain.
        x: Draws, (chain, draw, d).
        cost: Gradients per draw.
        size: Step size.
        acceptance: Mean acceptance rate.
        truth: Exact variances, (d,).
    """
    squares = (x - x.mean(dim=(0, 1))).square()
    worst = int((squares.mean(dim=(0, 1)) / truth - 1.0).abs().argmax())
    error = float(squares[..., worst].std()) / math.sqrt(float(ess_mean(squares[..., worst])))
    return {
        "target": name,
        "chain": label,
        "size": size,
        "acceptance": acceptance,
        "gradients per effective sample": x.shape[0]
        * x.shape[1]
        * cost
        / float(torch.minimum(ess_bulk(x), ess_bulk(squares)).min()),
        "worst variance error": float(squares[..., worst].mean() / truth[worst] - 1.0),
        "its standard error": error / float(truth[worst]),
    }


def show(rows: list[dict[str, object]]) -> None:
    """Print rows of a table."""
    for row in rows:
        cells = []
        for key, value in row.items():
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
            if isinstance(value, tuple):
                text = "[" + ", ".join(f"{v:.3f}" for v in value) + "]"
            cells.append(f"{key} {text}")
        print(" | ".join(cells), flush=True)


def main() -> None:
    """Run both parts, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TARGETS, nargs="*", default=list(TARGETS))
    parser.add_argument("--dimensions", type=int, nargs="*", default=[2, 20, 50])
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--most-rungs", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "log_z.json")
    options = parser.parse_args()
    covered: list[dict[str, object]] = []
    for name in options.only:
        for d in options.dimensions:
            row = coverage(name, d, options.replicates, options.chains, options.most_rungs, options.seed)
            show([row])
            covered.append(row)
    costs: list[dict[str, object]] = []
    if options.draws:
        for name in options.only:
            rows = efficiency(name, 20, options.draws, options.seed)
            show(rows)
            costs += rows
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"coverage": covered, "efficiency": costs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
