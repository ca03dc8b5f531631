"""Time of a posterior sample relative to an unconditional one with the same number of steps, for every solver.

    python benchmarks/posterior_time.py                  # benchmarks/results/posterior_time.json
    python benchmarks/posterior_time.py --steps 10 --batch 32 --rounds 7

The model is the bundled digits model, and y = block means of 2 x 2 pixels + noise. Each solver runs with its default
sampler at the given number of steps. The unconditional samples are drawn by the same sampler, or by DDIM for solvers
that replace the sampler's steps by their own. Each round times a solver and its unconditional counterpart one right
after the other, so that other load on the machine affects both; the ratio is the median over rounds, with the smallest
and largest. Calls are network evaluations per sample.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import scorefield as sf
from scorefield.inverse import Downsample, GaussianNoise, Observation, all_solvers, posterior, solver_named
from scorefield.sampling.named import ddim, with_steps
from scorefield.sampling.step import Hold


def seconds(work: Callable[[], Any]) -> float:
    """Return the wall-clock time of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--solvers", nargs="+", default=list(all_solvers()))
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "posterior_time.json")
    chosen = options.parse_args()
    model = sf.load("digits", device="cpu")
    score, n = model.as_score(), chosen.batch
    operator = Downsample(2, model.data.shape)
    x = model.sample(1, sampler="dpm", seed=0).x
    observation = Observation(operator, operator(x)[0], GaussianNoise(0.5)).in_model_units(model.data)
    pairs = {}
    for name in chosen.solvers:
        solver = solver_named(name)
        sampler = with_steps(solver.default_sampler(score), chosen.steps)
        # A sampler whose steps only hold x leaves the move from level to level to the solver.
        own_steps = all(isinstance(part, Hold) for part in sampler.step.parts() if part.moves)
        unconditional = replace(ddim(score.process, chosen.steps), final=sampler.final) if own_steps else sampler
        pairs[name] = (solver, sampler, unconditional)
    ratios: dict[str, list[float]] = {name: [] for name in pairs}
    calls, per_sample = {}, {}
    for round_ in range(chosen.rounds + 1):
        for name, (solver, sampler, unconditional) in pairs.items():
            baseline = seconds(lambda: unconditional.run(score, model.data.shape, indices=range(n)))  # noqa: B023
            found = posterior(score, observation, n, solver=solver, sampler=sampler)
            if round_ > 0:  # the first round warms up
                ratios[name].append(found.seconds / baseline)
                calls[name], per_sample[name] = float(found.nfe.double().mean()), found.seconds / n
    rows = [
        {
            "solver": name,
            "calls": calls[name],
            "ratio": statistics.median(found),
            "least": min(found),
            "greatest": max(found),
            "seconds a sample": per_sample[name],
        }
        for name, found in ratios.items()
    ]
    print(f"{chosen.steps} steps, batches of {n}, {chosen.rounds} rounds, {torch.get_num_threads()} threads")
    for row in rows:
        print(
            f"{row['solver']:<16} {row['calls']:7.0f} calls  {row['ratio']:6.2f} times unconditional"
            f" [{row['least']:.2f}, {row['greatest']:.2f}]  {row['seconds a sample']:.4f} s per sample"
        )
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"steps": chosen.steps, "batch": n, "rounds": chosen.rounds, "threads": torch.get_num_threads()}
    chosen.out.write_text(json.dumps({**settings, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
