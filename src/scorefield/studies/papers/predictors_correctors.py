"""Predictors, correctors and both, at equal numbers of calls (Score-SDE, table 1), with perceptrons on the digits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from scorefield.models.experiment import Averaging, Experiment
from scorefield.models.model import Model, load
from scorefield.nets.mlp import MLP
from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import VE, VP, Process
from scorefield.process.grids import Uniform
from scorefield.recipes.small import digits_mlp
from scorefield.sampling import Ancestral, Chain, Hold, Langevin, NoiseScaled, ReverseDiffusion, Sampler, Step
from scorefield.score.parametrisation import KarrasForm, LogSigma
from scorefield.studies.papers.entry import Claim, Crowd, Drawing, Entry, Findings, Job, Table, mean_interval
from scorefield.studies.papers.on_digits import SAMPLES, SEEDS, SOURCE, SPEC, STUDENT, Judge
from scorefield.training.trainer import train

PREDICTORS: dict[str, Step] = {
    "ancestral sampling": Ancestral(),
    "reverse diffusion": ReverseDiffusion(),
    "probability flow": ReverseDiffusion(flow=True),
}
PROCESSES: dict[str, Process] = {"VE": VE(0.01, 5.5), "VP": VP()}
SNR = {
    "VE": {"ancestral sampling": 0.17, "reverse diffusion": 0.16, "probability flow": 0.17, "corrector only": 0.22},
    "VP": {"ancestral sampling": 0.01, "reverse diffusion": 0.01, "probability flow": 0.04, "corrector only": 0.27},
}
"""The best of the paper's table 5, found there by FID on CIFAR-10."""
STEPS = 1000


def experiment(name: str, job: Job, seed: int) -> Experiment:
    """A perceptron on the digits under VE or VP, in continuous time."""
    made = digits_mlp()
    return replace(
        made,
        name=f"digits-{name.lower()}",
        data=SOURCE,
        spec=SPEC,
        process=PROCESSES[name],
        network=MLP(),
        form=KarrasForm(sigma_data=0.35),
        time_input=LogSigma(),
        averaging=Averaging((0.995,)),
        training=replace(made.training, steps=job.scaled(3000, 10), seed=seed, dequantise=True, validate_every=0),
    )


def samplers(process: str, steps: int) -> dict[tuple[str, str], Sampler]:
    """(row, column) of the table -> sampler; the numbers in the columns' names are calls but for the last denoising."""
    found = {}
    for row, predictor in PREDICTORS.items():
        corrected = Chain((Langevin(NoiseScaled(SNR[process][row])), predictor))
        found[row, "P1000"] = Sampler(predictor, Uniform(steps))
        found[row, "P2000"] = Sampler(predictor, Uniform(2 * steps))
        found[row, "PC1000"] = Sampler(corrected, Uniform(steps))
    only = Chain((Langevin(NoiseScaled(SNR[process]["corrector only"])), Hold()))
    found["corrector only", "C2000"] = Sampler(only, Uniform(2 * steps))
    return found


@dataclass(frozen=True)
class Cell:
    """One entry of the table: energy distances of the trainings."""

    process: str
    row: str
    column: str
    distances: list[float]

    def interval(self) -> tuple[float, float]:
        """Mean, and half of its 95 % interval over trainings."""
        return mean_interval(self.distances, STUDENT)


