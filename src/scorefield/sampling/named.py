"""Samplers by name, as `--sampler NAME` on the command line and `model.sample(n, sampler=NAME)` take them.

Every builder takes the process of the score and a number of steps, where None is the sampler's default: every level of
a ladder for the samplers that step from level to level, else the number in the builder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scorefield._codec import near
from scorefield._plugins import Table
from scorefield.process.grids import EveryLevel, Focused, GeometricSigma, Grid, LogSNR, PowerSigma, Uniform
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.sampling.adaptive import AdaptiveFlow
from scorefield.sampling.consistent import Consistent
from scorefield.sampling.exponential import ExponentialMultistep
from scorefield.sampling.langevin import Langevin, NoiseScaled
from scorefield.sampling.predictors import Ancestral, EulerMaruyama, FlowEuler, FlowHeun, ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Hold, Repeat
from scorefield.sampling.stochastic import DDIM, KarrasHeun, StochasticMultistep


def predictor_corrector(process: Process, steps: int | None = None, snr: float = 0.16) -> Sampler:
    """Reverse diffusion with one Langevin step before each predictor step (Song et al. 2021, algorithms 2 and 3)."""
    return Sampler(Chain((Langevin(NoiseScaled(snr)), ReverseDiffusion())), _grid(process, steps, 1000))


def euler_maruyama(process: Process, steps: int | None = None) -> Sampler:
    """Euler-Maruyama on the reverse SDE, the published choice for continuous VP and sub-VP models."""
    return Sampler(EulerMaruyama(), _grid(process, steps, 1000, clean=False))


def reverse_diffusion(process: Process, steps: int | None = None) -> Sampler:
    """Reverse diffusion without a corrector."""
    return Sampler(ReverseDiffusion(), _grid(process, steps, 1000))


def ancestral(process: Process, steps: int | None = None) -> Sampler:
    """Ancestral sampling, the published choice for discrete VP models."""
    return Sampler(Ancestral(), _grid(process, steps, 1000))


def annealed_langevin(process: Process, steps: int | None = None, repeats: int = 5, snr: float = 0.16) -> Sampler:
    """Annealed Langevin dynamics (NCSN, NCSNv2): `repeats` Langevin steps at each noise level.

    The levels are those of the ladder; for a continuous process, or if `steps` is given, they are `steps` levels in
    geometric sequence below that of the prior, down to the process's sampling limit.
    """
    corrector = Repeat(Langevin(NoiseScaled(snr)), repeats)
    if isinstance(process, Tabulated) and steps is None:
        return Sampler(Chain((corrector, Hold())), EveryLevel())
    return Sampler(Chain((Hold(), corrector)), GeometricSigma(232 if steps is None else steps))


def consistent_annealing(process: Process, steps: int | None = None, eta_factor: float = 1.5) -> Sampler:
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021, algorithm 2), ending in the expected sample.

    On a ladder the steps go from each level to the next, with several steps in between where `steps` exceeds the number
    of levels. For a continuous process they visit `steps` levels of sigma / alpha in geometric sequence. eta is
    `eta_factor` times the smallest value that the grid admits, and at most 1; the published CIFAR-10 runs use 1.5 times
    the smallest.
    """
    grid: Grid = LogSNR(232 if steps is None else steps)
    if isinstance(process, Tabulated) and (steps is None or steps >= process.levels - 1 > 0):
        between = round((steps or 0) / max(1, process.levels - 1)) if process.between == "linear" else 1
        grid = EveryLevel(refine=max(1, between))
    times = grid.times(process)
    r = process.sigma(times) / process.alpha(times)
    r = r[r > 0.0]
    smallest = 1.0 - float((r[1:] / r[:-1]).min()) if len(r) > 1 else 1.0
    final = "expected" if isinstance(grid, EveryLevel) else "denoise"
    return Sampler(Consistent(min(eta_factor * smallest, 1.0)), grid, final=final)


