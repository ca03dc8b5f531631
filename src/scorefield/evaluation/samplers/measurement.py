"""Measuring samplers on one model: errors against the converged flow, distances to data, calls, seconds.

All samplers draw from the same noise, so that sample i of one and of another differ by what the samplers do and not by
their noise. Errors and distances are in model units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scorefield.evaluation.samplers.candidates import Candidate
from scorefield.evaluation.samplers.subject import Drawn, Subject
from scorefield.metrics.energy_distance import Jackknifed, distance_sums, energy_distance, paired_energy_distance
from scorefield.models.sampler_records import (
    STANDARD_ERRORS,
    Measured,
    MeasureReceipt,
    Refused,
    SamplerRow,
    SamplerTable,
)
from scorefield.process.grids import Uniform
from scorefield.sampling.adaptive import AdaptiveFlow
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import STATUS

LEAST = 8
"""Fewer samples, or real examples, leave no error of an error to speak of."""

TOLERANCE = 1e-6
"""Tolerance of the converged flow."""

Say = Callable[[str], None]


class Real:
    """Held-out data, with what every distance to them needs.

    Args:
        x: Model units, (m, *event).
    """

    def __init__(self, x: Tensor):
        self.x = x.detach().cpu().to(torch.float64).reshape(len(x), -1)
        self._inside = distance_sums(self.x, self.x)

    def __len__(self) -> int:
        return len(self.x)

    def distance(self, x: Tensor) -> Jackknifed:
        """Squared energy distance of samples, (n, D)."""
        return energy_distance(x, self.x, self._inside)


@dataclass(frozen=True)
class Converged:
    """The flow of a subject, solved to a tolerance at which its own error is known.

    Args:
        sampler: Made it.
        drawn: Its samples.
        error: Root mean square change of the samples from a tolerance ten times as large, an upper bound of theirs.
        ok: Whether each sample succeeded, (n,) bool.
    """

    sampler: Sampler
    drawn: Drawn
    error: float
    ok: Tensor

    def end(self, final: str) -> Tensor:
        """The samples as a sampler with that ending would have them, (n, D)."""
        return self.drawn.x if final in ("denoise", "expected") else self.drawn.raw


def converged_flow(subject: Subject, n: int, first: int = 0, tolerance: float = TOLERANCE) -> Converged:
    """Solve the flow of samples first, ..., first + n - 1.

    Raises:
        ValueError: The subject has no flow (a network that knows only its ladder), or too many samples fail.
    """
    samplers = [Sampler(AdaptiveFlow(tol, tol), Uniform(1)) for tol in (tolerance, 10.0 * tolerance)]
    fine, coarse = (subject.draw(sampler, first, n) for sampler in samplers)
    ok = (fine.status == 0) & (coarse.status == 0)
    if int(ok.sum()) < LEAST:
        raise ValueError(f"the flow did not converge: {_why(fine.status)}")
    error = float((fine.x - coarse.x)[ok].square().mean().sqrt())
    return Converged(samplers[0], fine, error, ok)


def require_enough(n: int, real: Real | None) -> None:
    """Refuse numbers of samples that leave no uncertainty to state.

    Raises:
        ValueError: Fewer than `LEAST` samples or real examples.
    """
    if n < LEAST:
        raise ValueError(f"-n {n} samples are too few to say how uncertain a measurement is; use at least {LEAST}")
    if real is not None and len(real) < LEAST:
        raise ValueError(f"{len(real)} real examples are too few to compare with; give at least {LEAST}")


def measure(
    subject: Subject,
    chosen: Sequence[Candidate],
    receipt: MeasureReceipt,
    *,
    real: Real | None = None,
    refused: Sequence[Refused] = (),
    tolerance: float = TOLERANCE,
    say: Say = lambda line: None,
) -> SamplerTable:
    """Draw from every candidate and compare.

    Args:
        subject: The model.
        chosen: The candidates.
        receipt: Number of samples, and facts to record; what is measured here is filled in.
        real: Held-out data.
        refused: Candidates that are out already.
        tolerance: Tolerance of the converged flow.
        say: Told of each row as it is done.

    Raises:
        ValueError: Too few samples or data.
    """
    n = receipt.count
    require_enough(n, real)
    out, flow = list(refused), None
    try:
        flow = converged_flow(subject, n, tolerance=tolerance)
    except ValueError as error:
        out.append(Refused("the converged flow", None, str(error)))
    rows: list[SamplerRow] = []
    sharp: list[Jackknifed | None] = []
    for k, candidate in enumerate(chosen):
        same = next((i for i, row in enumerate(rows) if row.sampler == candidate.sampler), None)
        if same is not None:  # an order or grid that the sampler of the name has by itself at some numbers of calls
            rows.append(replace(rows[same], name=candidate.name, variant=candidate.variant))
            sharp.append(sharp[same])
            continue
        found = _measured(subject, candidate, n, flow, real)
        if isinstance(found, tuple):
            rows.append(found[0])
            sharp.append(found[1])
            say(f"{k + 1}/{len(chosen)} {describe(found[0])}")
        else:
            out.append(found)
            say(f"{k + 1}/{len(chosen)} {found.name}: {found.reason}")
    receipt = replace(
        receipt,
        reference=flow.sampler if flow else None,
        reference_error=flow.error if flow else None,
        seconds_per_call=subject.seconds_per_call(min(n, subject.batch_size)),
    )
    return SamplerTable(tuple(with_fronts(rows, sharp)), tuple(out), receipt)


def describe(row: SamplerRow) -> str:
    """One line of what was measured."""
    parts = [f"{row.title}: {row.calls:.4g} calls, {row.seconds:.3g} s"]
    for name, value in (("error", row.error), ("to data", row.to_data), ("to flow", row.to_flow)):
        if value is not None:
            parts.append(f"{name} {value.number:.3g} +- {STANDARD_ERRORS * value.std_error:.2g}")
    return ", ".join(parts)


def _measured(
    subject: Subject, candidate: Candidate, n: int, flow: Converged | None, real: Real | None
) -> tuple[SamplerRow, Jackknifed | None] | Refused:
    """A row and the distance that fronts are made of, where no sample failed."""
    title = f"{candidate.name}, {candidate.variant}" if candidate.variant else candidate.name
    try:
        drawn = subject.draw(candidate.sampler, 0, n)
    except (ValueError, TypeError, RuntimeError) as error:
        return Refused(title, None, str(error))
    ok, calls = (drawn.status == 0) & torch.isfinite(drawn.x).all(dim=1), float(drawn.calls.double().mean())
    if flow is not None:
        ok = ok & flow.ok
    if int(ok.sum()) < LEAST:
        return Refused(title, round(calls), f"{n - int(ok.sum())} of {n} samples failed: {_why(drawn.status)}")
    values: dict[str, Any] = {}
    distance = None
    x = drawn.x[ok]
    if real is not None:
        distance = real.distance(x)
        values["to_data"] = _number(distance)
    if flow is not None:
        base = flow.end(candidate.sampler.final)[ok]
        to_flow = paired_energy_distance(x, base)
        values["to_flow"] = _number(to_flow)
        if distance is not None and real is not None:
            values["beyond_flow"] = _number(distance.minus(real.distance(base)))
        distance = distance or to_flow
        if candidate.deterministic:
            values["error"], values["spread"] = trajectory_error(x, base)
    row = SamplerRow(
        candidate.name, candidate.variant, candidate.sampler, calls, drawn.seconds / n, candidate.deterministic,
        failed=n - int(ok.sum()), **values,
    )  # fmt: skip
    return row, distance if bool(ok.all()) else None


def trajectory_error(x: Tensor, base: Tensor) -> tuple[Measured, tuple[float, float]]:
    """Root mean square difference over samples and dimensions, and median and 95th percentile over samples.

    Its standard error, by the delta method, is that of the mean square over twice the root.

    Args:
        x: End states, (n, D).
        base: Those of the converged flow.
    """
    squares = (x - base).square().mean(dim=1)
    root = float(squares.mean().sqrt())
    error = float(squares.std()) / len(x) ** 0.5 / (2.0 * root) if root else 0.0
    middle, high = (float(v) for v in squares.sqrt().quantile(torch.tensor([0.5, 0.95], dtype=squares.dtype)))
    return Measured(root, error), (middle, high)


def with_fronts(rows: Sequence[SamplerRow], distances: Sequence[Jackknifed | None]) -> list[SamplerRow]:
    """Mark the rows that no cheaper row makes superfluous.

    Args:
        rows: The rows.
        distances: Their distances, None for those that failed anywhere; these are on no front.
    """
    out = []
    pairs = list(zip(rows, distances, strict=True))
    for row, own in pairs:
        others = [(q, d) for q, d in pairs if q is not row and not q.failed and q.calls <= row.calls]
        error = row.error is not None and not row.failed
        error = error and not any(_as_good(q, row) for q, _ in others)
        distance = own is not None and all(
            _beats(own, d) if q.calls < row.calls else own.number < d.number for q, d in others if d is not None
        )
        out.append(replace(row, best_error=error, best_distance=distance))
    return out


def _as_good(a: SamplerRow, b: SamplerRow) -> bool:
    """Whether the error of a, which costs no more, is no larger."""
    return a.error is not None and b.error is not None and a.error.number <= b.error.number


def _beats(a: Jackknifed, b: Jackknifed) -> bool:
    """Whether a is smaller by more than the noise of their difference."""
    difference = b.minus(a)
    return difference.number > STANDARD_ERRORS * difference.std_error


def _number(found: Jackknifed) -> Measured:
    return Measured(found.number, found.std_error)


def _why(status: Tensor) -> str:
    reasons = [f"{int((status == code).sum())} {STATUS[code]}" for code in range(1, len(STATUS))]
    return ", ".join(r for r in reasons if not r.startswith("0 ")) or "not finite"
