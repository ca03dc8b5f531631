"""Noise carried by a sampling chain against the noise that its ladder prescribes (ACSM, figure 1).

The data are a point at the origin, so that the exact score at noise level sigma is -x / sigma^2 and the standard
deviation v of the state x follows a recursion in closed form. Where v is above sigma, the score at level sigma is
evaluated at inputs with more noise than those a network would be trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import GeometricSigmas, Tabulated
from scorefield.process.grids import EveryLevel
from scorefield.sampling import Chain, Consistent, Hold, LadderScaled, Langevin, Repeat, Sampler
from scorefield.sampling.sampler import Progress
from scorefield.score.oracles import Points
from scorefield.studies.papers.entry import NORMAL, BatchNoise, Claim, Drawing, Entry, Findings, Job, Table

LADDER = GeometricSigmas(0.01, 50.0, 232)
LANGEVIN = 0.02
"""eta = step size over sigma^2 of annealed Langevin dynamics."""
CONSISTENT = 0.2
"""eta of consistent annealing."""
REFINE = 100
"""Steps from one level of the ladder to the next in consistent annealing: 23,101 levels in all."""
DIMENSIONS = 20_000
"""Dimension of the state; its deviation is measured over all coordinates."""


@dataclass(frozen=True)
class Trace:
    """The noise along a chain.

    Args:
        name: Name of the chain.
        sigmas: Prescribed noise level after each step.
        stds: Root mean square of the state over all dimensions after each step.
        exact: Standard deviation after each step by the recursion in closed form.
    """

    name: str
    sigmas: list[float]
    stds: list[float]
    exact: list[float]

    @property
    def final_ratio(self) -> float:
        """Measured over prescribed noise at the end of the chain."""
        return self.stds[-1] / self.sigmas[-1]


def follow(name: str, sampler: Sampler, recursion: list[float], dimensions: int, seed: int) -> Trace:
    """Run a chain from N(0, sigma_max^2 I) with the score of a point at the origin and record its noise."""
    process = Tabulated(LADDER)
    sigmas: list[float] = []
    stds: list[float] = []

    def record(event: Progress) -> None:
        sigmas.append(float(process.sigma(torch.tensor([event.t], dtype=torch.float64))))
        stds.append(float(event.x.double().square().mean().sqrt()))

    point = Points(process, torch.zeros(1, dimensions, dtype=torch.float64))
    sampler.run(point, (dimensions,), indices=[0], noise=BatchNoise(seed), callbacks=[record])
    return Trace(name, sigmas, stds, recursion)


def langevin(repeats: int, dimensions: int, seed: int) -> Trace:
    """Run annealed Langevin dynamics: v^2 <- (1 - eta)^2 v^2 + 2 eta sigma_i^2, `repeats` times per level."""
    step = Langevin(LadderScaled(LANGEVIN * LADDER.sigma_min**2, LADDER.sigma_min))
    # Hold changes the level without changing x, so that the state recorded after step i is the end of level i. The
    # recorded time is that of the next level; hence the levels below come from the ladder and not from the trace.
    sampler = Sampler(Chain((Repeat(step, repeats), Hold())), EveryLevel(), final="none")
    levels = LADDER.table()[1].flip(0).tolist()
    v, exact = levels[0], []
    for sigma in levels:
        for _ in range(repeats):
            v = math.sqrt((1 - LANGEVIN) ** 2 * v * v + 2 * LANGEVIN * sigma * sigma)
        exact.append(v)
    trace = follow(f"annealed Langevin, {repeats} a level", sampler, exact, dimensions, seed)
    return Trace(trace.name, levels, trace.stds, exact)


def consistent(dimensions: int, seed: int) -> Trace:
    """Run consistent annealing: v^2 <- (1 - eta)^2 v^2 + sigma_s^2 - (1 - eta)^2 sigma_t^2, which keeps v = sigma."""
    grid = EveryLevel(clean=False, refine=REFINE)
    process = Tabulated(LADDER)
    sigmas = process.sigma(grid.times(process)).tolist()
    v, exact = sigmas[0], []
    for sigma_t, sigma_s in zip(sigmas[:-1], sigmas[1:], strict=True):
        v = math.sqrt((1 - CONSISTENT) ** 2 * (v * v - sigma_t * sigma_t) + sigma_s * sigma_s)
        exact.append(v)
    return follow("consistent annealing", Sampler(Consistent(CONSISTENT), grid, final="none"), exact, dimensions, seed)


def figure_1(job: Job) -> Findings:
    """Run annealed Langevin dynamics with 1 to 100 steps per level, and consistent annealing."""
    dimensions = job.scaled(DIMENSIONS, 500)
    traces = []
    for repeats in (1, 2, 5, 20, 100):
        job.observer.message(f"annealed Langevin dynamics, {repeats} steps a level")
        traces.append(langevin(repeats, dimensions, job.seed))
    job.observer.message("consistent annealing")
    annealed = consistent(dimensions, job.seed)
    half = NORMAL / math.sqrt(2 * dimensions)  # relative error of a standard deviation of that many normal numbers
    deviation = max(abs(v / s - 1) for v, s in zip(annealed.stds, annealed.sigmas, strict=True))
    exact = max(abs(v / s - 1) for v, s in zip(annealed.exact, annealed.sigmas, strict=True))
    every = (*traces, annealed)
    rows = [(t.name, len(t.stds), t.final_ratio, t.exact[-1] / t.sigmas[-1], half * t.final_ratio) for t in every]
    return Findings(
        claims=(
            Claim(
                "The noise of annealed Langevin dynamics stays above its ladder unless each level has many steps",
                "noise at the end over the prescribed noise: "
                + ", ".join(f"{t.final_ratio:.3g} ({t.name.split(', ')[1]})" for t in traces),
                traces[0].final_ratio > 2 and traces[0].final_ratio > traces[2].final_ratio > traces[4].final_ratio,
            ),
            Claim(
                "The noise of consistent annealing follows its ladder",
                f"largest relative deviation over all levels {deviation:.2g}, measured over {dimensions} dimensions,"
                f" and {exact:.1g} by the recursion",
                deviation < 6 * half / NORMAL and exact < 1e-9,
            ),
        ),
        tables=(
            Table(
                ("chain", "levels", "noise at the end / prescribed", "recursion", "95 % +-"),
                tuple(rows),
                "Root mean square of the state over its dimensions at the end of the chain, relative to the smallest"
                " level. Recursion: the same ratio in closed form for data of one point.",
            ),
        ),
        drawings=(
            Drawing(
                "figure-1",
                "Noise of the state against the prescribed noise",
                "The dotted line is the ladder. Chains above it carry more noise than their level prescribes.",
                lambda theme: _lines(theme, every),
            ),
        ),
        settings={
            "ladder": LADDER,
            "Langevin": f"x + e score + sqrt(2 e) z, e = {LANGEVIN} sigma^2",
            "consistent annealing": f"eta = {CONSISTENT}, {REFINE} steps between levels",
            "dimensions": dimensions,
            "seed": job.seed,
        },
    )


def _lines(theme: Theme, traces: Sequence[Trace]) -> Figure:
    """Draw measured against prescribed noise for every chain, with the ladder as a dotted line."""
    figure, (ax,) = grid_of_axes(theme, 1, 1, (5.4, 3.2), below=0.5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ends = [LADDER.sigma_min, LADDER.sigma_max]
    styles = ["-", "--", "-.", (0, (1, 1)), (0, (4, 1)), "-"]
    for k, trace in enumerate(traces):
        thin = max(1, len(trace.sigmas) // 300)
        colour = theme.series[1] if k == len(traces) - 1 else theme.series[0]
        ax.plot(trace.sigmas[::thin], trace.stds[::thin], color=colour, linestyle=styles[k], lw=1.2, label=trace.name)
    ax.plot(ends, ends, color=theme.ink, linestyle=":", linewidth=1.6, label="prescribed")
    ax.invert_xaxis()
    ax.set_xlabel("prescribed noise, from the first level to the last", labelpad=2)
    ax.legend(fontsize=7.5, frameon=False, labelcolor=theme.ink)
    return figure


ENTRIES = (
    Entry(
        name="acsm-figure-1",
        paper="ACSM",
        item="figure 1",
        title="Noise carried by annealed Langevin dynamics and by consistent annealing",
        shows="With an exact score, the standard deviation of annealed Langevin dynamics lags behind its ladder, the"
        " more so the fewer steps each level has; that of consistent annealing follows the ladder exactly.",
        minutes=5.0,
        memory=0.6,
        run=figure_1,
    ),
)
