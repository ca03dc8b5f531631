"""The papers' claims about each other's methods, checked by paired differences of samples or densities."""

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
from scorefield.studies.methods.definitions import METHODS
from scorefield.studies.methods.records import Estimate, MethodRun, estimate_over_seeds
from scorefield.studies.methods.running import LEAST, finite, read_arrays
from scorefield.studies.papers.entry import Claim


@dataclass(frozen=True)
class PairedClaim:
    """A claim that one method and sampler is better than another.

    Args:
        statement: The paper's claim.
        better: Method and sampler claimed to be better; the sampler is ignored for densities.
        worse: Method and sampler claimed to be worse.
        by: Quantity of the comparison, lower being better: "samples" for the squared energy distance to held-out data,
            "density" for bits/dim (or negative nats) of held-out data.
    """

    statement: str
    better: tuple[str, str]
    worse: tuple[str, str]
    by: Literal["samples", "density"] = "samples"


PAIRED_CLAIMS = (
    PairedClaim("NCSNv2's techniques improve on NCSN (Song and Ermon 2020)", ("ncsnv2", "ALS"), ("ncsn", "ALS")),
    PairedClaim(
        "Samples of consistent annealing that are not denoised are better than those of annealed Langevin dynamics"
        " (Jolicoeur-Martineau et al. 2021)",
        ("ncsnv2", "CAS, raw"),
        ("ncsnv2", "ALS, raw"),
    ),
    PairedClaim(
        "Denoising the last sample improves annealed Langevin dynamics (Jolicoeur-Martineau et al. 2021)",
        ("ncsnv2", "ALS"),
        ("ncsnv2", "ALS, raw"),
    ),
    PairedClaim(
        "The adversarial part improves samples of consistent annealing (Jolicoeur-Martineau et al. 2021)",
        ("adversarial", "CAS"),
        ("ncsnv2", "CAS"),
    ),
    PairedClaim(
        "Predictor and corrector are better than the predictor alone with as many calls, VE (Song et al. 2021)",
        ("ve", "PC"),
        ("ve", "predictor"),
    ),
    PairedClaim(
        "Continuous time trains better samples than levels, VE (Song et al. 2021)",
        ("ve", "PC"),
        ("ve-discrete", "PC"),
    ),
    PairedClaim(
        "Continuous time trains better samples than levels, VP (Song et al. 2021)",
        ("vp", "Euler-Maruyama"),
        ("vp-discrete", "ancestral"),
    ),
    PairedClaim("Sub-VP has better likelihoods than VP (Song et al. 2021)", ("sub-vp", ""), ("vp", ""), by="density"),
)


def check_claims(runs: Sequence[MethodRun], folder: Path, reference: Reference) -> tuple[Claim, ...]:
    """Check every claim for which both methods were run, seed by seed with the same noise and held-out data.

    A claim held where the whole 95 % interval of the difference is below zero, did not hold where it is above, and is
    undecided where the interval contains zero, or where two methods were trained once each.

    Args:
        runs: Finished runs.
        folder: Output folder of the comparison; run folders are METHOD/seed_S.
        reference: Held-out data, data units.
    """
    by_seed = {(run.method, run.seed): run for run in runs}
    real = torch.cat(list(reference.batches(1024)))
    inside = distance_sums(real, real)
    claims = []
    for claim in PAIRED_CLAIMS:
        (a, sampler_a), (b, sampler_b) = claim.better, claim.worse
        seeds = [seed for method, seed in by_seed if method == a and (b, seed) in by_seed]
        differences = []
        for seed in sorted(seeds):
            first, second = by_seed[a, seed], by_seed[b, seed]
            if claim.by == "density":
                found = _density_difference(folder, first, second)
            else:
                found = _sample_difference(folder, (first, sampler_a), (second, sampler_b), real, inside)
            if found is not None:
                differences.append(found)
        if differences:
            quantity, pair = _titles(claim)
            estimate = estimate_over_seeds(differences)
            claims.append(verdict(claim.statement, estimate, quantity, pair, one_model=a == b))
    return tuple(claims)


def _titles(claim: PairedClaim) -> tuple[str, str]:
    """Return the quantity of a claim, and the difference "A less B" in words."""
    quantity = "bits/dim" if claim.by == "density" else "squared energy distance"
    first, second = (
        f"{METHODS[method].title}{f' by {sampler}' if sampler else ''}"
        for method, sampler in (claim.better, claim.worse)
    )
    return quantity, f"{first} less {second}"


def verdict(statement: str, difference: Estimate, quantity: str, pair: str, *, one_model: bool) -> Claim:
    """Return the claim that a difference is negative, lower values being better, with its verdict.

    Args:
        statement: The paper's claim.
        difference: Difference of the quantity, the one claimed to be better less the other.
        quantity: Name of the quantity.
        pair: The difference in words.
        one_model: Whether both sides sample the same trained models. If not, one seed leaves the claim undecided,
            because the interval of one training does not contain the variation between trainings.
    """
    held = True if difference.high < 0 else False if difference.low > 0 else None
    seeds = f"{difference.seeds} seed{'s' * (difference.seeds != 1)}"
    if difference.seeds == 1 and not one_model:
        held, seeds = None, "1 seed, which cannot separate the method from the variation between trainings"
    return Claim(statement, f"{pair}: {difference} in {quantity}, {seeds}", held)


def run_folder(folder: Path, method: str, seed: int) -> Path:
    """Return the run folder of a method and seed in the folder of a comparison."""
    return folder / method / f"seed_{seed}"


def _sample_difference(
    folder: Path,
    first: tuple[MethodRun, str],
    second: tuple[MethodRun, str],
    real: torch.Tensor,
    inside: torch.Tensor,
) -> tuple[float, float] | None:
    """Return the difference of two energy distances with its jackknifed standard error.

    Only sample indices that are finite on both sides are used, so that the samples stay paired.

    Args:
        folder: Output folder of the comparison.
        first: A run and the name of one of its samplers.
        second: The other run and sampler.
        real: Held-out data.
        inside: Sums of distances within the held-out data.

    Returns:
        (difference, standard error), or None where a sampler was not run or too few samples are finite.
    """
    arrays = []
    for run, name in (first, second):
        sampled = run.sampled(name)
        if sampled is None:
            return None
        stored = read_arrays(run_folder(folder, run.method, run.seed) / sampled.folder)
        arrays.append(stored["raw" if name.endswith(", raw") else "x"])
    usable = finite(arrays[0]) & finite(arrays[1])
    if int(usable.sum()) < LEAST:
        return None
    distances = [energy_distance(x[usable], real, inside) for x in arrays]
    difference = distances[0].minus(distances[1])
    return difference.number, difference.std_error


def _density_difference(folder: Path, first: MethodRun, second: MethodRun) -> tuple[float, float] | None:
    """Return the mean difference of densities over the same held-out examples, and its standard error.

    None where one of the runs has no density, or fewer than two differences are finite.
    """
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
