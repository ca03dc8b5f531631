"""Records of measured samplers: the table of a model and its tuned sampler, with their receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from scorefield._codec import record
from scorefield.metrics.receipt import ReferenceFacts, short
from scorefield.sampling.sampler import Sampler

TABLE, TUNED = "samplers.json", "sampler.json"
"""Files of a model folder: the measured table, and the tuned sampler."""

STANDARD_ERRORS = 1.96
"""Half the width of an interval of 95 %."""


@record(tag="MeasuredNumber")
class Measured:
    """A number with its standard error.

    Args:
        number: The value.
        std_error: Its standard error; 0 where it is exact.
    """

    number: float
    std_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        half = STANDARD_ERRORS * self.std_error
        return self.number - half, self.number + half


@record
class MeasureReceipt:
    """Everything on which measurements of a model's samplers depend.

    Args:
        model: Name of the model.
        model_hash: Hash of its weights; a table of other weights is not used.
        weights: Name of the weights.
        count: Samples of each sampler, n.
        seed: Seed of their noise, equal for all samplers.
        data: The held-out data compared with; None where there are none.
        reference: The sampler that stands for the converged flow; None where the model has no flow.
        reference_error: Root mean square change of its samples when its tolerance is ten times as large, model units.
        seconds_per_call: Time of one network call per example, on the machine of `environment`.
        batch_size: Samples at a time.
        environment: Machine, threads, versions.
    """

    model: str
    model_hash: str | None
    weights: str | None
    count: int
    seed: int
    data: ReferenceFacts | None = None
    reference: Sampler | None = None
    reference_error: float | None = None
    seconds_per_call: float = 0.0
    batch_size: int = 128
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference_uncertainty(self) -> float:
        """Error of the converged flow, about: errors are in proportion to the tolerance, so 1 / 9 of that change."""
        return (self.reference_error or 0.0) / 9.0

    def lines(self) -> tuple[tuple[str, str], ...]:
        """(what, text) for reading."""
        data = self.data
        facts = [
            ("model", self.model),
            ("weights", self.weights),
            ("model hash", short(self.model_hash) if self.model_hash else None),
            ("samples of each sampler", str(self.count)),
            ("seed", str(self.seed)),
            ("data", f"{data.name}, {data.count} examples, hash {short(data.hash)}" if data else "none"),
            ("units", "model units"),
            ("converged flow", f"{self.reference.step}" if self.reference else "none: the model has no flow"),
            ("its own error, about", f"{self.reference_uncertainty:.2g}" if self.reference_error is not None else None),
            ("seconds per call and example", f"{self.seconds_per_call:.3g}"),
            ("batch size", str(self.batch_size)),
        ]
        return tuple((what, text) for what, text in facts if text is not None)


@record
class SamplerRow:
    """Measurements of one sampler.

    Distances are squared energy distances in model units; 0 is best.

    Args:
        name: Its name.
        variant: What differs from the sampler of that name: order or grid; "" for nothing.
        sampler: The sampler itself.
        calls: Network calls per sample, the mean.
        seconds: Per sample.
        deterministic: Whether its steps draw no noise, and so follow the flow.
        error: Root mean square over samples and dimensions of the difference from the converged flow out of the same
            latents, model units; None for what draws noise.
        spread: Medians and 95th percentiles of that error over samples.
        to_data: Distance to the held-out data.
        beyond_flow: `to_data` minus the same of the converged flow; paired, so much better known than either.
        to_flow: Distance to the converged flow's samples.
        failed: Samples that did not succeed and were left out.
        best_error: No cheaper row has an error as small.
        best_distance: It is nearer to the data (to the flow, where there are none) than every cheaper row by more than
            the noise.
    """

    name: str
    variant: str
    sampler: Sampler
    calls: float
    seconds: float
    deterministic: bool
    error: Measured | None = None
    spread: tuple[float, float] | None = None
    to_data: Measured | None = None
    beyond_flow: Measured | None = None
    to_flow: Measured | None = None
    failed: int = 0
    best_error: bool = False
    best_distance: bool = False

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.name}, {self.variant}" if self.variant else self.name


@record(tag="SamplerRefused")
class Refused:
    """A sampler that could not be measured.

    Args:
        name: Its name and variant.
        calls: The number of calls asked for, where it depends on that.
        reason: Why.
    """

    name: str
    calls: int | None
    reason: str


@record
class SamplerTable:
    """Everything measured of a model's samplers.

    Args:
        rows: One per sampler and number of calls.
        refused: What could not be measured.
        receipt: What the numbers depend on.
    """

    rows: tuple[SamplerRow, ...]
    refused: tuple[Refused, ...]
    receipt: MeasureReceipt


@record
class Tried:
    """One value that tuning tried.

    Args:
        what: The setting.
        value: Its value, as text.
        distance: The criterion.
        difference: Paired difference to the best value of this setting; 0 for the best itself.
    """

    what: str
    value: str
    distance: Measured
    difference: Measured


@record
class TunedSampler:
    """A sampler whose settings were chosen by measurement.

    Args:
        sampler: What to use.
        criterion: What was made small.
        before: The sampler that tuning began with.
        gain: Criterion of `before` minus that of `found`, on fresh noise.
        found: The best sampler of the search, adopted if the gain is beyond its noise.
        adopted: Whether it was.
        conclusion: What was found, in sentences, with the range of values that could not be distinguished.
        tried: The search.
        receipt: What the numbers depend on.
    """

    sampler: Sampler
    criterion: str
    before: Sampler
    gain: Measured
    found: Sampler
    adopted: bool
    conclusion: tuple[str, ...]
    tried: tuple[Tried, ...]
    receipt: MeasureReceipt
