"""Numbers of score evaluations that solvers need, compared with those of SciPy, diffusers and azula.

    python benchmarks/solvers.py                     # tables on the screen, benchmarks/results/solvers.json
    python benchmarks/solvers.py --only calls --particles 256

There are two parts; the overhead of the sampling loops is measured by overhead.py.

calls       Deterministic solvers on the probability flows of exact mixtures under VP and VE: 2-D (8 modes on the unit
            circle, deviation 0.05, weights 1 to 8) and 64-D (10 modes, deviations 0.05 to 0.3). For each target 1e-2,
            1e-3 and 1e-4 the table gives the smallest number of score evaluations from which on the root mean square
            distance from the exact end points (SciPy's DOP853 at 1e-11), over particles and components, stays below the
            target; the data have root mean squares 0.7 and 0.5. The numbers are in float64 and the same on every
            machine. The baseline is SciPy's RK45 at tolerance 1e-5.
spread      Stochastic solvers on the 2-D mixture under VP: root mean square deviation within modes relative to the
            exact one, with its standard error, and half the sum of the absolute errors of the modes' frequencies. The
            last row has samples of the mixture itself, whose errors are due to the number of particles alone.

The other libraries use the same times as ours, which replace their schedules. azula is compared where it is installed
(`pip install azula`). diffusers runs in float32, because its UniPC accepts nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from scorefield._math import over_event
from scorefield.process import VE, VP, Process
from scorefield.process.grids import Focused, Grid, LogSNR, PowerSigma, Quadratic, Uniform
from scorefield.sampling import (
    Ancestral,
    Chain,
    ExponentialMultistep,
    FlowHeun,
    KarrasHeun,
    Langevin,
    NoiseScaled,
    ReverseDiffusion,
    Step,
    StochasticHeun,
    StochasticMultistep,
    StochasticRungeKutta,
    drive,
)
from scorefield.score import Score

TARGETS = (1e-2, 1e-3, 1e-4)
STEPS = (*range(4, 25), 27, 30, 33, 36, 40, 44, 48, 53, 58, 64, 70, 77, 85, 94, 104, 115, 128)
ENOUGH = 5
"""Numbers of steps with an error below the last target after which no more are tried."""
GRIDS: dict[str, Callable[[int], Grid]] = {"focused": Focused, "log-SNR": LogSNR}
F64 = torch.float64


# ------------------------------------------------------------------------------------------------ problems


class IsotropicMixture(Score):
    """Exact score and posterior mean of a mixture of isotropic Gaussians, the same time for the whole batch.

    Args:
        process: The noise process.
        weights: Weights of the modes, (K,).
        means: Means of the modes, (K, D).
        stds: Standard deviations of the modes, (K,).
    """

    def __init__(self, process: Process, weights: Tensor, means: Tensor, stds: Tensor):
        self.process, self.weights, self.means, self.stds = process, weights / weights.sum(), means, stds

    def posterior_mean(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return E[x_0 | alpha x_0 + sigma z = x]."""
        m, v = self.means.to(x), (alpha**2 * self.stds**2 + sigma**2).to(x)
        squared = (x * x).sum(1)[:, None] - 2.0 * alpha * x @ m.T + alpha**2 * (m * m).sum(1)
        responsibilities = (self.weights.to(x).log() - 0.5 * squared / v - 0.5 * x.shape[1] * v.log()).softmax(1)
        gain = alpha * self.stds.to(x) ** 2 / v
        return (responsibilities * (1.0 - alpha * gain)) @ m + (responsibilities @ gain)[:, None] * x

    def denoised(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.posterior_mean(x, float(self.process.alpha(t[:1])), float(self.process.sigma(t[:1])))

    def __call__(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.alpha(t[:1]), self.process.sigma(t[:1])
        return (over_event(alpha, x) * self.denoised(x, t) - x) / over_event(sigma, x) ** 2


def mixtures(process: Process) -> dict[str, IsotropicMixture]:
    """Return the two mixtures by dimension."""
    angle = torch.arange(8, dtype=F64) * math.pi / 4.0
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    means = 0.5 * torch.randn(10, 64, dtype=F64, generator=torch.Generator().manual_seed(0))
    return {
        "2": IsotropicMixture(process, torch.arange(1.0, 9.0, dtype=F64), circle, torch.full((8,), 0.05, dtype=F64)),
        "64": IsotropicMixture(process, torch.ones(10, dtype=F64), means, torch.linspace(0.05, 0.3, 10, dtype=F64)),
    }


def flow_by_scipy(score: IsotropicMixture, x: Tensor, method: str, tolerance: float) -> tuple[Tensor, int]:
    """Return the end points of the probability flow by SciPy, with the batch as one state, and the evaluations."""

    def drift(t: float, y: Any) -> Any:
        state, times = torch.from_numpy(y).reshape(x.shape), torch.full((len(x),), t, dtype=F64)
        return score.process.flow_drift(state, times, score(state, times)).reshape(-1).numpy()

    ends = (1.0, score.process.t_min.sampling)
    found = solve_ivp(drift, ends, x.reshape(-1).numpy(), method=method, rtol=tolerance, atol=tolerance)
    return torch.from_numpy(found.y[:, -1]).reshape(x.shape), int(found.nfev)


# ------------------------------------------------------------------------------------------------ solvers

Solve = Callable[[IsotropicMixture, Tensor, Tensor], tuple[Tensor, int]]
"""(score, times, x at the first time) -> (x at the last time, number of score evaluations)."""


class GeneratorNoise:
    """Noise source that draws from one generator in sequence, in the dtype of the state."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, dtype=like.dtype)


def solve_with(step: Step) -> Solve:
    """Return the solver of a step of this package."""

    def solve(score: IsotropicMixture, times: Tensor, x: Tensor) -> tuple[Tensor, int]:
        bound = score.bind(None)
        return drive(bound, score.process, step, times, x, GeneratorNoise()).x, bound.calls

    return solve


def our_solvers() -> dict[str, Solve]:
    """Return the deterministic solvers of this package."""
    solvers: dict[str, Solve] = {}
    for predict, order, corrector in (
        ("data", 1, False),
        ("data", 2, False),
        ("data", 3, False),
        ("data", 3, True),
        ("data", 4, False),
        ("data", 4, True),
        ("noise", 4, False),
        ("noise", 4, True),
        ("velocity", 3, False),
        ("velocity", 4, False),
        ("velocity", 4, True),
    ):
        step = ExponentialMultistep(order, predict, corrector, "low")  # type: ignore[arg-type]
        solvers[f"{predict} {order}{' corrected' if corrector else ''}"] = solve_with(step)
    for order in (3, 4):
        step = ExponentialMultistep(order, "velocity", start="low", spread=1.0)  # type: ignore[arg-type]
        solvers[f"velocity {order}, spread 1"] = solve_with(step)
    solvers["data 4 corrected, own start"] = solve_with(ExponentialMultistep(4, corrector=True))
    solvers["EDM Heun"], solvers["Heun in t"] = solve_with(KarrasHeun()), solve_with(FlowHeun())
    return solvers


def diffusers_solvers() -> dict[str, Solve]:
    """Return the solvers of diffusers."""
    from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

    def wrap(make: Callable[[], Any]) -> Solve:
        def solve(score: IsotropicMixture, times: Tensor, x: Tensor) -> tuple[Tensor, int]:
            return by_scheduler(make(), score, times, x)

        return solve

    return {
        "diffusers DPM++ 2M": wrap(lambda: DPMSolverMultistepScheduler(solver_order=2)),
        "diffusers DPM++ 3M": wrap(lambda: DPMSolverMultistepScheduler(solver_order=3)),
        "diffusers DEIS 3": wrap(lambda: DEISMultistepScheduler(solver_order=3)),
        "diffusers UniPC 2": wrap(lambda: UniPCMultistepScheduler(solver_order=2)),
        "diffusers UniPC 3": wrap(lambda: UniPCMultistepScheduler(solver_order=3)),
    }


def by_scheduler(scheduler: Any, score: IsotropicMixture, times: Tensor, x: Tensor) -> tuple[Tensor, int]:
    """Run a diffusers scheduler on given times; its list of sigma / alpha is replaced after `set_timesteps`."""
    alpha, sigma = score.process.alpha(times), score.process.sigma(times)
    ratios, count = (sigma / alpha).float(), len(times) - 1
    scheduler.set_timesteps(count)
    scheduler.sigmas = ratios
    scheduler.timesteps = torch.arange(count, 0, -1)
    vp_alpha = 1.0 / (1.0 + ratios.double() ** 2).sqrt()  # the scheduler assumes alpha^2 + sigma^2 = 1
    state = (x / alpha[0] * vp_alpha[0]).float()
    for k, label in enumerate(scheduler.timesteps):
        a, r = float(vp_alpha[k]), float(ratios[k])
        mean = score.posterior_mean(state, a, a * r)
        state = scheduler.step((state - a * mean) / (a * r), label, state).prev_sample
    return state.double() / vp_alpha[-1] * alpha[-1], count


def azula_solvers() -> dict[str, Solve]:
    """Return the solvers of azula, if it is installed."""
    if importlib.util.find_spec("azula") is None:
        return {}
    from azula import sample
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import Schedule

    class TabulatedSchedule(Schedule):
        """Schedule with given ratios sigma / alpha at t = k / N, the only times that the samplers use."""

        def __init__(self, ratios: Tensor):
            self.ratios = ratios.flip(0)

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            index = (t.double() * (len(self.ratios) - 1)).round().long()
            return torch.ones_like(t, dtype=F64), self.ratios[index]

    class ExactDenoiser(Denoiser):
        def __init__(self, score: IsotropicMixture, schedule: TabulatedSchedule):
            super().__init__()
            self.score, self.schedule = score, schedule

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
            return DiracPosterior(self.score.posterior_mean(x_t, 1.0, float(self.schedule(t)[1].reshape(-1)[0])))

    def wrap(cls: Any, order: int) -> Solve:
        def solve(score: IsotropicMixture, times: Tensor, x: Tensor) -> tuple[Tensor, int]:
            alpha, sigma = score.process.alpha(times), score.process.sigma(times)
            denoiser = ExactDenoiser(score, TabulatedSchedule(sigma / alpha))
            run = cls(denoiser, order=order, steps=len(times) - 1, silent=True, dtype=F64)
            return run(x / alpha[0]) * alpha[-1], len(times) - 1

        return solve

    return {
        f"azula {name} {order}": wrap(getattr(sample, f"{name}Sampler"), order)
        for name in ("zEAB", "xEAB", "vAB")
        for order in (3, 4)
    }


# ------------------------------------------------------------------------------------------------ measurements


def calls_needed(
    solve: Solve, grid: Callable[[int], Grid], score: IsotropicMixture, x: Tensor, exact: Tensor
) -> list[int | None]:
    """Return for each target the fewest evaluations from which on the error stays below it, or None."""
    errors: dict[int, float] = {}
    good = 0
    for n in STEPS:
        if good == ENOUGH:
            break
        end, calls = solve(score, grid(n).times(score.process), x)
        if calls <= STEPS[-1]:
            errors[calls] = float((end - exact).square().mean().sqrt())
            good = good + 1 if errors[calls] <= TARGETS[-1] else 0
    needed: list[int | None] = []
    for target in TARGETS:
        best = None
        for calls in sorted(errors, reverse=True):
            if not errors[calls] <= target:  # this form also stops at NaN
                break
            best = calls
        needed.append(best)
    return needed


def measure_calls(particles: int, peers: bool) -> dict[str, Any]:
    """Return the evaluations for every solver, grid, problem and target.

    Args:
        particles: Number of particles.
        peers: Whether diffusers and azula are compared.
    """
    rows: dict[str, dict[str, list[int | None]]] = {}
    baseline: dict[str, Any] = {}
    for process in (VP(), VE(0.01, 50.0)):
        for dimension, score in mixtures(process).items():
            problem = f"{type(process).__name__} {dimension}-D"
            x = torch.randn(particles, int(dimension), dtype=F64, generator=torch.Generator().manual_seed(1))
            x = process.prior_std * x
            exact, _ = flow_by_scipy(score, x, "DOP853", 1e-11)
            end, calls = flow_by_scipy(score, x, "RK45", 1e-5)
            baseline[problem] = {"calls": calls, "error": float((end - exact).square().mean().sqrt())}
            grids = dict(GRIDS) | ({"quadratic": Quadratic} if isinstance(process, VP) else {})
            solvers = our_solvers() | ((diffusers_solvers() | azula_solvers()) if peers else {})
            for name, solve in solvers.items():
                for grid in (*grids, "power 7") if name == "EDM Heun" else grids:
                    found = calls_needed(solve, PowerSigma if grid == "power 7" else grids[grid], score, x, exact)
                    rows.setdefault(f"{name}, {grid}", {})[problem] = found
            print(f"  measured {problem}", file=sys.stderr)
    return {"RK45 at 1e-5": baseline, "targets": list(TARGETS), "rows": rows}


def measure_spread(particles: int) -> list[dict[str, Any]]:
    """Return the spread within modes and the error of the modes' frequencies of stochastic solvers, 2-D under VP."""
    score = mixtures(VP())["2"]
    process = score.process
    corrector = Chain((Langevin(NoiseScaled(0.16)), ReverseDiffusion()))
    cases: list[tuple[str, Step, Grid]] = [
        ("PC", corrector, Uniform(500)),
        ("PC", corrector, Uniform(1000)),
        ("ancestral", Ancestral(), LogSNR(50)),
        ("ancestral", Ancestral(), LogSNR(200)),
    ]
    for n in (10, 15, 20, 30, 50):
        for strength in (1.0, 0.5):
            cases.append((f"multistep 2, strength {strength:g}", StochasticMultistep(2, False, strength), Focused(n)))
            name = f"multistep 2 corrected, strength {strength:g}"
            cases.append((name, StochasticMultistep(2, True, strength), Focused(n)))
        cases.append(("dpm (deterministic)", ExponentialMultistep(4, corrector=True, start="low"), Focused(n)))
        if n >= 20:
            cases.append(("stochastic Heun", StochasticHeun(), Focused(n // 2)))
            cases.append(("stochastic Runge-Kutta", StochasticRungeKutta(), Focused(n // 2)))
            cases.append(("EDM, S_churn 10", KarrasHeun(min(20.0 / n, 0.4142)), PowerSigma(n // 2)))
    found = []
    for name, step, grid in sorted(cases, key=lambda case: case[0]):
        times, noise, bound = grid.times(process), GeneratorNoise(3), score.bind(None)
        x = drive(bound, process, step, times, noise.normal(torch.empty(particles, 2, dtype=F64), 0, 0), noise).x
        found.append({"solver": name, "calls": bound.calls} | spread_of(x, score, times[-1:]))
    generator = torch.Generator().manual_seed(4)
    mode = torch.multinomial(score.weights, particles, replacement=True, generator=generator)
    x = score.means[mode] + 0.05 * torch.randn(particles, 2, dtype=F64, generator=generator)
    alpha, sigma = process.alpha(times[-1:]), process.sigma(times[-1:])
    x = alpha * x + sigma * torch.randn(particles, 2, dtype=F64, generator=generator)
    found.append({"solver": "exact samples", "calls": 0} | spread_of(x, score, times[-1:]))
    return found


def spread_of(x: Tensor, score: IsotropicMixture, t: Tensor, groups: int = 32) -> dict[str, float]:
    """Return the spread within modes relative to the exact one, its standard error, and the error of the weights.

    The standard error comes from the means of `groups` groups of particles.
    """
    alpha, sigma = float(score.process.alpha(t)), float(score.process.sigma(t))
    nearest = torch.cdist(x, alpha * score.means).argmin(1)
    squares = (x - alpha * score.means[nearest]).square().mean(1) / ((0.05 * alpha) ** 2 + sigma**2)
    means = squares[: len(x) // groups * groups].reshape(groups, -1).mean(1)
    spread = float(squares.mean().sqrt())
    return {
        "spread": spread,
        "standard error": float(means.std()) / groups**0.5 / (2.0 * spread),
        "weights off by": 0.5 * float((torch.bincount(nearest, minlength=8) / len(x) - score.weights).abs().sum()),
    }


# ------------------------------------------------------------------------------------------------ tables


def print_calls(found: dict[str, Any]) -> None:
    """Print the evaluations of all solvers, the fewest of ours and of the other libraries, and their ratios."""
    problems = list(found["RK45 at 1e-5"])
    print("\nscore evaluations for trajectory errors 1e-2 / 1e-3 / 1e-4 (-: more than 128)")
    print(f"{'':40}" + "".join(f"{p:>16}" for p in problems))
    baseline = "".join(f"{v['calls']:>6} ({v['error']:.0e})" + " " * 2 for v in found["RK45 at 1e-5"].values())
    print(f"{'SciPy RK45 at 1e-5 (its error)':40}{baseline}")
    for name, row in sorted(found["rows"].items(), key=lambda item: _mean_calls(item[1])):
        cells = [" / ".join("-" if c is None else str(c) for c in row.get(p, [None] * 3)) for p in problems]
        print(f"{name:40}" + "".join(f"{cell:>16}" for cell in cells))
    print("\nfewest evaluations, ours / other libraries, each on its best grid")
    ours, peers = fewest(found, peers=False), fewest(found, peers=True)
    for k, target in enumerate(found["targets"]):
        cells = [f"{_cell(ours[p][k])} / {_cell(peers[p][k])}" for p in problems]
        print(f"{f'error {target:.0e}':40}" + "".join(f"{cell:>16}" for cell in cells))
    print("\nfewest evaluations of ours over those of SciPy's RK45 at 1e-5")
    for k, target in enumerate(found["targets"]):
        ratios = [ours[p][k] / found["RK45 at 1e-5"][p]["calls"] for p in problems]
        print(f"{f'error {target:.0e}':40}" + "".join(f"{ratio:>16.2f}" for ratio in ratios))


def fewest(found: dict[str, Any], peers: bool) -> dict[str, list[float]]:
    """Return for each problem and target the fewest evaluations of any solver, infinity if none reaches the target.

    Args:
        found: Result of `measure_calls`.
        peers: Whether of the solvers of diffusers and azula, or of ours.
    """
    rows = [row for name, row in found["rows"].items() if name.startswith(("azula", "diffusers")) == peers]
    return {
        problem: [
            min((row[problem][k] or math.inf for row in rows if problem in row), default=math.inf)
            for k in range(len(found["targets"]))
        ]
        for problem in found["RK45 at 1e-5"]
    }


def _cell(calls: float) -> str:
    return "-" if math.isinf(calls) else str(calls)


def _mean_calls(row: dict[str, list[int | None]]) -> float:
    """Return the geometric mean of a row's evaluations, by which rows are sorted; 400 stands for more than 128."""
    calls = [c or 400 for cells in row.values() for c in cells]
    return math.prod(calls) ** (1.0 / len(calls))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("calls", "spread"))
    parser.add_argument("--particles", type=int, default=1024)
    parser.add_argument("--no-peers", action="store_true", help="do not compare diffusers and azula")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "solvers.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"particles": options.particles, "torch": torch.__version__}
    if options.only in (None, "calls"):
        found["calls"] = measure_calls(options.particles, not options.no_peers)
        print_calls(found["calls"])
    if options.only in (None, "spread"):
        found["spread"] = measure_spread(32 * options.particles)
        print("\nspread within modes relative to the exact one, and error of the modes' weights; 2-D, VP")
        for row in found["spread"]:
            spread = f"{row['spread']:.3f} +- {row['standard error']:.3f}"
            print(f"{row['solver']:40}{row['calls']:>6} calls{spread:>18}{row['weights off by']:>9.3f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
