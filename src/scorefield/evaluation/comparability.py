"""Two results are compared where their receipts agree in all but what is being compared.

A Frechet distance of 1,000 samples is not that of 50,000, nor that against other data or through other features. What
two receipts may differ in is how the samples were made: model, weights, sampler, seed. Versions of software are told
and not refused.

The difference of two independent estimates has the interval of Zou and Donner ("Construction of confidence limits about
effect measures", 2008): with values a, b and intervals (a_0, a_1), (b_0, b_1),

    a - b - ((a - a_0)^2 + (b_1 - b)^2)^(1/2)   to   a - b + ((a_1 - a)^2 + (b - b_0)^2)^(1/2).

Both values met the same reference, whose randomness they share and which this counts twice: it errs to the safe side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scorefield import _codec
from scorefield._codec import record
from scorefield.evaluation.part_files import differing
from scorefield.metrics import MetricResult, Receipt, Value
from scorefield.metrics.by_name import NAMED
from scorefield.metrics.rows import NORMAL_95


@record(tag="ReceiptDifference")
class Difference:
    """A field in which two receipts differ.

    Args:
        field: Its path in the receipt.
        a: Value in the first, as JSON.
        b: Value in the second.
        remedy: The call that makes them alike; None where they need not be.
    """

    field: str
    a: Any
    b: Any
    remedy: str | None = None


@record(tag="ResultComparison")
class ResultComparison:
    """One metric of two sets of samples.

    Args:
        metric: Its name.
        a: The first value.
        b: The second.
        difference: a - b.
        interval: 95 % interval of the difference, None where one of the values has none.
        verdict: The verdict as a sentence.
        compared: What differs in how the samples were made.
        versions: What differs in the software.
        unlike: What makes the two incomparable; not empty only where that was overridden.
    """

    metric: str
    a: Value
    b: Value
    difference: float
    interval: tuple[float, float] | None
    verdict: str
    compared: tuple[Difference, ...] = ()
    versions: tuple[Difference, ...] = ()
    unlike: tuple[Difference, ...] = ()


class UnlikeError(ValueError):
    """Receipts that differ in what makes numbers incomparable; the message names every field and what would help."""


def matched(a: Sequence[MetricResult], b: Sequence[MetricResult]) -> list[tuple[MetricResult, MetricResult]]:
    """The results of one metric in both, in the order of the first; of several the ones through equal features.

    Raises:
        ValueError: They have no metric in common.
    """
    pairs, left = [], list(b)
    for first in a:
        same = [r for r in left if r.receipt.metric == first.receipt.metric]
        if same:
            alike = [r for r in same if r.receipt.features.name == first.receipt.features.name]
            pairs.append((first, (alike or same)[0]))
            left.remove(pairs[-1][1])
    if not pairs:
        names = [", ".join(r.receipt.metric for r in side) or "nothing" for side in (a, b)]
        raise ValueError(
            f"no metric is in both: the first has {names[0]}, the second {names[1]}; evaluate both with one --metrics"
        )
    return pairs


def unlike(a: Receipt, b: Receipt) -> tuple[Difference, ...]:
    """The fields in which two receipts differ and that make their numbers incomparable."""
    found = [
        Difference(field, here, there, _remedy(field, a, b))
        for name in ("metric", "settings", "count", "reference", "features")
        for field, here, there in differing(_codec.encode(getattr(a, name)), _codec.encode(getattr(b, name)), name)
        if not field.endswith(".note") and not (field == "reference.name" and a.reference.hash == b.reference.hash)
    ]
    if a.features.hash is None and b.features.hash is None:
        found.append(
            Difference("features.hash", None, None, "give the feature function a hash: nothing shows that they are one")
        )
    return tuple(found)


def _remedy(field: str, a: Receipt, b: Receipt) -> str:
    """The call that makes the second result comparable with the first."""
    target = b.source.model or "B"
    short = next((name for name, entry in NAMED.items() if entry.metric.name == a.metric), None)
    root = field.split(".")[0]
    if root == "count":
        return f"scorefield evaluate {target} -n {a.count}"
    if root == "reference":
        return f"evaluate both with one --reference PATH (the first: {a.reference.name}, {a.reference.split})"
    if root == "features":
        return (
            f"evaluate both with one --features, and weights of one hash (the first looked through {a.features.name!r})"
        )
    return f"scorefield evaluate {target} --metrics {short or 'NAME'} with this version of scorefield"


def compare_results(a: MetricResult, b: MetricResult) -> ResultComparison:
    """Two results of one metric, alike or not; `require_alike` refuses those that are not."""
    first, second = a.receipt, b.receipt
    differs, interval = unlike(first, second), difference_interval(a.value, b.value)
    return ResultComparison(
        first.metric,
        a.value,
        b.value,
        a.value.number - b.value.number,
        interval,
        "none: these receipts are not alike" if differs else _verdict(a, b, interval),
        _differences(first, second, ("source", "samples_hash")),
        _differences(first, second, ("versions",)),
        differs,
    )


def require_alike(comparisons: Sequence[ResultComparison], names: tuple[str, str]) -> None:
    """Refuse comparisons of unlike receipts.

    Raises:
        UnlikeError: Every field that differs, with both values and what would make them alike.
    """
    lines: dict[str, None] = {}
    for comparison in comparisons:
        for d in comparison.unlike:
            lines[f"  {comparison.metric}: {d.field} is {shown(d.a)} and {shown(d.b)}. {d.remedy}"] = None
    if lines:
        raise UnlikeError(
            f"{names[0]} and {names[1]} cannot be compared; their receipts differ in\n"
            + "\n".join(lines)
            + "\n--override compares them all the same, and records that it did"
        )


def difference_interval(a: Value, b: Value) -> tuple[float, float] | None:
    """95 % interval of a - b for independent estimates; None where one has no interval."""
    of_a, of_b = _limits(a), _limits(b)
    if of_a is None or of_b is None:
        return None
    (a_down, a_up), (b_down, b_up) = of_a, of_b
    d = a.number - b.number
    return d - math.hypot(a_down, b_up), d + math.hypot(a_up, b_down)


def _limits(value: Value) -> tuple[float, float] | None:
    """How far a value may be too high and too low; by its standard error where one is stated, for intervals are cut."""
    if value.interval is None:
        return None
    error = value.details.get("standard error")
    if error is not None:
        return NORMAL_95 * error, NORMAL_95 * error
    return value.number - value.interval[0], value.interval[1] - value.number


def _verdict(a: MetricResult, b: MetricResult, interval: tuple[float, float] | None) -> str:
    if a.receipt.samples_hash == b.receipt.samples_hash and a.value.number == b.value.number:
        return "the same samples and the same value"
    if interval is None:
        return "unknown: a value has no interval" + _singular(a, b)
    if interval[0] <= 0.0 <= interval[1]:
        return "no difference shown at this N"
    lower = "A" if interval[1] < 0.0 else "B"
    better = a.value.better
    if better == "lower":
        return f"{lower} is better"
    if better == "higher":
        return f"{'B' if lower == 'A' else 'A'} is better"
    return f"{lower} is lower"


def _singular(a: MetricResult, b: MetricResult) -> str:
    flagged = [name for name, r in (("A", a), ("B", b)) if r.value.status == "singular"]
    return f" ({' and '.join(flagged)} singular: too few samples for the features)" if flagged else ""


def _differences(a: Receipt, b: Receipt, names: Sequence[str]) -> tuple[Difference, ...]:
    return tuple(
        Difference(field, here, there)
        for name in names
        for field, here, there in differing(_codec.encode(getattr(a, name)), _codec.encode(getattr(b, name)), name)
    )


def shown(value: Any) -> str:
    """A value of a receipt in a line; hashes by their first digits."""
    text = str(value)
    return repr(text[:12]) + "..." if len(text) == 64 and not set(text) - set("0123456789abcdef") else repr(value)


def overridden(comparisons: Sequence[ResultComparison]) -> Mapping[str, Any]:
    """The differences that an override ignored, by metric."""
    return {
        c.metric: [{k: v for k, v in dataclasses.asdict(d).items() if k != "remedy"} for d in c.unlike]
        for c in comparisons
        if c.unlike
    }
