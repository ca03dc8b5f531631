"""Predictors, correctors and both at equal numbers of network evaluations (Score-SDE, table 1), on the digits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scorefield.models.experiment import Averaging, Experiment
from scorefield.models.model import Model, load
from scorefield.nets.mlp import MLP
from scorefield.process import VE, VP, Process
from scorefield.process.grids import Uniform
from scorefield.recipes.small import digits_mlp
from scorefield.sampling import Ancestral, Chain, Hold, Langevin, NoiseScaled, ReverseDiffusion, Sampler, Step
from scorefield.score.parametrisation import KarrasForm, LogSigma
from scorefield.studies.papers.digits_setup import (
    SAMPLES,
    SOURCE,
    SPEC,
    DigitsEvaluator,
    IntervalRow,
    interval_figure,
)
from scorefield.studies.papers.entry import (
    SEEDS,
    STUDENT,
    BatchNoise,
    Claim,
    Drawing,
    Entry,
    Findings,
    Job,
    Table,
    mean_interval,
)
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
"""Signal-to-noise ratios of the corrector: the best of the paper's table 5, found there by FID on CIFAR-10."""
STEPS = 1000
"""Predictor steps of P1000; the other columns follow from it."""


def experiment(name: str, job: Job, seed: int) -> Experiment:
    """Return the experiment of a perceptron on the digits under VE or VP in continuous time."""
    recipe = digits_mlp()
    return replace(
        recipe,
        name=f"digits-{name.lower()}",
        data=SOURCE,
        spec=SPEC,
        process=PROCESSES[name],
        network=MLP(),
        form=KarrasForm(sigma_data=0.35),
        time_input=LogSigma(),
        averaging=Averaging((0.995,)),
        training=replace(recipe.training, steps=job.scaled(3000, 10), seed=seed, dequantise=True, validate_every=0),
    )


def samplers(process: str, steps: int) -> dict[tuple[str, str], Sampler]:
    """Return the samplers by (row, column) of the table.

    The number in a column's name counts network evaluations at `steps` = 1000, without the final denoising: P is the
    predictor alone, C the corrector alone, and PC both, with one corrector step before each predictor step.
    """
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
    """One cell of the table.

    Args:
        process: "VE" or "VP".
        row: Name of the predictor.
        column: Name of the column, for example "PC1000".
        distances: Squared energy distance of each training.
    """

    process: str
    row: str
    column: str
    distances: list[float]

    def interval(self) -> tuple[float, float]:
        """Return the mean distance and half of its 95 % interval over trainings."""
        return mean_interval(self.distances, STUDENT)


def table_1(job: Job) -> Findings:
    """Train under both processes with three seeds, sample by every sampler, and measure."""
    steps, count, evaluator = job.scaled(STEPS, 5), job.scaled(SAMPLES, 16), DigitsEvaluator()
    cells: dict[tuple[str, str, str], Cell] = {}
    for process in PROCESSES:
        for seed in range(job.seed, job.seed + SEEDS):
            job.observer.message(f"{process}, training {seed}")
            folder = job.folder / "runs" / f"{process.lower()}-{seed}"
            model = load(train(experiment(process, job, seed), folder, resume="auto", observer=job.observer))
            for (row, column), sampler in samplers(process, steps).items():
                cell = cells.setdefault((process, row, column), Cell(process, row, column, []))
                cell.distances.append(_distance(model, sampler, count, seed, evaluator))
    perfect = evaluator.training_digits(count, job.seed).distance
    return Findings(
        claims=tuple(_claims(cells)),
        tables=(
            Table(
                ("process", "predictor", "chain", "energy distance", "95 % +-"),
                tuple((c.process, c.row, c.column, *c.interval()) for c in cells.values()),
                f"Squared energy distance of {count} samples to 360 held-out digits, pixels in [0, 1]; means over"
                f" {SEEDS} trainings, intervals by Student's t. Training digits have {perfect:.4f}.",
            ),
        ),
        drawings=(
            Drawing(
                "table-1",
                "Squared energy distance to held-out digits",
                "Means over trainings with 95 % intervals. Smaller distances, further left, are better.",
                lambda theme: interval_figure(theme, _panels(list(cells.values())), (2.6, 2.9), beside=1.75),
            ),
        ),
        settings={
            "network": MLP(),
            "processes": PROCESSES,
            "steps of P1000": steps,
            "snr": SNR,
            "corrector": "e = 2 (alpha_t / alpha_s)^2 (snr sigma)^2, one step before the predictor's",
            "final step": "denoised",
            "training steps": job.scaled(3000, 10),
            "samples": count,
            "seed": job.seed,
        },
    )


def _distance(model: Model, sampler: Sampler, count: int, seed: int, evaluator: DigitsEvaluator) -> float:
    """Return the distance of a sampler's samples; all samplers have the same noise, so that differences are paired."""
    x = sampler.run(model.as_score(), SPEC.shape, indices=range(count), noise=BatchNoise(seed)).x
    return evaluator(x).distance


def _claims(cells: dict[tuple[str, str, str], Cell]) -> list[Claim]:
    """Return the claims; differences are paired by training and noise, and undecided where the interval holds zero."""
    claims = []
    for process in PROCESSES:

        def less(a: tuple[str, str], b: tuple[str, str], statement: str, process: str = process) -> Claim:
            """Return the claim that cell `a` has a smaller distance than cell `b`."""
            pairs = zip(cells[process, *a].distances, cells[process, *b].distances, strict=True)
            mean, half = mean_interval([x - y for x, y in pairs], STUDENT)
            held = None if math.isnan(mean) or abs(mean) <= half else mean < 0
            found = f"difference of squared energy distances {mean:.4f} +- {half:.4f}"
            return Claim(f"{process}: {statement}", found, held)

        reverse, flow = "reverse diffusion", "probability flow"
        claims += [
            less(
                (reverse, "P1000"),
                ("ancestral sampling", "P1000"),
                "reverse diffusion is better than ancestral sampling at 1000 steps",
            ),
            less(
                (reverse, "PC1000"),
                (reverse, "P2000"),
                "reverse diffusion with a corrector is better than reverse diffusion with twice the steps",
            ),
            less(
                (reverse, "P1000"),
                (flow, "P1000"),
                "without a corrector, reverse diffusion is better than the probability flow",
            ),
            less(
                (flow, "PC1000"),
                (flow, "P2000"),
                "the probability flow with a corrector is better than the flow with twice the steps",
            ),
            less(
                (reverse, "P2000"),
                ("corrector only", "C2000"),
                "reverse diffusion alone is better than the corrector alone",
            ),
        ]
    return claims


def _panels(cells: list[Cell]) -> dict[str, list[IntervalRow]]:
    """Return the rows of the figure by process."""
    return {
        process: [IntervalRow(f"{c.row}, {c.column}", *c.interval()) for c in cells if c.process == process]
        for process in PROCESSES
    }


ENTRIES = (
    Entry(
        name="score-sde-table-1",
        paper="Score-SDE",
        item="table 1",
        title="Predictors, correctors and both at equal numbers of network evaluations",
        shows="FID on CIFAR-10 of three predictors at 1000 and 2000 steps (P1000, P2000), of correctors alone (C2000)"
        " and of both (PC1000): under VE 4.79, 4.74, 20.43 and 3.60 with reverse diffusion; 15.41, 10.54 and 3.51 with"
        " the probability flow. The differences under VP are smaller. score-sde-table-1-cifar10 is the experiment at"
        " full size.",
        minutes=32.0,
        memory=0.8,
        run=table_1,
    ),
)
