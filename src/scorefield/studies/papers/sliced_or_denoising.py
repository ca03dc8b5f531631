"""The same noise-conditional network trained by annealed sliced and by denoising score matching: quality and time."""

from __future__ import annotations

import math
import statistics
import time

import torch

from scorefield.losses import DenoisingScoreMatching, Objective, SlicedScoreMatching
from scorefield.models.networks import build_score
from scorefield.plot.pictures import image_grid
from scorefield.studies.papers.entry import Claim, Drawing, Entry, Findings, Job, Table, mean_interval
from scorefield.studies.papers.on_digits import (
    NETWORK,
    SAMPLES,
    SEEDS,
    SPEC,
    STUDENT,
    Group,
    Judge,
    experiment,
    group,
    noise_levels,
    quality,
    settings,
)
from scorefield.training.trainable import adam

BLOCKS = 40
"""Blocks of steps timed, the two losses in turn."""
MARGIN = 0.25
"""As good: the mean distance is larger by no more than this share of denoising's."""

LOSSES: dict[str, Objective] = {
    "denoising": DenoisingScoreMatching(reduce="half_sum"),
    "sliced": SlicedScoreMatching(reduce="half_sum"),
}


def sliced_or_denoising(job: Job) -> Findings:
    """Train by both from the same initial weights, sample with the same noise, and time the steps in turn."""
    count, judge = job.scaled(SAMPLES, 16), Judge()
    by = [group(job, name, name, noise_levels(), judge, objective) for name, objective in LOSSES.items()]
    dsm, ssm = by
    job.observer.message("time of a step")
    seconds = step_seconds(job)
    ratio = mean_interval([math.log(b / a) for a, b in zip(*seconds.values(), strict=True)])
    differences = [b - a for a, b in zip(dsm.distances, ssm.distances, strict=True)]
    difference = mean_interval(differences, STUDENT)
    noise, real = judge.noise(count, job.seed), judge.real(count, job.seed)
    rows = [(t.name, *t.distance(), *t.near(), 1e3 * statistics.median(seconds[t.name])) for t in by]
    return Findings(
        claims=_claims(dsm, difference, ratio),
        tables=(
            Table(
                ("loss", "energy distance", "95 % +-", "recognisable", "95 % +-", "ms a step"),
                (
                    *rows,
                    ("sliced - denoising", *difference, "", "", ""),
                    ("uniform noise", noise.distance, "", noise.near, "", ""),
                    ("training digits", real.distance, "", "", "", ""),
                ),
                f"Means over {SEEDS} trainings by Student's law; the difference is of trainings from the same weights."
                f" Recognisable: as near to a training digit as 95 % of held-out digits are. Times are medians of"
                " optimiser steps measured in turn.",
            ),
        ),
        drawings=(
            Drawing(
                "quality",
                "Energy distance to held-out digits",
                "A dot is a training. Further left is nearer to the data.",
                lambda theme: quality(theme, by, noise, real, (1.2, 0.8)),
            ),
            *(
                Drawing(
                    f"samples-{t.name}",
                    f"Samples, {t.name} score matching",
                    "Not selected, of the first training, from the same noise; black to white is 0 to 16.",
                    lambda theme, t=t: image_grid(t.shown, SPEC, 12, tile=40),
                )
                for t in by
            ),
        ),
        settings={
            **settings(job),
            "sliced": "one Gaussian direction an example, |s|^2 in closed form, lambda = sigma^2",
        },
    )


def step_seconds(job: Job, inside: int = 10) -> dict[str, list[float]]:
    """Seconds of an optimiser step by each loss, blocks of steps in turn, so that a busy machine slows both."""
    process = noise_levels()
    generator = torch.Generator().manual_seed(job.seed)
    x = torch.rand(128, *SPEC.shape, generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    made = {}
    for name, objective in LOSSES.items():
        run = experiment(name, process, job, job.seed, objective)
        network = NETWORK.build(SPEC)
        made[name] = (objective, build_score(run, network), adam(network.parameters(), run.optimiser))
    for block in range(job.scaled(BLOCKS, 4) + 1):
        for name, (objective, score, optimiser) in made.items():
            began = time.perf_counter()
            for _ in range(inside):
                objective(score, x, objective.draw(process, x, generator)).mean().backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if block:  # the first one warms up
                seconds[name].append((time.perf_counter() - began) / inside)
    return seconds


def _claims(dsm: Group, difference: tuple[float, float], ratio: tuple[float, float]) -> tuple[Claim, ...]:
    """Of quality, with its margin, and of time."""
    mean, half = difference
    own = statistics.fmean(dsm.distances)
    bound = MARGIN * own
    as_good = True if mean + half <= bound else False if mean - half > bound else None
    low, middle, high = (math.exp(ratio[0] + k * ratio[1]) for k in (-1, 0, 1))
    faster = True if low > 1 else False if high < 1 else None
    return (
        Claim(
            f"Annealed sliced score matching trains an NCSN as well as denoising score matching does (here: its energy"
            f" distance is larger by no more than {MARGIN:.0%})",
            f"{mean:+.4f} +- {half:.4f} at equal steps, where denoising has {own:.4f}",
            as_good,
        ),
        Claim(
            "Denoising score matching is slightly faster",
            f"a step by sliced score matching takes {middle:.2f} [{low:.2f}, {high:.2f}] times as long",
            faster,
        ),
    )


ENTRIES = (
    Entry(
        name="ncsn-ssm-vs-dsm",
        paper="NCSN",
        item="section 4.2",
        title="Annealed sliced against denoising score matching",
        shows="Both losses train noise-conditional score networks; the paper takes denoising score matching because it"
        " is slightly faster, and says that sliced score matching trains them as well.",
        minutes=8.0,
        memory=0.8,
        run=sliced_or_denoising,
    ),
)
