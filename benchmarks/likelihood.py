"""Coverage of the stated likelihood intervals, and the time of a likelihood's right-hand side.

    python benchmarks/likelihood.py                   # tables on the screen, benchmarks/results/likelihood.json
    python benchmarks/likelihood.py --points 200 --passes 5

Coverage. Exact scores of mixtures of four normals in 2, 16, 64 and 256 dimensions under VP and VE, so that the truth is
known: log p_0 at points of p_0. The interval is stated at 90 percent; "covered" is the share of points whose interval
holds the truth, and the least that would still be within binomial error of 90 percent stands beside it. The width of
an interval is judged against the errors |nats - truth| themselves, by their median and by the tenth largest: an
interval of 90 percent for a normal error of known deviation has half a width of 2.44 median errors, and a width of 2.0
times the tenth largest; no honest one is narrower. In two dimensions the divergence is exact, and what is left is what
no tolerance removes: the prior and the truncation, which have their own terms.

Time. The right-hand side of a likelihood is the drift and its divergence. "two calls" is how it is often written: one
evaluation for the drift, a second one with a backward pass for the divergence; "shared" takes both from one evaluation.
Both with the naive network of `naive.py` and with ours (NCSN++, 32 channels, 2 blocks, batch 8 of 3x32x32), in one
process, one of each per pass, ratios of neighbours in the same pass, process time of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from naive import naive_copy
from torch import Tensor

from scorefield._math import sum_event
from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.likelihood.divergence import Hutchinson
from scorefield.likelihood.error_budget import Moments
from scorefield.likelihood.log_prob import flow_log_prob
from scorefield.likelihood.probability_flow import FlowSettings
from scorefield.nets import NCSNpp
from scorefield.process import VE, VP, Process
from scorefield.score.oracles import Mixture

HERE = Path(__file__).parent
DIMENSIONS = (2, 16, 64, 256)
PROCESSES: dict[str, Process] = {"VP": VP(), "VE": VE(0.01, 20.0)}
CONFIG = NCSNpp(channels=32, blocks=2)
BATCH = 8
TARGETS = {"covered": "at least the binomial limit", "half / median": 3.0, "ours shared": 2.5, "naive shared": 1.25}


def mixture(process: Process, D: int) -> Mixture:
    """Four normals of weights 0.4 to 0.1, means N(0, 1) in each dimension, variances from 0.05 to 0.45."""
    generator = torch.Generator().manual_seed(D)
    means = torch.randn(4, D, generator=generator, dtype=torch.float64)
    variances = 0.05 + 0.4 * torch.rand(4, D, generator=generator, dtype=torch.float64)
    return Mixture(process, torch.tensor([0.4, 0.3, 0.2, 0.1]), means, variances)


def coverage(name: str, D: int, points: int, settings: FlowSettings) -> dict[str, float | str]:
    """One line of the table."""
    process = PROCESSES[name]
    oracle = mixture(process, D)
    x = oracle.sample(points, 0.0, seed=1)
    truth = oracle.log_prob(x, 0.0)
    moments = Moments.of(oracle.sample(20_000, seed=2))
    began = time.process_time()
    found = flow_log_prob(
        oracle,
        x,
        DataSpec((D,)),
        IndexedNoise(0, range(points)),
        moments=moments,
        settings=settings,
        dtype=torch.float64,
    )
    assert found.interval is not None and found.std_error is not None and found.solver_error is not None
    assert found.truncation is not None and found.prior_mismatch is not None
    low, high = found.interval.T
    error, width = (found.nats - truth).abs(), high - low
    return {
        "process": name,
        "D": D,
        "covered": float(((low <= truth) & (truth <= high)).double().mean()),
        "limit": 0.9 - 1.645 * math.sqrt(0.9 * 0.1 / points),
        "median error": float(error.median()),
        "median width": float(width.median()),
        "half / median": float(0.5 * width.median() / error.median()),
        "width / tenth": float(width.median() / error.quantile(0.9)),
        "std_error": float(found.std_error.median()),
        "solver_error": float(found.solver_error.median()),
        "truncation": float(found.truncation.abs().median()),
        "prior_mismatch": float(found.prior_mismatch.abs().median()),
        "calls": float(found.nfe.double().mean()),
        "seconds": time.process_time() - began,
    }


# ---------------------------------------------------------------------------------------------------- time

RightHandSide = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def two_calls(network: Callable[[Tensor, Tensor], Tensor], v: Tensor) -> RightHandSide:
    """A drift, and again a drift for its divergence."""

    def evaluate(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            drift = network(x, c)
        u = x.clone().requires_grad_(True)
        (product,) = torch.autograd.grad((network(u, c) * v).sum(), u)
        return drift, sum_event(product * v)

    return evaluate


def shared(network: Callable[[Tensor, Tensor], Tensor], v: Tensor) -> RightHandSide:
    """What `inference.flow` calls."""
    divergence, rows = Hutchinson(v[None], True), torch.arange(len(v))

    def evaluate(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        drift, estimates, _ = divergence.evaluate(lambda u: network(u, c), x, rows)
        return drift, estimates[:, 0]

    return evaluate


def variants() -> dict[str, RightHandSide]:
    """The four ways, all of the same function."""
    torch.manual_seed(0)
    ours = CONFIG.build(DataSpec((3, 32, 32), 0.0, 1.0)).eval()
    for parameter in ours.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / math.sqrt(parameter[0].numel()))
    naive = naive_copy(ours).eval()
    ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in (*ours.parameters(), *naive.parameters()):
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    v = torch.randint(0, 2, (BATCH, 3, 32, 32), generator=generator).float() * 2 - 1
    return {
        "naive two calls": two_calls(naive, v),
        "naive shared": shared(naive, v),
        "ours two calls": two_calls(lambda x, c: ours(x, c, None), v),
        "ours shared": shared(lambda x, c: ours(x, c, None), v),
    }


def speed(passes: int) -> dict[str, dict[str, float]]:
    """Milliseconds and the ratio to the naive way, medians over passes with the range of the ratio.

    Raises:
        SystemExit: The ways do not agree.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    x, c = torch.randn(BATCH, 3, 32, 32, generator=generator), torch.linspace(-4.0, 3.0, BATCH)
    ways = variants()
    times: dict[str, list[float]] = {name: [] for name in ways}
    answers = {name: way(x, c) for name, way in ways.items()}
    drift, trace = answers["naive two calls"]
    for name, (other, estimate) in answers.items():
        if (other - drift).abs().max() > 1e-3 * drift.abs().max() or (estimate - trace).abs().max() > 1e-2 * (
            trace.abs().max() + drift.abs().max()
        ):
            raise SystemExit(f"{name} is another function than naive two calls")
    for _ in range(passes):
        for name, way in ways.items():
            began = time.process_time()
            way(x, c)
            times[name].append(1e3 * (time.process_time() - began))
    table = {}
    for name, own in times.items():
        paired = [a / b for a, b in zip(times["naive two calls"], own, strict=True)]
        table[name] = {
            "milliseconds": statistics.median(own),
            "ratio": statistics.median(paired),
            "lowest": min(paired),
            "highest": max(paired),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "likelihood.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = FlowSettings(probes=arguments.probes)
    print(
        f"intervals of 90 percent, {arguments.points} points, {arguments.probes} probes where the trace is estimated\n"
    )
    rows = []
    for name in PROCESSES:
        for D in DIMENSIONS:
            row = coverage(name, D, arguments.points, settings)
            if not rows:
                print("  ".join(f"{key:>14s}" for key in row))
            print("  ".join(f"{v:>14s}" if isinstance(v, str) else f"{v:14.4g}" for v in row.values()), flush=True)
            rows.append(row)
    table = speed(arguments.passes)
    print(f"\nright-hand side, one thread, milliseconds and times as fast [range of {arguments.passes} passes]")
    for name, row in table.items():
        print(
            f"  {name:16s} {row['milliseconds']:8.0f} {row['ratio']:6.2f} [{row['lowest']:.2f} .. {row['highest']:.2f}]"
        )
    print(f"targets: {TARGETS}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"coverage": rows, "right-hand side": table}, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
