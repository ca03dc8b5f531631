"""Overhead of sampling loops beside the network: CPU time of 50 steps with a score that costs nothing.

    python benchmarks/overhead.py                    # table on the screen, benchmarks/results/overhead.json

States are 16x3x32x32 float32 numbers, on one thread; diffusers' schedulers are measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield._random import IndexedNoise
from scorefield.process import VP, Process
from scorefield.process.grids import LogSNR
from scorefield.sampling import (
    Ancestral,
    Chain,
    Consistent,
    EulerMaruyama,
    ExponentialMultistep,
    FlowHeun,
    Langevin,
    ReverseDiffusion,
    Step,
    StochasticMultistep,
    drive,
)
from scorefield.score import Score


class FixedNoise:
    """Noise source that always returns the same numbers, so that a loop is timed without drawing noise."""

    def __init__(self, value: Tensor):
        self.value = value

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        return self.value

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return self.value


class FixedScore(Score):
    """A score that returns the same numbers for every input and costs nothing."""

    def __init__(self, process: Process, value: Tensor):
        self.process, self.value = process, value

    def __call__(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.value

    def denoised(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.value


def measure_overhead(passes: int) -> dict[str, float]:
    """Return the median CPU milliseconds of 50 steps by variant; variants alternate."""
    from diffusers import (
        DDIMScheduler,
        DEISMultistepScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
    )

    process, x = VP(), torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    score = FixedScore(process, torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))

    def loop(step: Step) -> Callable[[], object]:
        return lambda: drive(score.bind(None), process, step, LogSNR(50).times(process), x, FixedNoise(score.value))

    def schedule(scheduler: Any) -> Callable[[], object]:
        def run() -> None:
            state = x
            scheduler.set_timesteps(50)
            with torch.no_grad():
                for t in scheduler.timesteps:
                    state = scheduler.step(score.value, t, state).prev_sample

        return run

    jobs: dict[str, Callable[[], object]] = {
        "ours, DDIM": loop(ExponentialMultistep(1)),
        "ours, 2M": loop(ExponentialMultistep(2, start="low")),
        "ours, order 3 corrected": loop(ExponentialMultistep(3, corrector=True, start="low")),
        "ours, order 4 corrected": loop(ExponentialMultistep(4, corrector=True, start="low")),
        "ours, Heun": loop(FlowHeun()),
        "ours, SDE 2M, net of noise": loop(StochasticMultistep(2)),
        "ours, PC, net of noise": loop(Chain((Langevin(), ReverseDiffusion()))),
        "ours, ancestral, net of noise": loop(Ancestral()),
        "ours, Euler-Maruyama, net of noise": loop(EulerMaruyama()),
        "ours, CAS, net of noise": loop(Consistent(0.9)),
        "noise of one draw a step": lambda: [IndexedNoise(0, range(16)).normal(x, k, 0) for k in range(50)],
        "the same by torch.randn": lambda: [torch.randn(x.shape) for _ in range(50)],
        "diffusers, DDIM": schedule(DDIMScheduler()),
        "diffusers, DPM++ 2M": schedule(DPMSolverMultistepScheduler()),
        "diffusers, DEIS": schedule(DEISMultistepScheduler()),
        "diffusers, UniPC": schedule(UniPCMultistepScheduler()),
        "diffusers, SDE-DPM++ 2M": schedule(DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(passes):
        for name, job in jobs.items():
            began = time.process_time()
            job()
            times[name].append(1e3 * (time.process_time() - began))
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"torch": torch.__version__, "overhead": measure_overhead(options.passes)}
    print("CPU milliseconds of 50 steps on 16x3x32x32 numbers with a score that costs nothing")
    for name, milliseconds in found["overhead"].items():
        print(f"{name:40}{milliseconds:>9.1f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
