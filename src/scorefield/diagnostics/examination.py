"""A score examined on data: what holds and what fails at each noise level, and the name of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.diagnostics import findings as told
from scorefield.diagnostics.faults import Diagnosis, Verdict, diagnose, worst
from scorefield.diagnostics.findings import NOTHING, Finding
from scorefield.diagnostics.identities import fokker_planck, probed
from scorefield.diagnostics.levels import Examined, default_times
from scorefield.diagnostics.readings import Reading, Row, Training, rows_of, size_of
from scorefield.process.process import Process
from scorefield.score.score import Score, require_alpha_sigma

LEAST = 32
"""Examples, without which nothing can be said."""

SIGNIFICANCE = 1e-4
"""Significance level of all tests of one kind together: the rate of false findings for an exact score."""


@record
class Examination:
    """Result of an examination.

    Args:
        verdict: The worst of all findings.
        findings: Worst first.
        rows: One a level, least noise first; empty without data.
        named: The fault that explains most, or None.
        tried: Every remedy, those that take most of the loss first.
        not_examined: What could not be examined, and why.
        count: Examples.
        significance: Significance level of all tests of one kind together.
        seed: Seed of noise and probes.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    rows: tuple[Row, ...]
    named: Diagnosis | None
    tried: tuple[Diagnosis, ...]
    not_examined: tuple[str, ...]
    count: int
    significance: float
    seed: int

    def with_findings(self, more: Iterable[Finding]) -> Examination:
        """This examination with further findings."""
        verdict, findings = _weighed([*(f for f in self.findings if f != NOTHING), *more])
        return replace(self, verdict=verdict, findings=findings)


def _weighed(findings: Sequence[Finding]) -> tuple[Verdict, tuple[Finding, ...]]:
    """The verdict, and the findings worst first, after a clean bill where there is one."""
    verdict = worst(f.verdict for f in findings)
    return verdict, ((NOTHING,) if verdict == "healthy" else ()) + told.by_weight(findings)


def examine(
    score: Score,
    x0: Tensor,
    *,
    process: Process | None = None,
    times: Sequence[float] | None = None,
    train: Tensor | None = None,
    exact: Score | None = None,
    condition: Condition | None = None,
    train_condition: Condition | None = None,
    others: Mapping[str, Score] | None = None,
    grey_step: float | None = None,
    seed: int = 0,
    batch_size: int = 128,
    significance: float = SIGNIFICANCE,
    progress: Callable[[float], None] | None = None,
) -> Examination:
    """Examine a score on data that it was not trained on.

    Args:
        score: Any score.
        x0: Examples in model units, (n, *event), that are independent of each other.
        process: The process that the score was trained with, for example a ladder; by default the score's own.
        times: Times of the levels; by default `default_times(process)`, with the levels of a ladder that stand out in a
            scan.
        train: Training examples, (N, *event), for the moments of the data and for what the score remembers.
        exact: The exact score, where it is known: the floor of the loss.
        condition: What is known of each of `x0`.
        train_condition: Known conditions of `train`.
        others: Scores with other weights of the same model, by name: {"raw": ...} beside an average.
        grey_step: Distance of two grey levels in model units; None for continuous data.
        seed: Seed of noise and probes.
        batch_size: Examples at a time.
        significance: Significance level of all tests of one kind together.
        progress: Called with the share that is done, now and then.

    Raises:
        ValueError: Fewer than 32 examples, values that are not finite, a `GeneralSDE`, a score that is not finite, or
            training examples of another shape.
    """
    process = score.process if process is None else process
    require_alpha_sigma(process)
    _check(x0, train)
    bound = score.bind(condition)
    if times is None:
        scanned = Examined(bound, process, x0, [], seed=seed, batch_size=batch_size).scan()
        places = default_times(process)
        times = sorted({*places, *(t for t in _ladder_times(process, scanned) if _far(t, places))})
    examined = Examined(bound, process, x0, sorted(times), seed=seed, batch_size=batch_size)
    seen = [examined.noise(at.x, at.time, at.sigma) for at in examined.levels]
    bad = [f"{at.time:.4g}" for at, h in zip(examined.levels, seen, strict=True) if not bool(h.isfinite().all())]
    if bad:
        raise ValueError(f"the score is not finite at t = {', '.join(bad)}; its weights are, or it divides by zero")
    tell = progress or (lambda share: None)
    known = None
    if train is not None:
        known = Training(score, examined, train, train_condition, seed, batch_size)
    readings = []
    for level, h in zip(examined.levels, seen, strict=True):
        readings.append(Reading.of(examined, level, h, known, exact))
        tell(0.5 * (level.index + 1) / len(examined.levels))
    turned = [reading.turned for reading in readings]
    named, tried = diagnose(examined, seen, turned, others or {}, significance, lambda share: tell(0.5 + 0.5 * share))
    rows = rows_of(readings, named, significance)
    verdict, findings = _weighed(
        [
            *told.of_faults(named, tried),
            *told.of_rows(rows, readings, named, significance),
            *told.of_memory(known, readings, significance),
            *told.of_coverage(examined, readings, known, grey_step),
        ]
    )
    missing = told.missing(examined, rows, known, exact, others or {})
    return Examination(verdict, findings, rows, named, tried, missing, len(x0), significance, seed)


