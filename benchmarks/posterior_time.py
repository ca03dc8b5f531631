"""Time of a posterior sample against an unconditional one with the same steps, solver by solver.

    python benchmarks/posterior_time.py                  # benchmarks/results/posterior_time.json
    python benchmarks/posterior_time.py --steps 10 --batch 32 --rounds 7

The bundled digits model, y = block means of 2 x 2 pixels + noise. Each solver's own sampler is cut to the number of
steps, and the unconditional samples are drawn by the very same sampler, or by DDIM where a solver moves by itself. Each
round times every solver and its unconditional twin one right after the other, so that what else the machine does hits
both; the ratio is the median over rounds, with the least and the greatest. Calls are those of one sample.
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
    """Wall time of one call."""
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
    asked = options.parse_args()
    model = sf.load("digits", device="cpu")
    score, n = model.as_score(), asked.batch
    operator = Downsample(2, model.data.shape)
    x = model.sample(1, sampler="dpm", seed=0).x
    observation = Observation(operator, operator(x)[0], GaussianNoise(0.5)).in_model_units(model.data)
    pairs = {}
    for name in asked.solvers:
        solver = solver_named(name)
        sampler = with_steps(solver.default_sampler(score), asked.steps)
        itself = all(isinstance(part, Hold) for part in sampler.step.parts() if part.moves)
        plain = replace(ddim(score.process, asked.steps), final=sampler.final) if itself else sampler
        pairs[name] = (solver, sampler, plain)
    ratios: dict[str, list[float]] = {name: [] for name in pairs}
    calls, per_sample = {}, {}
    for round_ in range(asked.rounds + 1):
        for name, (solver, sampler, plain) in pairs.items():
            alone = seconds(lambda: plain.run(score, model.data.shape, indices=range(n)))  # noqa: B023
            found = posterior(score, observation, n, solver=solver, sampler=sampler)
            if round_ > 0:  # the first warms up
                ratios[name].append(found.seconds / alone)
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
    print(f"{asked.steps} steps, batches of {n}, {asked.rounds} rounds, {torch.get_num_threads()} threads")
    for row in rows:
        print(
            f"{row['solver']:<16} {row['calls']:7.0f} calls  {row['ratio']:6.2f} times unconditional"
            f" [{row['least']:.2f}, {row['greatest']:.2f}]  {row['seconds a sample']:.4f} s"
        )
    settings = {"steps": asked.steps, "batch": n, "rounds": asked.rounds, "threads": torch.get_num_threads()}
    asked.out.write_text(json.dumps({**settings, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
