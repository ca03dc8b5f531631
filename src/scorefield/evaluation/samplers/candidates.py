"""Which samplers a model admits, at which numbers of calls, found without one call of its network.

A candidate is tried on a Gaussian of one dimension first: that shows whether its parts fit the process, how many calls
it makes, and whether its steps draw noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from scorefield._codec import near
from scorefield._math import over_event
from scorefield._random import PRIOR_STEP, IndexedNoise
from scorefield.evaluation.samplers.subject import Subject
from scorefield.models.sampler_records import Refused
from scorefield.process.grids import Focused, LogSNR, PowerSigma, Quadratic
from scorefield.process.process import Process
from scorefield.sampling.named import NAMED
from scorefield.sampling.sampler import PriorStart, Sampler
from scorefield.score.score import FunctionScore, Score

CALLS = (5, 10, 20, 30, 50, 100)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Tolerances of solvers that choose their own steps."""


@dataclass(frozen=True)
class Candidate:
    """A sampler to measure.

    Args:
        name: Its name.
        variant: What differs from the sampler of that name.
        sampler: The sampler.
        deterministic: Whether its steps draw no noise and follow the process in time.
    """

    name: str
    variant: str
    sampler: Sampler
    deterministic: bool


@dataclass(frozen=True)
class Trial:
    """Result of a dry run: calls of a sample (of this Gaussian, where they depend on the state), and noise drawn."""

    calls: int
    deterministic: bool


class _Counted(IndexedNoise):
    """Noise that counts what steps draw."""

    drawn = 0

    def _draw(self, like: Tensor, step: int, draw: int, kind: Literal["normal", "uniform"]) -> Tensor:
        self.drawn += step != PRIOR_STEP
        return super()._draw(like, step, draw, kind)


def dry_run(sampler: Sampler, process: Process, score: Score | None = None) -> Trial:
    """Run a sampler on the standard normal distribution in one dimension.

    Args:
        sampler: The sampler.
        process: Process of the noise.
        score: The score: a time that its network refuses is refused here as well.

    Raises:
        ValueError: The sampler does not fit the process, or the network's ladder.
    """
    used = sampler.process or process
    time_input, ladder = getattr(score, "time_input", None), getattr(score, "levels", None)

    def normal(x: Tensor, t: Tensor) -> Tensor:
        if time_input is not None and ladder is not None:
            time_input(ladder, t)
        variance = used.alpha(t) ** 2 + used.sigma(t) ** 2
        return -x / over_event(variance, x)

    noise = _Counted(0, [0])
    run = sampler.run(FunctionScore(normal, used), (1,), indices=[0], noise=noise, dtype=torch.float64)
    follows = all(part.order is not None for part in sampler.step.parts() if part.moves)
    return Trial(int(run.calls[0]), noise.drawn == 0 and follows and isinstance(sampler.start, PriorStart))


def admitted(score: Score, named: Callable[[str, int | None], Sampler]) -> list[str]:
    """Names of the samplers that a score admits.

    Args:
        score: What they would follow.
        named: (name, steps) -> sampler, steps None for as many as the name has by itself.
    """
    found = []
    for name in NAMED:
        try:
            dry_run(named(name, None), score.process, score)
        except (ValueError, TypeError):
            continue
        found.append(name)
    return found