def ode(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow, solved by adaptive Dormand-Prince with tolerance 1e-5.

    Raises:
        ValueError: A number of steps was given; the solver chooses its own.
    """
    if steps is not None:
        raise ValueError(
            f"--steps {steps} has no effect on the ode sampler, which chooses its own steps; leave --steps out, or use"
            " flow-heun, which takes a number of steps"
        )
    return Sampler(AdaptiveFlow(), Uniform(1))


def flow_euler(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow by Euler's method on a grid uniform in log-SNR."""
    return Sampler(FlowEuler(), LogSNR(200 if steps is None else steps))


def flow_heun(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow by Heun's method on a grid uniform in log-SNR."""
    return Sampler(FlowHeun(), LogSNR(100 if steps is None else steps))


def dpm(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow by an exponential multistep method with corrector; 30 steps by default.

    The method has order 4 for 20 steps or more, and order 3 below, where a polynomial through four evaluations
    overshoots. On exact scores it needs the fewest network evaluations of the deterministic samplers listed here
    (benchmarks/solvers.py); some settings of `ExponentialMultistep` need fewer still at errors near 1e-2.
    """
    steps = 30 if steps is None else steps
    return Sampler(ExponentialMultistep(4 if steps >= 20 else 3, corrector=True, start="low"), _focused(process, steps))


def sde_dpm(process: Process, steps: int | None = None, strength: float = 0.5) -> Sampler:
    """The reverse SDE by SDE-DPM-Solver++(2M) with half the noise strength; 30 steps by default.

    strength=1 is the published method. It has the same marginals and needs twice as many steps: measured in narrow
    modes (benchmarks/solvers.py), the width of the samples is right to 3 percent from 20 steps on at strength 0.5.
    """
    return Sampler(StochasticMultistep(2, strength=strength), _focused(process, 30 if steps is None else steps))


def ddim(process: Process, steps: int | None = None, eta: float = 0.0) -> Sampler:
    """DDIM of first order, deterministic for eta = 0; 100 steps by default."""
    return Sampler(DDIM(eta), _focused(process, 100 if steps is None else steps))


def edm(process: Process, steps: int | None = None, churn: float = 0.0) -> Sampler:
    """EDM's sampler on its grid with two evaluations per step; 18 steps by default.

    `churn` is S_churn of Karras et al. (2022); 0 follows the probability flow without added noise.
    """
    steps = 18 if steps is None else steps
    grid = _focused(process, steps) if isinstance(process, Tabulated) else PowerSigma(steps)
    return Sampler(KarrasHeun(min(churn / steps, 2.0**0.5 - 1.0)), grid)


NAMED: Table[Callable[..., Sampler]] = Table(
    "sampler",
    {
        "pc": predictor_corrector,
        "em": euler_maruyama,
        "reverse-diffusion": reverse_diffusion,
        "ancestral": ancestral,
        "ald": annealed_langevin,
        "cas": consistent_annealing,
        "ode": ode,
        "flow-euler": flow_euler,
        "flow-heun": flow_heun,
        "dpm": dpm,
        "sde-dpm": sde_dpm,
        "ddim": ddim,
        "edm": edm,
    },
)
"""Name -> function of (process, steps) that builds the sampler. A plugin adds one with `@NAMED.add(name)`."""


def named(name: str, process: Process, steps: int | None = None) -> Sampler:
    """Build the sampler of that name for a process.

    Args:
        name: A key of `NAMED`.
        process: The process of the score.
        steps: Number of steps; None for the sampler's default.

    Raises:
        ValueError: There is no sampler of that name (the message shows similar names), or `steps` was given for a
            sampler that chooses its own steps.
    """
    if name not in NAMED:
        raise ValueError(f"there is no sampler {name!r}.{near(name, NAMED)}")
    return NAMED[name](process, steps)


def with_steps(sampler: Sampler, steps: int) -> Sampler:
    """The same sampler on a grid of the given number of steps.

    Raises:
        ValueError: The sampler has no number of steps, because its grid is the levels of a ladder or its solver is
            adaptive.
    """
    if not hasattr(sampler.grid, "steps") or isinstance(sampler.step, AdaptiveFlow):
        raise ValueError(
            f"--steps {steps} cannot be applied: {type(sampler.grid).__name__} with {type(sampler.step).__name__} has"
            " no number of steps to change. Choose a sampler that has one with --sampler, one of"
            f" {', '.join(sorted(set(NAMED) - {'ode'}))}"
        )
    return replace(sampler, grid=replace(sampler.grid, steps=steps))  # type: ignore[type-var]


def _grid(process: Process, steps: int | None, default: int, clean: bool = True) -> Grid:
    """The levels of a ladder unless a number of steps is given, else a uniform grid.

    `clean` grids end below level 0 of the ladder, where there is no noise; steps that use the transition kernel can go
    there, and steps that use drift and diffusion cannot.
    """
    if isinstance(process, Tabulated) and steps is None:
        return EveryLevel(clean)
    return Uniform(default if steps is None else steps)


def _focused(process: Process, steps: int) -> Grid:
    """A grid with short steps where noise and data have similar scales, at levels of the ladder where there is one."""
    return Focused(steps, on_levels=isinstance(process, Tabulated))
