"""One noise-conditional network trained by sliced and by denoising score matching: quality and time (NCSN, 4.2)."""

from __future__ import annotations

import math
import statistics
import time

import torch

from scorefield.losses import DenoisingScoreMatching, Objective, SlicedScoreMatching
from scorefield.models.networks import build_score
from scorefield.studies.papers.digits_setup import (
    NETWORK,
    SAMPLES,
    SPEC,
    DigitsEvaluator,
    SeedGroup,
    experiment,
    group_drawings,
    noise_levels,
    settings,
    train_group,
)
from scorefield.studies.papers.entry import SEEDS, STUDENT, Claim, Entry, Findings, Job, Table, mean_interval
from scorefield.training.trainable import adam

BLOCKS = 40
"""Blocks of steps timed; the two losses alternate."""
MARGIN = 0.25
"""Margin of "as good": the mean distance of sliced score matching exceeds that of denoising by at most this share."""

LOSSES: dict[str, Objective] = {
    "denoising": DenoisingScoreMatching(reduce="half_sum"),
    "sliced": SlicedScoreMatching(reduce="half_sum"),
}


def sliced_or_denoising(job: Job) -> Findings:
    """Train by both losses from the same initial weights, sample with the same noise, and time the optimiser steps."""
    count, evaluator = job.scaled(SAMPLES, 16), DigitsEvaluator()
    groups = {
        name: train_group(job, name, name, noise_levels(), evaluator, objective) for name, objective in LOSSES.items()
    }
    dsm, ssm = groups.values()
    job.observer.message("timing the optimiser steps")
    seconds = step_seconds(job)
    ratio = mean_interval([math.log(b / a) for a, b in zip(*seconds.values(), strict=True)])
    differences = [b - a for a, b in zip(dsm.distances, ssm.distances, strict=True)]
    difference = mean_interval(differences, STUDENT)
    noise, real = evaluator.uniform_noise(count, job.seed), evaluator.training_digits(count, job.seed)
    rows = [
        (name, *group.distance(), *group.recognisable(), 1e3 * statistics.median(seconds[name]))
        for name, group in groups.items()
    ]
    return Findings(
        claims=_claims(dsm, difference, ratio),
        tables=(
            Table(
                ("loss", "energy distance", "95 % +-", "recognisable", "95 % +-", "ms per step"),
                (
                    *rows,
                    ("sliced - denoising", *difference, "", "", ""),
                    ("uniform noise", noise.distance, "", noise.recognisable, "", ""),
                    ("training digits", real.distance, "", "", "", ""),
                ),
                f"Means over {SEEDS} trainings, intervals by Student's t; differences are paired by initial weights."
                " Energy distance: squared. Recognisable: share of samples as near to a training digit as 95 % of"
                " held-out digits are. Times are medians of optimiser steps, measured in alternating blocks.",
            ),
        ),
        drawings=group_drawings(groups, noise, real, (1.2, 0.8)),
        settings={
            **settings(job),
            "sliced score matching": "one Gaussian direction per example, |s|^2 in closed form, lambda = sigma^2",
        },
    )


def step_seconds(job: Job, inside: int = 10) -> dict[str, list[float]]:
    """Measure the seconds of an optimiser step by each loss.

    Blocks of the two losses alternate, so that other load on the machine slows both alike.

    Args:
        job: Seed and effort.
        inside: Steps per block.

    Returns:
        Loss -> seconds per step in each block.
    """
    process = noise_levels()
    generator = torch.Generator().manual_seed(job.seed)
    x = torch.rand(128, *SPEC.shape, generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    models = {}
    for name, objective in LOSSES.items():
        run = experiment(name, process, job, job.seed, objective)
        network = NETWORK.build(SPEC)
        models[name] = (objective, build_score(run, network), adam(network.parameters(), run.optimiser))
    for block in range(job.scaled(BLOCKS, 4) + 1):
        for name, (objective, score, optimiser) in models.items():
            began = time.perf_counter()
            for _ in range(inside):
                objective(score, x, objective.draw(process, x, generator)).mean().backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if block:  # the first block warms up
                seconds[name].append((time.perf_counter() - began) / inside)
    return seconds


def _claims(dsm: SeedGroup, difference: tuple[float, float], ratio: tuple[float, float]) -> tuple[Claim, ...]:
    """Return the claims about quality, within the margin, and about time.

    Args:
        dsm: Trainings by denoising score matching.
        difference: Energy distance of sliced less that of denoising score matching, and half of its interval.
        ratio: Log of the ratio of their seconds per step, and half of its interval.
    """
    mean, half = difference
    denoising = statistics.fmean(dsm.distances)
    bound = MARGIN * denoising
    as_good = True if mean + half <= bound else False if mean - half > bound else None
    low, middle, high = (math.exp(ratio[0] + k * ratio[1]) for k in (-1, 0, 1))
    faster = True if low > 1 else False if high < 1 else None
    return (
        Claim(
            "Annealed sliced score matching trains an NCSN as well as denoising score matching does (here: its squared"
            f" energy distance is larger by no more than {MARGIN:.0%})",
            f"difference {mean:+.4f} +- {half:.4f} after equal numbers of steps; denoising has {denoising:.4f}",
            as_good,
        ),
        Claim(
            "Denoising score matching is slightly faster",
            f"an optimiser step by sliced score matching takes {middle:.2f} [{low:.2f}, {high:.2f}] times as long",
            faster,
        ),
    )


ENTRIES = (
    Entry(
        name="ncsn-ssm-vs-dsm",
        paper="NCSN",
        item="section 4.2",
        title="Annealed sliced against denoising score matching",
        shows="Both losses train noise-conditional score networks; the paper uses denoising score matching because it"
        " is slightly faster, and says that sliced score matching trains them as well.",
        minutes=8.0,
        memory=0.8,
        run=sliced_or_denoising,
    ),
)
