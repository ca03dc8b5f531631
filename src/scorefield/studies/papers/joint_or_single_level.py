"""Joint training at all noise levels against training at a single level (NCSN, section 5 and appendix B)."""

from __future__ import annotations

from scorefield.studies.papers.digits_setup import (
    SAMPLES,
    DigitsEvaluator,
    SeedGroup,
    group_drawings,
    noise_levels,
    settings,
    train_group,
)
from scorefield.studies.papers.entry import SEEDS, Claim, Entry, Findings, Job, Table

SINGLE = (0.01, 0.1)
"""Noise levels of the single-level trainings; the first is the published baseline."""


def summary(group: SeedGroup) -> str:
    """Return both numbers of a group with their intervals."""
    (share, a), (distance, b) = group.recognisable(), group.distance()
    return f"{group.name}: {share:.3f} +- {a:.3f} recognisable, squared energy distance {distance:.3f} +- {b:.3f}"


def joint_or_single(job: Job) -> Findings:
    """Train jointly at ten levels and at single levels, sample, and measure."""
    count, evaluator = job.scaled(SAMPLES, 16), DigitsEvaluator()
    joint = train_group(job, "joint, 1 to 0.01", "joint", noise_levels(), evaluator, None)
    single = [
        train_group(job, f"single, {s:g}", f"single-{s:g}", noise_levels(s, s, 1), evaluator, None) for s in SINGLE
    ]
    noise, real = evaluator.uniform_noise(count, job.seed), evaluator.training_digits(count, job.seed)
    every = [joint, *single]
    return Findings(
        claims=_claims(joint, single),
        tables=(
            Table(
                ("trained at", "recognisable", "95 % +-", "energy distance", "95 % +-", "finite"),
                (
                    *((t.name, *t.recognisable(), *t.distance(), min(q.finite for q in t.qualities)) for t in every),
                    ("uniform noise", noise.recognisable, "", noise.distance, "", noise.finite),
                    ("training digits", "", "", real.distance, "", real.finite),
                ),
                f"Means over {SEEDS} trainings, intervals by Student's t. Recognisable: share of samples as near to a"
                f" training digit as 95 % of held-out digits are ({evaluator.radius:.3f}, pixels in [0, 1]). Energy"
                f" distance: squared, of {count} samples to 360 held-out digits; a perfect model would have that of"
                " training digits. Finite: smallest share of finite samples.",
            ),
        ),
        drawings=group_drawings({str(k): group for k, group in enumerate(every)}, noise, real, (1.7, 1.15)),
        settings=settings(job),
    )


def _claims(joint: SeedGroup, single: list[SeedGroup]) -> tuple[Claim, ...]:
    def above(value: tuple[float, float], bound: float) -> bool | None:
        """Return whether a mean is above a bound; None where its interval contains the bound."""
        mean, half = value
        return None if abs(mean - bound) <= half else mean > bound

    baseline = above(single[0].recognisable(), 0.05)
    return (
        Claim(
            "Trained at the single level 0.01, the network gives no recognisable samples (here: fewer than 1 in 20)",
            summary(single[0]),
            None if baseline is None else not baseline,
        ),
        Claim(
            "Trained jointly at ten levels, it gives recognisable samples (here: more than half are recognisable)",
            summary(joint),
            above(joint.recognisable(), 0.5),
        ),
        Claim(
            "Joint training is necessary: training at any one level gives worse samples",
            "; ".join(summary(t) for t in single[1:]),
            _worse(joint, single),
        ),
    )


def _worse(joint: SeedGroup, single: list[SeedGroup]) -> bool | None:
    """Return whether the distance of every single level is above the joint one's, with intervals that do not overlap.

    None where intervals overlap, so that the distances do not decide it.
    """
    mean, half = joint.distance()
    distances = [t.distance() for t in single]
    if all(m - h > mean + half for m, h in distances):
        return True
    return False if any(m + h < mean - half for m, h in distances) else None


ENTRIES = (
    Entry(
        name="ncsn-joint-vs-single",
        paper="NCSN",
        item="section 5 and appendix B, baseline",
        title="Joint training at all noise levels against training at one level",
        shows="A network trained at the single noise level 0.01 and sampled by Langevin dynamics gives no recognisable"
        " image on any data set; trained jointly at ten levels from 1 to 0.01 and sampled by annealed Langevin dynamics"
        " it gives realistic ones.",
        minutes=12.0,
        memory=0.8,
        run=joint_or_single,
    ),
)
