"""The papers' claims about each other's methods, judged by paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from scorefield.metrics import Reference
from scorefield.metrics.energy_distance import distance_sums, energy_distance
from scorefield.studies.methods.lineage import METHODS
from scorefield.studies.methods.records import Estimate, MethodRun, over_seeds
from scorefield.studies.methods.running import LEAST, finite, read_arrays
from scorefield.studies.papers.entry import Claim


@dataclass(frozen=True)
class Statement:
    """That one way is better than another.

    Args:
        says: The paper's statement.
        better: Method and sampler that is said to be better; the sampler is ignored for densities.
        worse: The other.
        by: Squared energy distance of samples, or bits/dim (negative nats).
    """

    says: str
    better: tuple[str, str]
    worse: tuple[str, str]
    by: Literal["samples", "density"] = "samples"


STATEMENTS = (
    Statement("NCSNv2's techniques improve on NCSN (Song and Ermon 2020)", ("ncsnv2", "ALS"), ("ncsn", "ALS")),
    Statement(
        "Samples of consistent annealing that are not denoised are better than those of annealed Langevin dynamics"
        " (Jolicoeur-Martineau et al. 2021)",
        ("ncsnv2", "CAS, raw"),
        ("ncsnv2", "ALS, raw"),
    ),
    Statement(
        "Denoising the last sample improves annealed Langevin dynamics (Jolicoeur-Martineau et al. 2021)",
        ("ncsnv2", "ALS"),
        ("ncsnv2", "ALS, raw"),
    ),
    Statement(
        "The adversarial part improves samples of consistent annealing (Jolicoeur-Martineau et al. 2021)",
        ("adversarial", "CAS"),
        ("ncsnv2", "CAS"),
    ),
    Statement(
        "Predictor and corrector are better than the predictor alone with as many calls, VE (Song et al. 2021)",
        ("ve", "PC"),
        ("ve", "predictor"),
    ),
    Statement(
        "Continuous time trains better samples than levels, VE (Song et al. 2021)",
        ("ve", "PC"),
        ("ve-discrete", "PC"),
    ),
    Statement(
        "Continuous time trains better samples than levels, VP (Song et al. 2021)",
        ("vp", "Euler-Maruyama"),
        ("vp-discrete", "ancestral"),
    ),
    Statement("Sub-VP has better likelihoods than VP (Song et al. 2021)", ("sub-vp", ""), ("vp", ""), by="density"),
)


def judged(runs: Sequence[MethodRun], folder: Path, reference: Reference) -> tuple[Claim, ...]:
    """Every statement whose runs are there, seed by seed the same noise and the same held-out data.

    A claim held where the whole 95 % interval of the difference is on its side, did not hold where it is on the other
    side, and is undecided where the interval holds zero, or where each method was trained once.

    Args:
        runs: Finished ones.
        folder: Of the comparison; run folders are METHOD/seed_S.
        reference: Held-out data, data units.
    """
    known = {(run.method, run.seed): run for run in runs}
    real = torch.cat(list(reference.batches(1024)))
    inside = distance_sums(real, real)
    claims = []
    for statement in STATEMENTS:
        (a, by_a), (b, by_b) = statement.better, statement.worse
        seeds = [seed for method, seed in known if method == a and (b, seed) in known]
        pairs = []
        for seed in sorted(seeds):
            first, second = known[a, seed], known[b, seed]
            if statement.by == "density":
                found = _density_difference(folder, first, second)
            else:
                found = _sample_difference(folder, first, by_a, second, by_b, real, inside)
            if found is not None:
                pairs.append(found)
        if pairs:
            one_model = a == b
            claims.append(verdict(statement.says, over_seeds(pairs), *_titles(statement), one_model=one_model))
    return tuple(claims)


def _titles(statement: Statement) -> tuple[str, str]:
    what = "bits/dim" if statement.by == "density" else "squared energy distance"
    (a, by_a), (b, by_b) = statement.better, statement.worse
    first, second = (f"{METHODS[m].title}{f' by {by}' if by else ''}" for m, by in ((a, by_a), (b, by_b)))
    return what, f"{first} less {second}"


def verdict(says: str, difference: Estimate, what: str, pair: str, *, one_model: bool) -> Claim:
    """A claim that a difference is negative, lower being better.

    Args:
        says: The statement.
        difference: Of the two ways.
        what: Its quantity.
        pair: The two ways in words.
        one_model: Whether both are of the same trained models. Otherwise one seed decides nothing: the interval of one
            training knows nothing of what another would give.
    """
    held = True if difference.high < 0 else False if difference.low > 0 else None
    seeds = f"{difference.seeds} seed{'s' * (difference.seeds != 1)}"
    if difference.seeds == 1 and not one_model:
        held, seeds = None, "1 seed, which cannot tell a method from its training"
    return Claim(says, f"{pair}: {difference} in {what}, {seeds}", held)


def run_folder(folder: Path, method: str, seed: int) -> Path:
    """Where a run lies in a comparison."""
    return folder / method / f"seed_{seed}"


def _sample_difference(
    folder: Path,
    first: MethodRun,
    by_first: str,
    second: MethodRun,
    by_second: str,
    real: torch.Tensor,
    inside: torch.Tensor,
) -> tuple[float, float] | None:
    """(difference of energy distances, its jackknifed standard error), over indices that are finite in both."""
    arrays = []
    for run, name in ((first, by_first), (second, by_second)):
        sampled = run.sampled(name)
        if sampled is None:
            return None
        stored = read_arrays(run_folder(folder, run.method, run.seed) / sampled.folder)
        arrays.append(stored["raw" if name.endswith(", raw") else "x"])
    fine = finite(arrays[0]) & finite(arrays[1])
    if int(fine.sum()) < LEAST:
        return None
    distances = [energy_distance(x[fine], real, inside) for x in arrays]
    difference = distances[0].minus(distances[1])
    return difference.number, difference.std_error


def _density_difference(folder: Path, first: MethodRun, second: MethodRun) -> tuple[float, float] | None:
    """(mean difference, its standard error) over the same held-out examples."""
    if first.density is None or second.density is None:
        return None
    values = []
    for run in (first, second):
        with np.load(run_folder(folder, run.method, run.seed) / "density.npz", allow_pickle=False) as stored:
            values.append(torch.from_numpy(stored["value"]).double())
    difference = values[0] - values[1]
    difference = difference[torch.isfinite(difference)]
    if len(difference) < 2:
        return None
    return float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))
