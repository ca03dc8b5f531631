"""Annealed Langevin dynamics by level and by setting: intermediate samples, and the choice of T and epsilon.

NCSN's figure 4 shows samples at the end of every level. NCSNv2's Technique 4 chooses the step e = eta sigma^2 for a
given number T of steps per level, so that the variance ratio s_T^2 / sigma^2 at a level's end is nearest to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from scorefield.metrics.energy_distance import energy_distance
from scorefield.models.model import Model, load
from scorefield.plot.pictures import Theme, grid_of_axes, image_grid
from scorefield.process.levels import langevin_variance_ratio
from scorefield.recipes.ladders import annealed_langevin
from scorefield.sampling.sampler import Progress
from scorefield.studies.papers.digits_setup import SAMPLES, SPEC, DigitsEvaluator, experiment, noise_levels, settings
from scorefield.studies.papers.entry import BatchNoise, Claim, Drawing, Entry, Findings, Job, Table
from scorefield.training.trainer import train

SIGMA_MIN = 0.01
REPEATS = (1, 5, 20, 100)
ETAS = (0.02, 0.1, 0.2, 0.5, 1.0, 1.5)
DIVERGED = 10.0
"""Squared energy distance from which samples count as diverged and are not drawn; that of uniform noise is 1.9."""


def trained(job: Job) -> Model:
    """Train a perceptron with NCSN's ladder and loss on the digits, or load it from the job's folder."""
    process = noise_levels()
    run = experiment("joint", process, job, job.seed)
    job.observer.message(f"training, {run.training.steps} steps")
    return load(train(run, job.folder / "runs" / f"joint-{job.seed}", resume="auto", observer=job.observer))


# ------------------------------------------------------------------------------------------------ by level


def figure_4(job: Job) -> Findings:
    """Collect the samples at the end of every level and measure their distance to the data."""
    model, evaluator, count = trained(job), DigitsEvaluator(), job.scaled(SAMPLES, 16)
    intermediate: list[Tensor] = []
    sampler = annealed_langevin(SIGMA_MIN, 0.2 * SIGMA_MIN**2, job.scaled(100, 1), final="none")

    def keep(event: Progress) -> None:
        intermediate.append(event.x)

    sampler.run(model.as_score(), SPEC.shape, indices=range(count), noise=BatchNoise(job.seed), callbacks=[keep])
    sigmas = model.process.sigma(sampler.times(model.process)[:-1]).tolist()
    distances = [evaluator(x).distance for x in intermediate]
    rows = tuple((k + 1, sigma, d) for k, (sigma, d) in enumerate(zip(sigmas, distances, strict=True)))
    best = min(rows, key=lambda row: row[2])
    strip = torch.stack([SPEC.to_data(x[:8]) for x in intermediate], dim=1).flatten(0, 1)
    return Findings(
        claims=(
            Claim(
                "Samples go from noise to data as the noise level falls",
                f"the squared energy distance to held-out digits is {distances[0]:.3f} after the first level and"
                f" {distances[-1]:.3f} after the last; its smallest value, {best[2]:.3f}, is reached at"
                f" sigma = {best[1]:.2g}; that of training digits is"
                f" {evaluator.training_digits(count, job.seed).distance:.4f}",
                distances[-1] < 0.1 * distances[0],
            ),
        ),
        tables=(
            Table(
                ("level", "sigma", "energy distance"),
                rows,
                f"Squared energy distance of {count} samples at the end of each level to held-out digits, pixels in"
                " [0, 1].",
            ),
        ),
        drawings=(
            Drawing(
                "figure-4",
                "Samples at the end of each level",
                "Each row is one sample, from the first level to the last. Black to white is 0 to 16; values are"
                " clipped in the figure only.",
                lambda theme: image_grid(strip, SPEC, len(intermediate), tile=40),
            ),
        ),
        settings=settings(job),
    )


# ------------------------------------------------------------------------------------------------ T and epsilon


@dataclass(frozen=True)
class Setting:
    """One setting of annealed Langevin dynamics and the quality of its samples.

    Args:
        repeats: T, steps per level.
        eta: Step size over sigma^2.
        ratio: Variance ratio s_T^2 / sigma^2 of Technique 4.
        distance: Squared energy distance to held-out digits; infinite where fewer than three samples are finite.
        error: Standard error of the distance.
    """

    repeats: int
    eta: float
    ratio: float
    distance: float
    error: float


def sensitivity(job: Job) -> Findings:
    """Sample with every pair of T and epsilon, with the same network and the same noise."""
    model, evaluator, count = trained(job), DigitsEvaluator(), job.scaled(SAMPLES, 16)
    sigmas = model.process.sigma(torch.linspace(0, 1, 10, dtype=torch.float64)).tolist()
    gamma, tried = sigmas[1] / sigmas[0], []
    for repeats in REPEATS:
        job.observer.message(f"T = {repeats}")
        for eta in ETAS:
            sampler = annealed_langevin(SIGMA_MIN, eta * SIGMA_MIN**2, repeats)
            x = sampler.run(model.as_score(), SPEC.shape, indices=range(count), noise=BatchNoise(job.seed)).x
            finite = x.flatten(1)[torch.isfinite(x.flatten(1)).all(dim=1)]
            found = energy_distance(finite, evaluator.held_out) if len(finite) > 2 else None
            ratio = langevin_variance_ratio(eta, gamma, repeats)
            distance = (found.number, found.std_error) if found else (math.inf, math.inf)
            tried.append(Setting(repeats, eta, ratio, *distance))
    return Findings(
        claims=_claims(tried),
        tables=(
            Table(
                ("T", "epsilon / sigma^2", "s_T^2 / sigma^2", "energy distance", "95 % +-"),
                tuple((c.repeats, c.eta, c.ratio, c.distance, 1.96 * c.error) for c in tried),
                f"Squared energy distance of {count} denoised samples to 360 held-out digits; the network and the noise"
                " are the same for all rows. s_T^2 / sigma^2 is the ratio of Technique 4; it is 1 where the state has"
                " the variance of the level at the level's end.",
            ),
        ),
        drawings=(
            Drawing(
                "settings",
                "Squared energy distance against the step, for each T",
                "Bars are 95 % intervals over samples. The step e of x + e score + sqrt(2 e) z is in units of sigma^2."
                f" Settings whose samples diverged (distance above {DIVERGED:g}) are not drawn.",
                lambda theme: _curves(theme, tried),
            ),
        ),
        settings=settings(job),
    )


def _claims(tried: list[Setting]) -> tuple[Claim, ...]:
    comparisons, as_good = [], []
    for repeats in REPEATS:
        same_t = [c for c in tried if c.repeats == repeats]
        best = min(same_t, key=lambda c: c.distance)
        chosen = min(same_t, key=lambda c: abs(math.log(c.ratio)))
        excess = chosen.distance - best.distance
        as_good.append(chosen is best or excess <= 1.96 * math.hypot(chosen.error, best.error))
        comparisons.append(
            f"T = {repeats}: chosen {chosen.eta:g} ({chosen.distance:.3f}), best {best.eta:g} ({best.distance:.3f})"
        )
    at_published = [c.distance for c in tried if c.repeats == REPEATS[-1]]
    worst, best = max(at_published), min(at_published)
    return (
        Claim(
            "At each T the step whose variance ratio is nearest to 1 (Technique 4) is as good as the best step tried",
            "step over sigma^2 and, in brackets, squared energy distance: " + "; ".join(comparisons),
            all(as_good),
        ),
        Claim(
            "The quality of samples depends on epsilon, so that it must be chosen",
            f"at T = {REPEATS[-1]} the squared energy distance ranges from {best:.4f} to {worst:.4f} over the steps"
            " tried",
            worst > 2 * max(best, 1e-3),
        ),
    )


def _curves(theme: Theme, tried: list[Setting]) -> Figure:
    figure, (ax,) = grid_of_axes(theme, 1, 1, (5.0, 2.9), below=0.5)
    for k, repeats in enumerate(REPEATS):
        drawn = [c for c in tried if c.repeats == repeats and c.distance < DIVERGED]
        bars = [1.96 * c.error for c in drawn]
        ax.errorbar(
            [c.eta for c in drawn], [c.distance for c in drawn], bars, color=theme.series[k % 4], marker="o",
            markersize=3, linewidth=1.2, elinewidth=0.8, label=f"T = {repeats}",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=0.01)
    ax.set_xlabel("step / sigma^2", labelpad=2)
    ax.legend(fontsize=7.5, frameon=False, labelcolor=theme.ink)
    return figure


ENTRIES = (
    Entry(
        name="ncsn-figure-4",
        paper="NCSN",
        item="figure 4",
        title="Intermediate samples of annealed Langevin dynamics",
        shows="Rows of intermediate samples, from noise to faces and images as the noise level falls.",
        minutes=2.0,
        memory=0.7,
        run=figure_4,
    ),
    Entry(
        name="ncsnv2-langevin-settings",
        paper="NCSNv2",
        item="section 3.4, technique 4",
        title="Sensitivity of annealed Langevin dynamics to T and epsilon",
        shows="T and epsilon decide how much of the previous level's noise is left at a level's end; epsilon is chosen"
        " so that the variance ratio s_T^2 / sigma^2 is as near to 1 as possible.",
        minutes=3.0,
        memory=0.7,
        run=sensitivity,
    ),
)