def examine_field(
    score: Score,
    x0: Tensor,
    *,
    process: Process | None = None,
    times: Sequence[float] | None = None,
    condition: Condition | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Examination:
    """Checks of a score that need no data: symmetry of its Jacobian, and the Fokker-Planck equation.

    Args:
        score: Any score.
        x0: Points in model units about which to look, (n, *event): the model's own samples.
        process: The process that the score was trained with; by default the score's own.
        times: Times of the levels; by default `default_times(process)`.
        condition: What is known of each of `x0`.
        seed: Seed of noise and probes.
        batch_size: Points at a time.

    Raises:
        ValueError: The arguments do not fit the score; as for `examine`.
    """
    process = score.process if process is None else process
    require_alpha_sigma(process)
    _check(x0, None)
    places = default_times(process) if times is None else sorted(times)
    examined = Examined(score.bind(condition), process, x0, places, seed=seed, batch_size=batch_size)
    rows = []
    for level in examined.levels:
        jacobian = probed(examined, level)
        asymmetry = None if jacobian is None else size_of(jacobian.asymmetry)
        rows.append(
            Row(level.time, level.alpha, level.sigma, asymmetry, size_of(fokker_planck(examined, level)), "healthy")
        )
    missing = (
        "the loss, bias, slopes, calibration, every known fault, memorisation, and what the noise levels leave out of"
        " the data: there are no data to compare with",
        *told.undifferentiable(examined, rows),
    )
    verdict, findings = _weighed(told.of_asymmetry(rows, range(len(rows))))
    return Examination(verdict, findings, tuple(rows), None, (), missing, len(x0), 0.0, seed)


def _ladder_times(process: Process, levels: Sequence[int]) -> list[float]:
    return process.time(torch.tensor(levels[:4], dtype=torch.float64)).tolist() if levels else []  # type: ignore[attr-defined]


def _far(time: float, places: Sequence[float]) -> bool:
    return all(abs(time - place) > 1e-9 for place in places)


def _check(x0: Tensor, train: Tensor | None) -> None:
    if len(x0) < LEAST:
        raise ValueError(f"{len(x0)} examples are too few to say anything of a score; give at least {LEAST}")
    for name, x in (("x0", x0), ("train", train)):
        if x is not None and not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name} holds values that are not finite; `scorefield data inspect` counts them")
    if train is not None and (train.shape[1:] != x0.shape[1:] or len(train) < 2):
        raise ValueError(
            f"train has shape {tuple(train.shape)} and x0 {tuple(x0.shape)}; give at least two examples of one shape"
        )
