"""Samplers by name: what the command line and the recipes offer."""

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
    """Reverse diffusion with one Langevin corrector a step, corrector first (Song et al. 2021, algorithms 2 and 3)."""
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
    """Annealed Langevin dynamics: `repeats` Langevin steps at each level of a ladder (NCSN, NCSNv2).

    On a ladder, at every level of it; else at `steps` geometric levels below that of the prior, down to the process's
    sampling limit.
    """
    stay = Repeat(Langevin(NoiseScaled(snr)), repeats)
    if isinstance(process, Tabulated) and steps is None:
        return Sampler(Chain((stay, Hold())), EveryLevel())
    return Sampler(Chain((Hold(), stay)), GeometricSigma(232 if steps is None else steps))


def consistent_annealing(process: Process, steps: int | None = None, boldness: float = 1.5) -> Sampler:
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021, algorithm 2), ending in the expected sample.

    On a ladder from each level of it to the next, in several steps where more are asked for than it has levels; else
    at `steps` levels of sigma / alpha, geometric. eta is `boldness` times the least that the grid admits, 1 at most:
    the published CIFAR-10 runs have 1.5 times the least of theirs.
    """
    grid: Grid = LogSNR(232 if steps is None else steps)
    if isinstance(process, Tabulated) and (steps is None or steps >= process.levels - 1 > 0):
        between = round((steps or 0) / max(1, process.levels - 1)) if process.between == "linear" else 1
        grid = EveryLevel(refine=max(1, between))
    times = grid.times(process)
    r = process.sigma(times) / process.alpha(times)
    r = r[r > 0.0]
    least = 1.0 - float((r[1:] / r[:-1]).min()) if len(r) > 1 else 1.0
    final = "expected" if isinstance(grid, EveryLevel) else "denoise"
    return Sampler(Consistent(min(boldness * least, 1.0)), grid, final=final)


def ode(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow by adaptive Dormand-Prince with tolerance 1e-5; it chooses its own steps."""
    if steps is not None:
        raise ValueError(
            "the ode sampler chooses its own steps; leave --steps out, or use flow-heun with a number of steps"
        )
    return Sampler(AdaptiveFlow(), Uniform(1))


def flow_euler(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow by Euler's method on a log-SNR grid."""
    return Sampler(FlowEuler(), LogSNR(200 if steps is None else steps))


def flow_heun(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow by Heun's method on a log-SNR grid."""
    return Sampler(FlowHeun(), LogSNR(100 if steps is None else steps))


def dpm(process: Process, steps: int | None = None) -> Sampler:
    """The probability flow by an exponential multistep method with corrector, in 30 steps unless told otherwise.

    Of order 4 from 20 steps on; below, where a polynomial through so many evaluations overshoots, of order 3. It needs
    the fewest calls of the deterministic samplers named here, on exact scores (benchmarks/solvers.py); some settings of
    `ExponentialMultistep` need fewer still at errors near 1e-2.
    """
    steps = 30 if steps is None else steps
    return Sampler(ExponentialMultistep(4 if steps >= 20 else 3, corrector=True, start="low"), _focused(process, steps))


def sde_dpm(process: Process, steps: int | None = None, strength: float = 0.5) -> Sampler:
    """The reverse SDE by SDE-DPM-Solver++(2M), at half the strength of its noise, in 30 steps unless told otherwise.

    strength=1 is the published method. It has the same marginals and needs twice the steps: measured within narrow
    modes (benchmarks/solvers.py), samples are as wide as they should be, to 3 percent, from 20 steps on at 0.5.
    """
    return Sampler(StochasticMultistep(2, strength=strength), _focused(process, 30 if steps is None else steps))


def ddim(process: Process, steps: int | None = None, eta: float = 0.0) -> Sampler:
    """DDIM, first order; deterministic unless eta > 0."""
    return Sampler(DDIM(eta), _focused(process, 100 if steps is None else steps))


def edm(process: Process, steps: int | None = None, churn: float = 0.0) -> Sampler:
    """EDM's sampler on its grid, two calls a step; `churn` is S_churn (Karras et al. 2022), 0 for the flow."""
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
"""Name -> function of (process, steps) that builds the sampler. A plugin adds one by `@NAMED.add(name)`."""


def named(name: str, process: Process, steps: int | None = None) -> Sampler:
    """The sampler of that name for a process.

    Raises:
        ValueError: No such name (near matches are shown), or a number of steps for a sampler that chooses its own.
    """
    if name not in NAMED:
        raise ValueError(f"there is no sampler {name!r}.{near(name, NAMED)}")
    return NAMED[name](process, steps)


def with_steps(sampler: Sampler, steps: int) -> Sampler:
    """The same sampler on a grid of that many steps.

    Raises:
        ValueError: The sampler's grid has no number of steps (a ladder's levels, an adaptive solver).
    """
    if not hasattr(sampler.grid, "steps") or isinstance(sampler.step, AdaptiveFlow):
        raise ValueError(
            f"{type(sampler.grid).__name__} with {type(sampler.step).__name__} has no number of steps to change; choose"
            f" a sampler by name, one of {', '.join(sorted(set(NAMED) - {'ode'}))}"
        )
    return replace(sampler, grid=replace(sampler.grid, steps=steps))  # type: ignore[type-var]


def _grid(process: Process, steps: int | None, default: int, clean: bool = True) -> Grid:
    """A ladder's own levels, `clean` for steps by the kernel, unless a number of steps is asked for."""
    if isinstance(process, Tabulated) and steps is None:
        return EveryLevel(clean)
    return Uniform(default if steps is None else steps)


def _focused(process: Process, steps: int) -> Grid:
    """Short steps where the noise is like the data; at the levels of a ladder, where its networks are trained."""
    return Focused(steps, on_levels=isinstance(process, Tabulated))
