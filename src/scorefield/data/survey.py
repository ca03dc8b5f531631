"""One pass over examples for their statistics, and the DataSpec that follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from scorefield.data.readers.content import Arrays, Content
from scorefield.data.rows import ArrayRows, ImageRows, Rows, chunks
from scorefield.data.source import DataError, DataSource
from scorefield.data_spec import ConditionSpec, DataSpec

_EXACT = 2.0**24  # float32 holds every whole number up to here


@dataclasses.dataclass(frozen=True)
class Survey:
    """Statistics per channel (axis 0 of an example) over examples without NaN or infinity.

    Attributes:
        mean: (C,), float64.
        deviation: Population standard deviation, (C,).
        low: Smallest value, (C,).
        high: Largest value, (C,).
        bad: Indices of the examples that hold NaN or infinity.
        count: Number of examples looked at.
    """

    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bad: np.ndarray
    count: int


class Moments:
    """Mean and sum of squared deviations per channel, merged chunk by chunk (Chan, Golub & LeVeque 1983, eq. 2.1)."""

    def __init__(self, channels: int):
        self.n = 0
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)

    def add(self, x: np.ndarray) -> np.ndarray:
        """Take in examples (B, C, ...); returns which of them hold NaN or infinity and were left out, bool (B,)."""
        flat = x.reshape(len(x), x.shape[1], -1).astype(np.float64)
        good = np.isfinite(flat).all(axis=(1, 2))
        flat = flat[good]
        if flat.size:
            n = flat.shape[0] * flat.shape[2]
            mean = flat.mean(axis=(0, 2))
            squares = ((flat - mean[:, None]) ** 2).sum(axis=(0, 2))
            shift = mean - self.mean
            self.squares += squares + shift**2 * (self.n * n / (self.n + n))
            self.mean = self.mean + shift * (n / (self.n + n))
            self.n += n
            self.low = np.minimum(self.low, flat.min(axis=(0, 2)))
            self.high = np.maximum(self.high, flat.max(axis=(0, 2)))
        return np.logical_not(good)

    @property
    def deviation(self) -> np.ndarray:
        """Population standard deviation."""
        return np.sqrt(self.squares / max(1, self.n))


def survey(rows: Rows, indices: np.ndarray) -> Survey:
    """Read the given examples once."""
    moments = Moments(rows.shape[0])
    bad = [part[moments.add(x)] for part, x in chunks(rows, indices)]
    return Survey(
        moments.mean, moments.deviation, moments.low, moments.high, np.concatenate(bad or [indices[:0]]), len(indices)
    )


def spec_of(
    rows: Rows, content: Content, source: DataSource, seen: Survey | None, conditions: tuple[ConditionSpec, ...]
) -> DataSpec:
    """The DataSpec of a training set: units from the source, else from the format, else standardised.

    Args:
        rows: The examples.
        content: What the reader found.
        source: Overrides.
        seen: Statistics of the training examples; None where `needs_survey` says that they are not needed.
        conditions: Named conditions.

    Raises:
        DataError: Whole numbers without a range, a range that values leave, levels between which values lie.
    """
    low, high, levels = _range(rows, content, source, seen)
    fixed = {
        "shape": rows.shape,
        "channel_names": source.channel_names,
        "units": source.units,
        "model_range": source.model_range,
        "conditions": conditions,
    }
    try:
        if low is not None:
            return DataSpec(low=low, high=high, levels=levels, **fixed)
        assert seen is not None
        # A constant channel has no scale of its own: it is only centred.
        scale = np.where(seen.deviation > 0, seen.deviation, 1.0)
        return DataSpec(offset=_tuple(seen.mean), scale=_tuple(scale), **fixed)
    except ValueError as error:
        raise DataError(f"data: {error}") from error


def _tuple(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def needs_survey(rows: Rows, content: Content, source: DataSource) -> bool:
    """Whether values must be read before they can be trusted: all but 8-bit data with the range of their format."""
    return rows.dtype != np.uint8 or source.low is not None or source.levels is not None


def _range(rows: Rows, content: Content, source: DataSource, seen: Survey | None) -> tuple:
    """(low, high, levels); low None for unbounded values."""
    if (source.low is None) != (source.high is None):  # not checked by the record, whose fields are set one at a time
        raise DataError(f"give both data.low and data.high or neither; got {source.low} and {source.high}")
    given = source.low is not None
    if isinstance(rows, ImageRows):
        if given or source.levels is not None:
            raise DataError("image files have grey levels 0 to 255: data.low, data.high and data.levels are for arrays")
        return 0.0, 255.0, 256
    assert isinstance(rows, ArrayRows) and isinstance(content, Arrays)
    whole = rows.stored.kind in "iub"
    resized = source.size is not None and rows.dtype != np.uint8
    if given:
        levels = source.levels
        if levels is None and whole and not resized and not isinstance(source.low, tuple):
            levels = round(float(source.high) - float(source.low)) + 1  # type: ignore[arg-type]
        if levels is not None and levels < 2:
            raise DataError(f"data.low={source.low} and data.high={source.high} leave {levels} grey levels")
        return source.low, source.high, levels
    if content.grey is not None:
        low, high, levels = content.grey
        return low, high, None if resized else levels
    if rows.stored == np.bool_:
        return 0.0, 1.0, None if resized else 2
    if rows.stored == np.uint8:
        return 0.0, 255.0, source.levels or 256
    if whole:
        assert seen is not None
        a, b = seen.low.min(), seen.high.max()
        raise DataError(
            f"{content.name} holds whole numbers ({rows.stored}) from {a:g} to {b:g}, which does not say how they are"
            f" quantised: set data.low and data.high (such as data.low={a:g} data.high={b:g}, grey levels one apart),"
            " or save as float32 for unbounded values"
        )
    if source.levels is not None:
        raise DataError(f"data.levels={source.levels} needs data.low and data.high too")
    return None, None, None


def check_values(rows: Rows, indices: np.ndarray, seen: Survey, spec: DataSpec) -> None:
    """Refuse values that contradict the spec.

    Raises:
        DataError: Values outside [low, high], off the grey levels, or too large for float32 to tell apart.
    """
    if isinstance(rows, ArrayRows) and rows.stored.kind in "iu" and max(-seen.low.min(), seen.high.max()) > _EXACT:
        raise DataError(
            f"{rows.describe(0)}: whole numbers beyond {_EXACT:.0f} are not exact in float32, the type of training"
        )
    if not spec.bounded:
        return
    low, high = (np.broadcast_to(np.asarray(v, np.float64), (spec.shape[0],)) for v in (spec.low, spec.high))
    slack = 1e-6 * (high - low)
    if (outside := (seen.low < low - slack) | (seen.high > high + slack)).any():
        c = int(np.flatnonzero(outside)[0])
        found = f"channel {c} of the data ranges from {seen.low[c]:g} to {seen.high[c]:g}"
        raise DataError(f"{found}, outside data.low={low[c]:g} to data.high={high[c]:g}")
    if spec.levels is None:
        return
    over = (slice(None),) + (None,) * (len(spec.shape) - 1)
    for part, x in chunks(rows, indices):
        unit = (x - low[over]) / (high - low)[over] * (spec.levels - 1)
        off = np.abs(unit - np.rint(unit)) > 1e-3
        if off.any():
            row = int(np.flatnonzero(off.reshape(len(x), -1).any(axis=1))[0])
            value = float(x[row][off[row]][0])
            raise DataError(
                f"{rows.describe(part[row])} holds {value:g}, which is none of the {spec.levels} grey levels from"
                f" data.low={spec.low} to data.high={spec.high}; leave data.levels out for continuous values"
            )


def conditions_of(contents: Sequence[Content], source: DataSource) -> tuple[ConditionSpec, ...]:
    """Conditions of each example of a conditional source, from all its splits; empty for any other.

    Labels are the condition "class", numbers the condition "y".

    Raises:
        DataError: Neither.
    """
    if not source.conditional:
        return ()
    numbers = [c.numbers for c in contents if isinstance(c, Arrays) and c.numbers is not None]
    if len(numbers) == len(contents) and len({part.shape[1] for part in numbers}) == 1:
        return (ConditionSpec("y", "vector", numbers[0].shape[1]),)
    labels = [c.labels for c in contents if c.labels is not None]
    if len(labels) < len(contents):
        raise DataError(
            f"{source.path}: data.conditional=true, and these data have no labels; put images into one folder per"
            " class, or name the labels with data.label_key"
        )
    names = contents[0].class_names
    size = max(int(part.max(initial=-1)) for part in labels) + 1
    if size < 1:
        raise DataError(f"{source.path}: data.conditional=true, and every label is -1 (unknown)")
    if names is not None and len(names) < size:
        raise DataError(f"{source.path}: labels go up to {size - 1} and there are {len(names)} class names")
    return (ConditionSpec("class", "class", size if names is None else len(names), names),)
