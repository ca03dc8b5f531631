"""Joint training at all noise levels against training at one level (NCSN's ablation)."""

from __future__ import annotations

from scorefield.plot.pictures import image_grid
from scorefield.studies.papers.entry import Claim, Drawing, Entry, Findings, Job, Table
from scorefield.studies.papers.on_digits import (
    SAMPLES,
    SEEDS,
    SPEC,
    Group,
    Judge,
    group,
    noise_levels,
    quality,
    settings,
)

SINGLE = (0.01, 0.1)
"""The published baseline is the first."""


def words(group: Group) -> str:
    """Both numbers of a group, with their intervals."""
    (near, a), (distance, b) = group.near(), group.distance()
    return f"{group.name}: {near:.3f} +- {a:.3f} recognisable, energy distance {distance:.3f} +- {b:.3f}"


def joint_or_single(job: Job) -> Findings:
    """Train at ten levels together and at one alone, sample, and measure."""
    count, judge = job.scaled(SAMPLES, 16), Judge()
    joint = group(job, "joint, 1 to 0.01", "joint", noise_levels(), judge, None)
    single = [group(job, f"single, {s:g}", f"single-{s:g}", noise_levels(s, s, 1), judge, None) for s in SINGLE]
    noise, real = judge.noise(count, job.seed), judge.real(count, job.seed)
    every = [joint, *single]
    return Findings(
        claims=_claims(joint, single),
        tables=(
            Table(
                ("trained at", "recognisable", "95 % +-", "energy distance", "95 % +-", "finite"),
                (
                    *((t.name, *t.near(), *t.distance(), min(q.finite for q in t.found)) for t in every),
                    ("uniform noise", noise.near, "", noise.distance, "", noise.finite),
                    ("training digits", "", "", real.distance, "", real.finite),
                ),
                f"Means over {SEEDS} trainings, intervals by Student's law. Recognisable: as near to a training digit"
                f" as 95 % of held-out digits are ({judge.radius:.3f}, pixels in [0, 1]). Squared energy distance to"
                f" 360 held-out digits, {count} samples; of training digits it is what a perfect model would have.",
            ),
        ),
        drawings=(
            Drawing(
                "quality",
                "Energy distance to held-out digits",
                "A dot is a training. Further left is nearer to the data.",
                lambda theme: quality(theme, every, noise, real, (1.7, 1.15)),
            ),
            *(
                Drawing(
                    f"samples-{k}",
                    f"Samples, {t.name}",
                    "Not selected, of the first training; black to white is 0 to 16, clipped in the drawing only.",
                    lambda theme, t=t: image_grid(t.shown, SPEC, 12, tile=40),
                )
                for k, t in enumerate(every)
            ),
        ),
        settings=settings(job),
    )


def _claims(joint: Group, single: list[Group]) -> tuple[Claim, ...]:
    def above(value: tuple[float, float], bound: float) -> bool | None:
        mean, half = value
        return None if abs(mean - bound) <= half else mean > bound

    baseline = above(single[0].near(), 0.05)
    return (
        Claim(
            "Trained at the single level 0.01, the network gives no recognisable sample (here: fewer than 1 in 20)",
            words(single[0]),
            None if baseline is None else not baseline,
        ),
        Claim(
            "Trained jointly at ten levels it does (here: more than half are)",
            words(joint),
            above(joint.near(), 0.5),
        ),
        Claim(
            "It is the levels together that do it: no single one is as good",
            "; ".join(words(t) for t in single[1:]),
            _worse(joint, single),
        ),
    )


def _worse(joint: Group, single: list[Group]) -> bool | None:
    """Whether every single level's energy distance lies above the joint one's, intervals apart."""
    mean, half = joint.distance()
    others = [t.distance() for t in single]
    if all(m - h > mean + half for m, h in others):
        return True
    return False if any(m + h < mean - half for m, h in others) else None


ENTRIES = (
    Entry(
        name="ncsn-joint-vs-single",
        paper="NCSN",
        item="section 5 and appendix B, baseline",
        title="Joint training at all noise levels against one level",
        shows="A network trained at the single noise level 0.01 and sampled by Langevin dynamics gives no recognisable"
        " image on any data set; trained jointly at ten levels from 1 to 0.01 and sampled by annealed Langevin dynamics"
        " it gives realistic ones.",
        minutes=12.0,
        memory=0.8,
        run=joint_or_single,
    ),
)
