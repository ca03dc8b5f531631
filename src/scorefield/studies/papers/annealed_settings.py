"""Annealed Langevin dynamics seen from inside: samples on the way (NCSN, figure 4), and other T and epsilon."""

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
from scorefield.studies.papers.entry import Claim, Crowd, Drawing, Entry, Findings, Job, Table
from scorefield.studies.papers.on_digits import SAMPLES, SPEC, Judge, experiment, noise_levels, settings
from scorefield.training.trainer import train

SIGMA_MIN = 0.01
REPEATS = (1, 5, 20, 100)
ETAS = (0.02, 0.1, 0.2, 0.5, 1.0, 1.5)
LOST = 10.0
"""Energy distance of samples that have run away, not drawn; uniform noise has 1.9."""


def trained(job: Job) -> Model:
    """NCSN's ladder and loss with a perceptron on the digits."""
    process = noise_levels()
    run = experiment("joint", process, job, job.seed)
    job.observer.message(f"training, {run.training.steps} steps")
    return load(train(run, job.folder / "runs" / f"joint-{job.seed}", resume="auto", observer=job.observer))


# ------------------------------------------------------------------------------------------------ on the way


def figure_4(job: Job) -> Findings:
    """Samples at the end of every level, and how far they are from the data."""
    model, judge, count = trained(job), Judge(), job.scaled(SAMPLES, 16)
    seen: list[Tensor] = []
    sampler = annealed_langevin(SIGMA_MIN, 0.2 * SIGMA_MIN**2, job.scaled(100, 1), final="none")

    def keep(event: Progress) -> None:
        seen.append(event.x)

    sampler.run(model.as_score(), SPEC.shape, indices=range(count), noise=Crowd(job.seed), callbacks=[keep])
    sigmas = model.process.sigma(sampler.times(model.process)[:-1]).tolist()
    rows = tuple((k + 1, sigma, judge(x).distance) for k, (sigma, x) in enumerate(zip(sigmas, seen, strict=True)))
    distances = [row[2] for row in rows]
    best = min(rows, key=lambda row: row[2])
    strip = torch.stack([SPEC.to_data(x[:8]) for x in seen], dim=1).flatten(0, 1)
    return Findings(
        claims=(
            Claim(
                "Samples go from noise to data as the noise level falls",
                f"the energy distance to held-out digits is {distances[0]:.3f} after the first level and"
                f" {distances[-1]:.3f} after the last, least ({best[2]:.3f}) at sigma = {best[1]:.2g}; training digits"
                f" have {judge.real(count, job.seed).distance:.4f}",
                distances[-1] < 0.1 * distances[0],
            ),
        ),
        tables=(
            Table(("level", "sigma", "energy distance"), rows, f"{count} samples at the end of each level, [0, 1]."),
        ),
        drawings=(
            Drawing(
                "figure-4",
                "Samples at the end of each level",
                "A row is a sample, from the first level to the last; black to white is 0 to 16, clipped here only.",
                lambda theme: image_grid(strip, SPEC, len(seen), tile=40),
            ),
        ),
        settings=settings(job),
    )


# ------------------------------------------------------------------------------------------------ T and epsilon


@dataclass(frozen=True)
class Tried:
    """T steps of eta sigma^2 at every level, and what came of them."""

    repeats: int
    eta: float
    ratio: float
    distance: float
    error: float


def sensitivity(job: Job) -> Findings:
    """All pairs of T and epsilon with one network and one noise."""
    model, judge, count = trained(job), Judge(), job.scaled(SAMPLES, 16)
    sigmas = model.process.sigma(torch.linspace(0, 1, 10, dtype=torch.float64)).tolist()
    gamma, tried = sigmas[1] / sigmas[0], []
    for repeats in REPEATS:
        job.observer.message(f"T = {repeats}")
        for eta in ETAS:
            sampler = annealed_langevin(SIGMA_MIN, eta * SIGMA_MIN**2, repeats)
            x = sampler.run(model.as_score(), SPEC.shape, indices=range(count), noise=Crowd(job.seed)).x
            finite = x.flatten(1)[torch.isfinite(x.flatten(1)).all(dim=1)]
            found = energy_distance(finite, judge.held_out) if len(finite) > 2 else None
            ratio = langevin_variance_ratio(eta, gamma, repeats)
            bad = (math.inf, math.inf)
            tried.append(Tried(repeats, eta, ratio, *((found.number, found.std_error) if found else bad)))
    return Findings(
        claims=_claims(tried),
        tables=(
            Table(
                ("T", "epsilon / sigma^2", "s_T^2 / sigma^2", "energy distance", "95 % +-"),
                tuple((c.repeats, c.eta, c.ratio, c.distance, 1.96 * c.error) for c in tried),
                f"Squared energy distance of {count} denoised samples to 360 held-out digits; one network, one noise."
                " s_T^2 / sigma^2 is Technique 4's ratio, 1 where a level ends with its own noise.",
            ),
        ),
        drawings=(
            Drawing(
                "settings",
                "Energy distance against the step, for each T",
                "Bars: 95 % over samples. The step is in units of sigma^2, x + e score + sqrt(2 e) z. Samples that ran"
                " away are not drawn.",
                lambda theme: _curves(theme, tried),
            ),
        ),
        settings=settings(job),
    )


def _claims(tried: list[Tried]) -> tuple[Claim, ...]:
    words, good = [], []
    for repeats in REPEATS:
        mine = [c for c in tried if c.repeats == repeats]
        best = min(mine, key=lambda c: c.distance)
        chosen = min(mine, key=lambda c: abs(math.log(c.ratio)))
        apart = chosen.distance - best.distance
        good.append(chosen is best or apart <= 1.96 * math.hypot(chosen.error, best.error))
        words.append(
            f"T = {repeats}: chosen {chosen.eta:g} ({chosen.distance:.3f}), best {best.eta:g} ({best.distance:.3f})"
        )
    at_published = [c.distance for c in tried if c.repeats == REPEATS[-1]]
    worst, best = max(at_published), min(at_published)
    return (
        Claim(
            "At each T the step whose variance ratio is nearest to 1 (Technique 4) is as good as the best tried",
            "; ".join(words),
            all(good),
        ),
        Claim(
            "Samples depend on epsilon, so that it must be chosen",
            f"at T = {REPEATS[-1]} the distance goes from {best:.4f} to {worst:.4f} over the steps tried",
            worst > 2 * max(best, 1e-3),
        ),
    )


def _curves(theme: Theme, tried: list[Tried]) -> Figure:
    figure, (ax,) = grid_of_axes(theme, 1, 1, (5.0, 2.9), below=0.5)
    for k, repeats in enumerate(REPEATS):
        mine = [c for c in tried if c.repeats == repeats and c.distance < LOST]
        bars = [1.96 * c.error for c in mine]
        ax.errorbar(
            [c.eta for c in mine], [c.distance for c in mine], bars, color=theme.series[k % 4], marker="o",
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
        title="Samples on the way of annealed Langevin dynamics",
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
        " so that the variance ratio s_T^2 / sigma^2 comes nearest to 1.",
        minutes=3.0,
        memory=0.7,
        run=sensitivity,
    ),
)
