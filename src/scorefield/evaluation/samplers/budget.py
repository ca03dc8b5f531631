"""Choosing a sampler for a budget from a measured table: calls, seconds, or an error.

Between two measured numbers of calls an error is taken to follow a power of the number (its order); beyond the ends of
a curve nothing is claimed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from scorefield._codec import near
from scorefield.evaluation.samplers.candidates import dry_run
from scorefield.models.sampler_records import SamplerRow, SamplerTable
from scorefield.process.process import Process
from scorefield.sampling.sampler import Sampler

KINDS = ("nfe", "seconds", "error")


@dataclass(frozen=True)
class Budget:
    """The largest cost of samples, or their largest error.

    Args:
        kind: "nfe", network calls per sample; "seconds" for all samples; "error", root mean square in model units.
        amount: Size of the budget.
    """

    kind: Literal["nfe", "seconds", "error"]
    amount: float


def parse_budget(text: str) -> Budget:
    """Read nfe=40, seconds=60 or error=1e-3.

    Raises:
        ValueError: Another key, no number, or one that is not positive.
    """
    kind, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--budget {text!r} is not KIND=NUMBER, for example nfe=40, seconds=60 or error=1e-3")
    if kind not in KINDS:
        raise ValueError(f"--budget {text!r}: there is no budget of {kind!r}.{near(kind, KINDS)}")
    try:
        amount = float(value)
    except ValueError:
        raise ValueError(f"--budget {text!r}: {value!r} is not a number") from None
    if not (amount > 0 and math.isfinite(amount)):
        raise ValueError(f"--budget {text!r}: it must be a positive number")
    if kind == "nfe" and amount != int(amount):
        raise ValueError(f"--budget {text!r}: network calls come in whole numbers")
    return Budget(kind, amount)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Choice:
    """A sampler and what to expect of it.

    Args:
        title: Its name, order and grid.
        sampler: The sampler.
        calls: Network calls per sample.
        quality: The expected number: `of` says which.
        interval: 95 % of it; of an error, with the uncertainty of the converged flow on both sides.
        seconds: Expected for all samples.
        of: What `quality` is.
        how: Whether it was measured, or interpolated between which numbers of calls.
    """

    title: str
    sampler: Sampler
    calls: float
    quality: float
    interval: tuple[float, float]
    seconds: float
    of: str
    how: str


Curve = Sequence[SamplerRow]


def choose(table: SamplerTable, budget: Budget, n: int, process: Process, seconds_per_call: float) -> Choice:
    """The best sampler within a budget; among those that do not differ significantly, the cheapest.

    Where the model has a flow, the samplers that follow it are compared by their error; where it has none, all by their
    distance to the data.

    Args:
        table: What was measured.
        budget: The budget.
        n: Number of samples that will be drawn.
        process: The model's.
        seconds_per_call: Time of one network call per example, on this machine now.

    Raises:
        ValueError: Nothing measured fits the budget; says what is nearest.
    """
    curves = list(_curves(table))
    by_error = any(row.error is not None for curve in curves for row in curve)
    if budget.kind == "error" and not by_error:
        raise ValueError(
            "an error is measured against the probability flow, which this model has not; use --budget nfe=... or"
            " seconds=..., which choose by the distance to data"
        )
    slower = seconds_per_call / table.receipt.seconds_per_call if table.receipt.seconds_per_call else 1.0
    plan = _Plan(process, n, slower, "error" if by_error else "distance", table.receipt.reference_uncertainty)
    options = [option for curve in curves for option in plan.options(curve, budget)]
    if not options:
        raise ValueError(_nearest(plan, curves, budget))
    if budget.kind == "error":
        return min(options, key=lambda o: (o.calls, o.quality))
    best = min(options, key=lambda o: o.quality)
    return min((o for o in options if o.quality <= best.interval[1]), key=lambda o: (o.calls, o.quality))


def nearer_to_data(table: SamplerTable, calls: float) -> SamplerRow | None:
    """A sampler that, within so many calls, comes nearer to the data than the converged flow, beyond the noise.

    Correctors and noise undo errors of the network that the flow carries along; an error against the flow cannot show
    that.
    """
    found = [row for row in table.rows if row.beyond_flow and not row.failed and row.calls <= calls]
    found = [row for row in found if row.beyond_flow and row.beyond_flow.interval[1] < 0.0 and row.best_distance]
    return min(found, key=lambda row: row.beyond_flow.number if row.beyond_flow else 0.0, default=None)


def _curves(table: SamplerTable) -> Iterator[Curve]:
    """Rows of one sampler at increasing calls, without those in which samples failed."""
    by_error = any(row.error is not None for row in table.rows)
    rows = [row for row in table.rows if not row.failed and (row.error if by_error else row.to_data) is not None]
    rows.sort(key=lambda row: (row.name, row.variant, row.calls))
    for _, curve in itertools.groupby(rows, key=lambda row: (row.name, row.variant)):
        yield list(curve)


@dataclass(frozen=True)
class _Plan:
    """How options are built.

    Args:
        process: The model's.
        n: Samples.
        slower: Seconds now over seconds when the table was measured.
        quality: What they are compared by.
        unsure: Error of the converged flow, about.
    """

    process: Process
    n: int
    slower: float
    quality: Literal["error", "distance"]
    unsure: float = 0.0

    def options(self, curve: Curve, budget: Budget) -> Iterator[Choice]:
        """Points of a curve within the budget: the measured ones, and one interpolated between two of them."""
        measured = [self._measured(row) for row in curve]
        yield from (choice for choice in measured if self.fits(choice, budget))
        for (low, a), (high, b) in itertools.pairwise(zip(curve, measured, strict=True)):
            inside, outside = (b, a) if budget.kind == "error" else (a, b)
            alike = low.sampler.step == high.sampler.step and type(low.sampler.grid) is type(high.sampler.grid)
            if alike and self.fits(inside, budget) and not self.fits(outside, budget):
                between = self._between(low, high, a, b, budget)
                if between is not None:
                    yield between

    def fits(self, choice: Choice, budget: Budget) -> bool:
        """Whether a choice keeps to a budget; an error does if the upper end of its interval does."""
        spent = {"nfe": choice.calls, "seconds": choice.seconds, "error": choice.interval[1]}[budget.kind]
        return spent <= budget.amount

    def _measured(self, row: SamplerRow) -> Choice:
        value = row.error if self.quality == "error" else row.to_data
        assert value is not None
        seconds = self.n * row.seconds * self.slower
        words, (low, high) = "squared energy distance to the data", value.interval
        if self.quality == "error":
            words, low, high = "error", max(0.0, low - self.unsure), high + self.unsure
        return Choice(row.title, row.sampler, row.calls, value.number, (low, high), seconds, words, "measured")

    def _between(self, low: SamplerRow, high: SamplerRow, a: Choice, b: Choice, budget: Budget) -> Choice | None:
        """The point between two measured ones that uses a budget best; None where whole steps leave none."""
        steps: tuple[Any, Any] = (low.sampler.grid, high.sampler.grid)
        numbers = range(steps[0].steps + 1, steps[1].steps)
        # Calls and seconds grow with the steps, and the error falls: bisection finds the last number that fits.
        more = budget.kind != "error"
        left, right, best = 0, len(numbers), None
        while left < right:
            middle = (left + right) // 2
            choice = self._interpolated(high, a, b, numbers[middle])
            fits = self.fits(choice, budget)
            best = choice if fits else best
            if fits == more:
                left = middle + 1
            else:
                right = middle
        return best

    def _interpolated(self, row: SamplerRow, a: Choice, b: Choice, steps: int) -> Choice:
        grid: Any = row.sampler.grid
        sampler = replace(row.sampler, grid=replace(grid, steps=steps))
        calls = dry_run(sampler, self.process).calls
        part = math.log(calls / a.calls) / math.log(b.calls / a.calls)

        def power(u: float, v: float) -> float:
            if u > 0 and v > 0:
                return math.exp((1 - part) * math.log(u) + part * math.log(v))
            return (1 - part) * u + part * v  # an unbiased distance may be negative, and follows no power then

        return Choice(
            a.title, sampler, calls, power(a.quality, b.quality),
            (power(a.interval[0], b.interval[0]), power(a.interval[1], b.interval[1])),
            power(a.seconds, b.seconds), a.of,
            f"interpolated between {a.calls:g} and {b.calls:g} calls",
        )  # fmt: skip


def _nearest(plan: _Plan, curves: Sequence[Curve], budget: Budget) -> str:
    """Why a budget cannot be kept, and the nearest that can."""
    measured = [plan._measured(row) for curve in curves for row in curve]
    if not measured:
        return "no sampler of the table was measured without failures; run scorefield compare-samplers again"
    given = f"--budget {budget.kind}={budget.amount:g}"
    if budget.kind == "nfe":
        least = min(measured, key=lambda o: o.calls)
        return f"{given} is too few: the cheapest measured is {least.title}; use --budget nfe={math.ceil(least.calls)}"
    if budget.kind == "seconds":
        least = min(measured, key=lambda o: o.seconds)
        return (
            f"{given} is too little for {plan.n} samples: the fastest measured is {least.title} with {least.calls:g}"
            f" calls; use --budget seconds={_ceiling(least.seconds):g}, or draw fewer"
        )
    best = min(measured, key=lambda o: o.interval[1])
    return (
        f"{given} is below every measured error: the smallest is {best.quality:.2g} (at most {best.interval[1]:.2g}) by"
        f" {best.title} with {best.calls:g} calls; use --budget error={_ceiling(best.interval[1]):g}, or measure more"
        " calls with scorefield compare-samplers --calls"
    )


def _ceiling(value: float) -> float:
    """Two digits, rounded up."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