def with_calls(
    build: Callable[[int], Sampler], process: Process, calls: int, score: Score | None = None
) -> tuple[Sampler, Trial]:
    """The sampler with the most steps that makes at most so many calls, and its dry run.

    Args:
        build: Number of steps -> sampler.
        process: Process of the noise.
        calls: Largest number of calls.
        score: The score, as for `dry_run`.

    Raises:
        ValueError: One step makes more calls already, or the sampler does not fit the process.
    """
    per_step = max(build(1).step.calls_per_step() or 1, 1)
    steps, best = max(1, (calls - 1) // per_step), None  # most samplers make one more, to denoise
    while True:
        sampler = build(steps)
        trial = dry_run(sampler, process, score)
        if trial.calls <= calls:
            best = (sampler, trial)
            if trial.calls + per_step > calls:
                return best
            steps += 1
        elif best is not None:
            return best
        elif steps == 1:
            raise ValueError(f"its least number of calls is {trial.calls}")
        else:
            steps = max(1, steps - max(1, (trial.calls - calls) // per_step))


def candidates(
    subject: Subject, calls: Sequence[int] = CALLS, *, names: Sequence[str] | None = None, variants: bool = True
) -> tuple[list[Candidate], list[Refused]]:
    """Every named sampler at several numbers of calls, and the orders and grids of those that follow the flow.

    Args:
        subject: What they will sample.
        calls: Numbers of network calls per sample.
        names: Names of some samplers; None for all, and the subject's own.
        variants: Also other orders, and other grids, of deterministic samplers.

    Returns:
        Candidates, and those that the subject does not admit with the reason.

    Raises:
        ValueError: A number of calls below 1, or a name that no sampler has.
    """
    for name in names or ():
        if name not in NAMED:
            raise ValueError(f"there is no sampler {name!r}.{near(name, NAMED)}")
    if not calls or min(calls) < 1:
        raise ValueError(f"numbers of calls must be at least 1; got {', '.join(map(str, calls)) or 'none'}")
    found: list[Candidate] = []
    refused: list[Refused] = []
    for name in NAMED if names is None else names:
        _gather(subject, name, sorted(set(calls)), variants, found, refused)
    for name, sampler in subject.own.items() if names is None else ():
        if all(sampler != c.sampler for c in found):
            _try(name, "", None, _as_is(sampler, subject.score), found, refused)
    return found, refused


def _gather(
    subject: Subject, name: str, calls: Sequence[int], variants: bool, found: list[Candidate], refused: list[Refused]
) -> None:
    score, process = subject.score, subject.score.process
    try:
        base = subject.named(name, None)
    except (ValueError, TypeError) as error:
        refused.append(Refused(name, None, str(error)))
        return
    if base.step.calls_per_step() is None:
        for variant, sampler in _tolerances(base):
            _try(name, variant, None, _as_is(sampler, score), found, refused)
        return
    before = len(found)

    def plain(steps: int) -> Sampler:
        return subject.named(name, steps)

    _try_all(subject, name, "", calls, plain, found, refused)
    if not variants or len(found) == before or not found[-1].deterministic:
        return
    for variant, change in _variants(found[-1].sampler, process):
        _try_all(subject, name, variant, calls, lambda steps, change=change: change(plain(steps)), found, refused)


def _try_all(
    subject: Subject,
    name: str,
    variant: str,
    calls: Sequence[int],
    build: Callable[[int], Sampler],
    found: list[Candidate],
    refused: list[Refused],
) -> None:
    """A sampler at every number of calls; one line says what is wrong with it at all of them."""
    problems: list[Refused] = []
    for number in calls:

        def fitting(number: int = number) -> tuple[Sampler, Trial]:
            return with_calls(build, subject.score.process, number, subject.score)

        _try(name, variant, number, fitting, found, problems)
    refused += [replace(problems[0], calls=None)] if len(problems) == len(calls) else problems


def _as_is(sampler: Sampler, score: Score) -> Callable[[], tuple[Sampler, Trial]]:
    return lambda: (sampler, dry_run(sampler, score.process, score))


def _try(
    name: str,
    variant: str,
    calls: int | None,
    build: Callable[[], tuple[Sampler, Trial]],
    found: list[Candidate],
    refused: list[Refused],
) -> None:
    """Add what `build` makes, unless that line has it already, or the reason why it cannot be used."""
    title = f"{name}, {variant}" if variant else name
    try:
        sampler, trial = build()
    except (ValueError, TypeError, RuntimeError) as error:
        refused.append(Refused(title, calls, str(error)))
        return
    if all((c.name, c.variant, c.sampler) != (name, variant, sampler) for c in found):
        found.append(Candidate(name, variant, sampler, trial.deterministic))


def _tolerances(sampler: Sampler) -> Iterator[tuple[str, Sampler]]:
    """A solver that chooses its steps, at several tolerances where it has one."""
    names = {f.name for f in dataclasses.fields(sampler.step)}  # type: ignore[arg-type]
    if not {"rtol", "atol"} <= names:
        yield "", sampler
        return
    for tolerance in TOLERANCES:
        step: Any = replace(sampler.step, rtol=tolerance, atol=tolerance)  # type: ignore[type-var]
        yield f"tolerance {tolerance:.0e}", replace(sampler, step=step)


Change = Callable[[Sampler], Sampler]


def _variants(sampler: Sampler, process: Process) -> Iterator[tuple[str, Change]]:
    """Other orders of a step that offers some, and other grids, one change at a time."""
    step: Any = sampler.step
    for order in _orders(type(step)):
        if order != step.order:
            yield f"order {order}", lambda s, order=order: _changed(s, step=_changed(s.step, order=order))
    for grid in other_grids(sampler.grid, sampler.process or process):
        yield f"{type(grid).__name__} grid", lambda s, grid=grid: _changed(s, grid=replace(grid, steps=_steps(s)))


def _changed(value: Any, **changes: Any) -> Any:
    return replace(value, **changes)


def _steps(sampler: Any) -> int:
    return sampler.grid.steps


def _orders(step: type) -> tuple[int, ...]:
    """The choices of a step's field `order`, where it has one."""
    if "order" not in {f.name for f in dataclasses.fields(step)}:
        return ()
    kind = get_type_hints(step)["order"]
    return get_args(kind) if get_origin(kind) is Literal else ()


def other_grids(grid: Any, process: Process) -> list[Any]:
    """Grids of as many steps at other times; none where the grid has no number of steps.

    Args:
        grid: The grid.
        process: Process whose times they place: on some processes two grids are equal.
    """
    steps = getattr(grid, "steps", None)
    if steps is None:
        return []
    found, times = [], [grid.times(process)]
    for other in (LogSNR(steps), Focused(steps), PowerSigma(steps), Quadratic(steps)):
        own = other.times(process)
        if not any(torch.allclose(own, known, rtol=1e-6, atol=0.0) for known in times):
            found.append(other)
            times.append(own)
    return found