def table_1(job: Job) -> Findings:
    """Train under both processes with three seeds, sample every way, and measure."""
    steps, count, judge = job.scaled(STEPS, 5), job.scaled(SAMPLES, 16), Judge()
    cells: dict[tuple[str, str, str], Cell] = {}
    for process in PROCESSES:
        for seed in range(job.seed, job.seed + SEEDS):
            job.observer.message(f"{process}, training {seed}")
            folder = job.folder / "runs" / f"{process.lower()}-{seed}"
            model = load(train(experiment(process, job, seed), folder, resume="auto", observer=job.observer))
            for (row, column), sampler in samplers(process, steps).items():
                cell = cells.setdefault((process, row, column), Cell(process, row, column, []))
                cell.distances.append(_distance(model, sampler, count, seed, judge))
    perfect = judge.real(count, job.seed).distance
    return Findings(
        claims=tuple(_claims(cells)),
        tables=(
            Table(
                ("process", "predictor", "chain", "energy distance", "95 % +-"),
                tuple((c.process, c.row, c.column, *c.interval()) for c in cells.values()),
                f"Squared energy distance of {count} samples to 360 held-out digits, pixels in [0, 1]; means over"
                f" {SEEDS} trainings, intervals by Student's law. Training digits have {perfect:.4f}.",
            ),
        ),
        drawings=(
            Drawing(
                "table-1",
                "Energy distance to held-out digits",
                "Means over trainings with 95 % intervals. Further left is nearer to the data.",
                lambda theme: _bars(theme, list(cells.values())),
            ),
        ),
        settings={
            "network": MLP(),
            "processes": PROCESSES,
            "steps of P1000": steps,
            "snr": SNR,
            "corrector": "e = 2 (alpha_t / alpha_s)^2 (snr sigma)^2, one step before the predictor's",
            "end": "denoised",
            "training steps": job.scaled(3000, 10),
            "samples": count,
            "seed": job.seed,
        },
    )


def _distance(model: Model, sampler: Sampler, count: int, seed: int, judge: Judge) -> float:
    """Every way of sampling has the same noise, so that differences are of the way alone."""
    x = sampler.run(model.as_score(), SPEC.shape, indices=range(count), noise=Crowd(seed)).x
    return judge(x).distance


def _claims(cells: dict[tuple[str, str, str], Cell]) -> list[Claim]:
    """Differences are paired by training and noise; those that hold zero in their interval decide nothing."""
    claims = []
    for process in PROCESSES:

        def less(a: tuple[str, str], b: tuple[str, str], words: str, process: str = process) -> Claim:
            pairs = zip(cells[process, *a].distances, cells[process, *b].distances, strict=True)
            mean, half = mean_interval([x - y for x, y in pairs], STUDENT)
            held = None if math.isnan(mean) or abs(mean) <= half else mean < 0
            return Claim(f"{process}: {words}", f"difference of energy distances {mean:.4f} +- {half:.4f}", held)

        reverse, flow = "reverse diffusion", "probability flow"
        claims += [
            less(
                (reverse, "P1000"),
                ("ancestral sampling", "P1000"),
                "reverse diffusion is better than ancestral sampling at 1000 steps",
            ),
            less((reverse, "PC1000"), (reverse, "P2000"), "a corrector is worth more than twice as many steps"),
            less((reverse, "P1000"), (flow, "P1000"), "the flow without a corrector is worse than reverse diffusion"),
            less((flow, "PC1000"), (flow, "P2000"), "with a corrector the flow gains more than by twice the steps"),
            less((reverse, "P2000"), ("corrector only", "C2000"), "a corrector alone is the worst"),
        ]
    return claims


def _bars(theme: Theme, cells: list[Cell]) -> Figure:
    """A line for each cell, a panel for each process."""
    figure, axes = grid_of_axes(theme, 1, len(PROCESSES), (2.6, 2.9), beside=1.75, above=0.3, below=0.5)
    for ax, process in zip(axes, PROCESSES, strict=True):
        mine = [c for c in cells if c.process == process]
        for k, cell in enumerate(mine):
            mean, half = cell.interval()
            ax.errorbar(mean, -k, xerr=half, fmt="o", markersize=4, color=theme.series[0], elinewidth=1)
        ax.set_yticks([-k for k in range(len(mine))], [f"{c.row}, {c.column}" for c in mine])
        ax.set_title(process, fontsize=9, color=theme.ink)
        ax.locator_params(axis="x", nbins=4)
        ax.set_xlabel("squared energy distance", labelpad=2)
    return figure


ENTRIES = (
    Entry(
        name="score-sde-table-1",
        paper="Score-SDE",
        item="table 1",
        title="Predictors, correctors and both at equal calls",
        shows="FID on CIFAR-10 of three predictors at 1000 and 2000 steps (P1000, P2000), of correctors alone (C2000)"
        " and of both (PC1000): under VE 4.79, 4.74, 20.43 and 3.60 with reverse diffusion; 15.41, 10.54 and 3.51 with"
        " the probability flow. VP differs less. score-sde-table-1-cifar10 is the same at full size.",
        minutes=32.0,
        memory=0.8,
        run=table_1,
    ),
)
