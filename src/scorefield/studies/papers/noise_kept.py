"""The noise that a chain has at each level against the noise that its ladder prescribes, on data that are one point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import GeometricSigmas, Tabulated
from scorefield.process.grids import EveryLevel
from scorefield.sampling import Chain, Consistent, Hold, LadderScaled, Langevin, Repeat, Sampler
from scorefield.sampling.sampler import Progress
from scorefield.score.oracles import Points
from scorefield.studies.papers.entry import Claim, Crowd, Drawing, Entry, Findings, Job, Table

LADDER = GeometricSigmas(0.01, 50.0, 232)
LANGEVIN = 0.02
"""Step size over sigma^2 of annealed Langevin dynamics."""
CONSISTENT = 0.2
REFINE = 100
"""Steps from one level of the ladder to the next in consistent annealing: 23,101 levels in all."""
DIMENSIONS = 20_000


@dataclass(frozen=True)
class Trace:
    """The noise along a chain.

    Args:
        name: Of the chain.
        sigmas: Prescribed noise after each step.
        stds: Measured over all dimensions.
        exact: Of the recursion in closed form.
    """

    name: str
    sigmas: list[float]
    stds: list[float]
    exact: list[float]

    @property
    def last(self) -> float:
        """Measured over prescribed noise at the end of the chain."""
        return self.stds[-1] / self.sigmas[-1]


def run(name: str, sampler: Sampler, recursion: list[float], dimensions: int, seed: int) -> Trace:
    """Follow a chain from N(0, sigma_max^2) on the score of a point at the origin."""
    process = Tabulated(LADDER)
    sigmas: list[float] = []
    stds: list[float] = []

    def record(event: Progress) -> None:
        sigmas.append(float(process.sigma(torch.tensor([event.t], dtype=torch.float64))))
        stds.append(float(event.x.double().square().mean().sqrt()))

    point = Points(process, torch.zeros(1, dimensions, dtype=torch.float64))
    sampler.run(point, (dimensions,), indices=[0], noise=Crowd(seed), callbacks=[record])
    return Trace(name, sigmas, stds, recursion)


def langevin(repeats: int, dimensions: int, seed: int) -> Trace:
    """Annealed Langevin dynamics: v^2 <- (1 - eta)^2 v^2 + 2 eta sigma_i^2, `repeats` times a level."""
    step = Langevin(LadderScaled(LANGEVIN * LADDER.sigma_min**2, LADDER.sigma_min))
    # Hold moves to the next level: what is seen after step i is the state that level i was left with.
    sampler = Sampler(Chain((Repeat(step, repeats), Hold())), EveryLevel(), final="none")
    levels = LADDER.table()[1].flip(0).tolist()
    v, exact = levels[0], []
    for sigma in levels:
        for _ in range(repeats):
            v = math.sqrt((1 - LANGEVIN) ** 2 * v * v + 2 * LANGEVIN * sigma * sigma)
        exact.append(v)
    trace = run(f"annealed Langevin, {repeats} a level", sampler, exact, dimensions, seed)
    return Trace(trace.name, levels, trace.stds, exact)


def consistent(dimensions: int, seed: int) -> Trace:
    """Consistent annealing: v^2 <- (1 - eta)^2 v^2 + sigma_s^2 - (1 - eta)^2 sigma_t^2, which keeps v = sigma."""
    grid = EveryLevel(clean=False, refine=REFINE)
    process = Tabulated(LADDER)
    sigmas = process.sigma(grid.times(process)).tolist()
    v, exact = sigmas[0], []
    for sigma_t, sigma_s in zip(sigmas[:-1], sigmas[1:], strict=True):
        v = math.sqrt((1 - CONSISTENT) ** 2 * (v * v - sigma_t * sigma_t) + sigma_s * sigma_s)
        exact.append(v)
    return run("consistent annealing", Sampler(Consistent(CONSISTENT), grid, final="none"), exact, dimensions, seed)


def figure_1(job: Job) -> Findings:
    """Five numbers of Langevin steps a level, and consistent annealing."""
    dimensions = job.scaled(DIMENSIONS, 500)
    traces = []
    for repeats in (1, 2, 5, 20, 100):
        job.observer.message(f"annealed Langevin dynamics, {repeats} steps a level")
        traces.append(langevin(repeats, dimensions, job.seed))
    job.observer.message("consistent annealing")
    kept = consistent(dimensions, job.seed)
    half = 1.959964 / math.sqrt(2 * dimensions)  # relative, of a standard deviation of so many normal numbers
    farthest = max(abs(v / s - 1) for v, s in zip(kept.stds, kept.sigmas, strict=True))
    exact = max(abs(v / s - 1) for v, s in zip(kept.exact, kept.sigmas, strict=True))
    rows = [(t.name, len(t.stds), t.last, t.exact[-1] / t.sigmas[-1], half * t.last) for t in (*traces, kept)]
    return Findings(
        claims=(
            Claim(
                "Annealed Langevin dynamics does not keep to the noise of its ladder, unless the steps are many",
                "noise at the end over the prescribed: "
                + ", ".join(f"{t.last:.3g} ({t.name.split(', ')[1]})" for t in traces),
                traces[0].last > 2 and traces[0].last > traces[2].last > traces[4].last,
            ),
            Claim(
                "Consistent annealing keeps to it",
                f"farthest from it by {farthest:.2g} over all levels, measured over {dimensions} dimensions; the"
                f" recursion by {exact:.1g}",
                farthest < 6 * half / 1.959964 and exact < 1e-9,
            ),
        ),
        tables=(
            Table(
                ("chain", "levels", "noise at the end / prescribed", "recursion", "95 % +-"),
                tuple(rows),
                "Root mean square over dimensions; the recursion is the closed form for a point.",
            ),
        ),
        drawings=(
            Drawing(
                "figure-1",
                "Noise of the state against the prescribed noise",
                "The dotted line is the ladder. Chains above it carry more noise than their level prescribes.",
                lambda theme: _lines(theme, [*traces, kept]),
            ),
        ),
        settings={
            "ladder": LADDER,
            "Langevin": f"x + e score + sqrt(2 e) z, e = {LANGEVIN} sigma^2",
            "consistent": f"eta = {CONSISTENT}, {REFINE} steps between levels",
            "dimensions": dimensions,
            "seed": job.seed,
        },
    )


def _lines(theme: Theme, traces: list[Trace]) -> Figure:
    """Measured against prescribed noise, the ladder dotted."""
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
        title="The noise that annealed Langevin dynamics and consistent annealing keep",
        shows="With an ideal score, the deviation of annealed Langevin dynamics lags behind its ladder, the more so the"
        " fewer steps a level has; consistent annealing follows it exactly.",
        minutes=5.0,
        memory=0.6,
        run=figure_1,
    ),
)
