"""Finding a sampler's settings by measurement, with no image judged by eye.

The criterion is the squared energy distance of samples to held-out data or, where there are none, to the samples of the
converged flow. All settings are tried on the same noise, so that their differences are known much better than the
distances. A setting counts as better only where it wins again on noise that the search has not seen, by more than the
uncertainty of the difference; otherwise the sampler stays as it was: ties go to what there is.

Jolicoeur-Martineau et al. (2021) tune their step by a Frechet distance on a grid and Song and Ermon (2020, Technique 4)
by a variance that needs no samples; the latter is where the search for annealed Langevin dynamics also looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from scorefield._codec import dumps
from scorefield.evaluation.samplers.candidates import other_grids
from scorefield.evaluation.samplers.measurement import Converged, Real, Say, converged_flow, require_enough
from scorefield.evaluation.samplers.settings import Setting, settings_of
from scorefield.evaluation.samplers.subject import Subject
from scorefield.metrics.energy_distance import Jackknifed, paired_energy_distance
from scorefield.models.sampler_records import STANDARD_ERRORS, Measured, MeasureReceipt, Tried, TunedSampler
from scorefield.sampling.consistent import Consistent
from scorefield.sampling.sampler import Sampler

ROUNDS = 4
"""Refinements of a setting after its first grid, at most."""


# ------------------------------------------------------------------------------------------------ the search


@dataclass
class Criterion:
    """The distance that tuning makes small, on one range of samples, and what it has found already.

    Args:
        subject: The model.
        first: Index of the first sample.
        n: Number of samples.
        real: Held-out data; None to compare with the converged flow.
        flow: The converged flow of the same samples, where there are no data.
    """

    subject: Subject
    first: int
    n: int
    real: Real | None
    flow: Converged | None = None
    _known: dict[str, Jackknifed | None] = field(default_factory=dict)

    @classmethod
    def start(cls, subject: Subject, first: int, n: int, real: Real | None) -> Criterion:
        """A trial with the flow solved, where it is needed."""
        flow = converged_flow(subject, n, first) if real is None else None
        return cls(subject, first, n, real, flow)

    def __call__(self, sampler: Sampler) -> Jackknifed | None:
        """The distance of a sampler; None where it cannot be used, or a sample fails."""
        key = dumps(sampler)
        if key not in self._known:
            self._known[key] = self._measured(sampler)
        return self._known[key]

    def _measured(self, sampler: Sampler) -> Jackknifed | None:
        try:
            drawn = self.subject.draw(sampler, self.first, self.n)
        except (ValueError, TypeError, RuntimeError):
            return None
        if bool((drawn.status != 0).any()) or not bool(torch.isfinite(drawn.x).all()):
            return None
        if self.real is not None:
            return self.real.distance(drawn.x)
        assert self.flow is not None
        return paired_energy_distance(drawn.x[self.flow.ok], self.flow.end(sampler.final)[self.flow.ok])


def clearly(difference: Jackknifed) -> bool:
    """Whether a difference is positive beyond its noise."""
    return difference.number > STANDARD_ERRORS * difference.std_error


@dataclass(frozen=True)
class Found:
    """Result of a search over one setting.

    Args:
        what: The setting.
        best: Its best value.
        taken: The chosen value: the previous one, if it does not differ significantly from the best.
        sampler: The sampler with the value taken.
        alike: The values tried, around the best, that do not differ significantly from it.
        tried: All of them.
        failed: Values at which the sampler failed.
    """

    what: str
    best: Any
    taken: Any
    sampler: Sampler
    alike: tuple[Any, ...]
    tried: tuple[Tried, ...]
    failed: tuple[Any, ...] = ()


def search_number(criterion: Criterion, sampler: Sampler, setting: Setting, say: Say = lambda line: None) -> Found:
    """Search a number: a coarse grid, then the midpoints beside the best until neighbours do not differ significantly.

    Args:
        criterion: What to make small.
        sampler: The sampler whose setting it is.
        setting: The setting to search.
        say: Told of every value.

    Raises:
        ValueError: The sampler fails at every value.
    """
    points = setting.values()
    points |= {setting.of(sampler), *(h for h in setting.hints if setting.low <= h <= setting.high)}
    known: dict[float, Jackknifed | None] = {}

    def evaluate(values: set[float]) -> None:
        for value in sorted(values):
            known[value] = criterion(setting.put(sampler, value))
            say(f"{setting.what} = {value:.4g}: {_text(known[value])}")

    evaluate(points)
    for _ in range(ROUNDS):
        good = _worked(known, setting.what)
        best = min(good, key=lambda v: good[v].number)
        ordered = sorted(good)
        place = ordered.index(best)
        beside = [ordered[k] for k in (place - 1, place + 1) if 0 <= k < len(ordered)]
        # Where the best does not differ significantly from its neighbours, values between them do not either.
        apart = [setting.between(v, best) for v in beside if clearly(good[v].minus(good[best]))]
        if not (further := {v for v in apart if v is not None}):
            break
        evaluate(further)
    return _found(setting.what, known, setting.of(sampler), lambda v: setting.put(sampler, v))


def search_choices(
    criterion: Criterion, what: str, choices: Mapping[str, Sampler], say: Say = lambda line: None
) -> Found:
    """Try every one of a few samplers, the first of which is the one there was.

    Raises:
        ValueError: All of them fail.
    """
    known = {}
    for name, sampler in choices.items():
        known[name] = criterion(sampler)
        say(f"{what} {name}: {_text(known[name])}")
    return _found(what, known, next(iter(choices)), lambda name: choices[name])


def _worked(known: Mapping[Any, Jackknifed | None], what: str) -> dict[Any, Jackknifed]:
    good = {value: distance for value, distance in known.items() if distance is not None}
    if not good:
        raise ValueError(f"the sampler fails at every value of {what} that was tried; nothing can be tuned")
    return good


def _found(what: str, known: Mapping[Any, Jackknifed | None], before: Any, build: Callable[[Any], Sampler]) -> Found:
    good = _worked(known, what)
    best = min(good, key=lambda v: good[v].number)
    ordered = sorted(good) if isinstance(best, float) else list(good)
    same = {v for v in good if v == best or not clearly(good[v].minus(good[best]))}
    alike = tuple(v for v in ordered if v in same)
    if isinstance(best, float):  # the unbroken range around the best
        place = low = high = ordered.index(best)
        while low > 0 and ordered[low - 1] in same:
            low -= 1
        while high + 1 < len(ordered) and ordered[high + 1] in same:
            high += 1
        alike = tuple(ordered[low : high + 1]) if low <= place <= high else (best,)
    least = good[best]
    tried = tuple(
        Tried(what, f"{v:.6g}" if isinstance(v, float) else str(v), _measured(good[v]), _measured(good[v].minus(least)))
        for v in ordered
    )
    taken = before if before in alike else best
    return Found(what, best, taken, build(taken), alike, tried, tuple(v for v, d in known.items() if d is None))


def _measured(found: Jackknifed) -> Measured:
    return Measured(found.number, found.std_error)


def _text(found: Jackknifed | None) -> str:
    if found is None:
        return "failed"
    return f"distance {found.number:.4g} +- {STANDARD_ERRORS * found.std_error:.2g}"


# ------------------------------------------------------------------------------------------------ tuning


def tune(
    subject: Subject,
    sampler: Sampler,
    receipt: MeasureReceipt,
    *,
    real: Real | None = None,
    say: Say = lambda line: None,
) -> TunedSampler:
    """Choose the settings and the grid of a sampler, and check the choice on fresh noise.

    Args:
        subject: The model.
        sampler: The sampler to begin with.
        receipt: Number of samples, and facts to record.
        real: Held-out data; None to compare with the converged flow.
        say: Told of every trial.

    Raises:
        ValueError: Too few samples or data, nothing to tune, or a sampler that fails.
    """
    n, process = receipt.count, subject.score.process
    require_enough(n, real)
    # Consistent annealing keeps its grid: which eta are admissible depends on it.
    held = any(isinstance(part, Consistent) for part in sampler.step.parts())
    grids = [] if held else other_grids(sampler.grid, sampler.process or process)
    if not grids and not settings_of(sampler, process):
        raise ValueError(
            f"{type(sampler.step).__name__} on {type(sampler.grid).__name__} has no setting to tune; tune another, for"
            " example --sampler pc"
        )
    criterion = Criterion.start(subject, 0, n, real)
    best, found = sampler, []
    if grids:
        choices = {_kind(grid): replace(sampler, grid=grid) for grid in (sampler.grid, *grids)}
        found.append(search_choices(criterion, "grid", choices, say))
        best = found[-1].sampler
    for setting in settings_of(best, process):
        found.append(search_number(criterion, best, setting, say))
        best = found[-1].sampler
    gain, adopted = _confirmed(subject, sampler, best, n, real, say)
    return TunedSampler(
        best if adopted else sampler,
        "squared energy distance to " + ("held-out data" if real is not None else "the converged flow"),
        sampler,
        gain,
        best,
        adopted,
        tuple(_conclusions(found, gain, adopted)),
        tuple(t for f in found for t in f.tried),
        receipt if criterion.flow is None else replace(
            receipt, reference=criterion.flow.sampler, reference_error=criterion.flow.error
        ),
    )  # fmt: skip


def _confirmed(
    subject: Subject, before: Sampler, after: Sampler, n: int, real: Real | None, say: Say
) -> tuple[Measured, bool]:
    """The gain on samples that the search has not seen, and whether it is beyond its noise."""
    if after == before:
        return Measured(0.0, 0.0), False
    fresh = Criterion.start(subject, n, n, real)
    old, new = fresh(before), fresh(after)
    if new is None:
        raise ValueError(f"the sampler found fails on further samples, {n} to {2 * n - 1}; use more samples")
    if old is None:
        return Measured(0.0, 0.0), True  # what it replaces fails
    gain = old.minus(new)
    say(f"on fresh noise: before {_text(old)}, after {_text(new)}")
    return _measured(gain), clearly(gain)


def _conclusions(found: Sequence[Found], gain: Measured, adopted: bool) -> Iterator[str]:
    for one in found:
        kept = f"; {_show(one.taken)} is kept" if one.taken != one.best else ""
        yield (
            f"{one.what}: best of {len(one.tried)} tried {_show(one.best)}; not told apart from it:"
            f" {_range(one.alike, one.best)}{kept}"
        )
        if one.failed:
            yield f"{one.what}: failed at {', '.join(map(_show, one.failed))}"
    low, high = gain.interval
    said = f"the distance falls by {gain.number:.3g}, between {low:.3g} and {high:.3g} (95 %), on fresh noise"
    if adopted:
        yield f"adopted: {said}"
    elif gain.number == 0.0 and gain.std_error == 0.0:
        yield "the sampler stays as it was: it is the best that was tried"
    else:
        yield f"the sampler stays as it was: nothing found is better beyond the noise ({said})"


def _kind(grid: Any) -> str:
    return type(grid).__name__


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _range(alike: Sequence[Any], best: Any) -> str:
    if len(alike) < 2:
        return "nothing else"
    if isinstance(best, float):
        return f"{alike[0]:.4g} to {alike[-1]:.4g}"
    return ", ".join(str(v) for v in alike if v != best)
