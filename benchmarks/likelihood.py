"""Coverage of the stated likelihood intervals, and the time of the right-hand side of the likelihood's ODE.

    python benchmarks/likelihood.py                   # tables on the screen, benchmarks/results/likelihood.json
    python benchmarks/likelihood.py --points 200 --passes 5

Coverage. The scores are those of mixtures of four normal distributions in 2, 16, 64 and 256 dimensions under VP and VE,
whose log p_0 is known exactly at points drawn from p_0. Intervals are stated at 90 percent. "covered" is the share of
points whose interval contains the exact value, and "limit" the smallest share that is within binomial error of 90
percent. The width of the intervals is compared with the errors |nats - exact value|, by their median and by their 90
percent quantile: for a normal error of known deviation, a 90 percent interval has a half-width of 2.44 median errors
and a width of 2.0 times the 90 percent quantile, and no correct interval is narrower. In two dimensions the divergence
is exact, so that only the errors remain that no tolerance removes: those of the prior and of the truncation, which have
terms of their own.

Time. The right-hand side is the drift and its divergence. "two calls" evaluates the network once for the drift and a
second time, with a backward pass, for the divergence, as it is often written; "shared" takes both from one evaluation.
Both are run with the network of `naive.py` and with ours (NCSN++, 32 channels, 2 blocks, batch 8 of 3x32x32), in one
process, one evaluation of each per pass; ratios are those of evaluations in the same pass, in process time of one
thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from naive import naive_copy
from step import ratios
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
    """Return four normal components of weights 0.4 to 0.1, means from N(0, I) and variances from 0.05 to 0.45."""
    generator = torch.Generator().manual_seed(D)
    means = torch.randn(4, D, generator=generator, dtype=torch.float64)
    variances = 0.05 + 0.4 * torch.rand(4, D, generator=generator, dtype=torch.float64)
    return Mixture(process, torch.tensor([0.4, 0.3, 0.2, 0.1]), means, variances)


def coverage(name: str, D: int, points: int, settings: FlowSettings) -> dict[str, float | str]:
    """Return one row of the table.

    Args:
        name: Name of the process.
        D: Dimension.
        points: Number of points.
        settings: Settings of the probability flow.
    """
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
    """Return drift and divergence by two evaluations of the network, with the probes v, (B, C, H, W)."""

    def evaluate(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            drift = network(x, c)
        u = x.clone().requires_grad_(True)
        (product,) = torch.autograd.grad((network(u, c) * v).sum(), u)
        return drift, sum_event(product * v)

    return evaluate


def shared(network: Callable[[Tensor, Tensor], Tensor], v: Tensor) -> RightHandSide:
    """Return drift and divergence by one evaluation of the network, as `scorefield.likelihood` computes them."""
    divergence, rows = Hutchinson(v[None], True), torch.arange(len(v))

    def evaluate(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        drift, estimates, _ = divergence.evaluate(lambda u: network(u, c), x, rows)
        return drift, estimates[:, 0]

    return evaluate


def variants() -> dict[str, RightHandSide]:
    """Return the four variants of the same right-hand side."""
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
    """Return the milliseconds of each variant, and its speed relative to "naive two calls" with the range over passes.

    Raises:
        SystemExit: The variants do not compute the same function.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    x, c = torch.randn(BATCH, 3, 32, 32, generator=generator), torch.linspace(-4.0, 3.0, BATCH)
    functions = variants()
    times: dict[str, list[float]] = {name: [] for name in functions}
    results = {name: function(x, c) for name, function in functions.items()}
    drift, trace = results["naive two calls"]
    for name, (other, estimate) in results.items():
        if (other - drift).abs().max() > 1e-3 * drift.abs().max() or (estimate - trace).abs().max() > 1e-2 * (
            trace.abs().max() + drift.abs().max()
        ):
            raise SystemExit(f"{name!r} and 'naive two calls' do not compute the same function")
    for _ in range(passes):
        for name, function in functions.items():
            began = time.process_time()
            function(x, c)
            times[name].append(1e3 * (time.process_time() - began))
    return ratios(times, "naive two calls")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "likelihood.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = FlowSettings(probes=arguments.probes)
    print(f"90 percent intervals, {arguments.points} points, {arguments.probes} probes where the trace is estimated\n")
    rows = []
    for name in PROCESSES:
        for D in DIMENSIONS:
            row = coverage(name, D, arguments.points, settings)
            if not rows:
                print("  ".join(f"{key:>14s}" for key in row))
            print("  ".join(f"{v:>14s}" if isinstance(v, str) else f"{v:14.4g}" for v in row.values()), flush=True)
            rows.append(row)
    table = speed(arguments.passes)
    print(f"\nright-hand side, one thread, milliseconds and relative speed [range of {arguments.passes} passes]")
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
