"""Description of the data: shape, range, grey levels, units, and the two maps between data units and model units.

A value x in data units corresponds to m in model units, the units in which noise levels are given:

    bounded data, low <= x <= high   m = a + (b - a) (x - low) / (high - low) with (a, b) = model_range
    unbounded data                   m = (x - offset) / scale

Quantised data have `levels` grey levels k = (levels - 1) (x - low) / (high - low). Training uses k / (levels - 1),
which is in [0, 1], mapped to the model range. Likelihoods use dequantised data, (k + u) / levels with u uniform on [0,
1) (Theis et al. 2016), which is in [0, 1), and in which the bin of one level has the width 1 / levels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record

PerChannel = float | tuple[float, ...]
"""One number for all channels, or one per channel."""


@record
class ConditionSpec:
    """The specification of one condition, which every example has.

    Args:
        name: Name of the condition, its key in the condition mapping.
        kind: "class" (int64 labels in 0..size-1, -1 for unknown), "vector" (`size` numbers) or "image" (`size` channels
            with the spatial sizes of the event).
        size: Number of classes, of numbers or of channels.
        class_names: Names of the classes, if known.

    Raises:
        ValueError: The size is not positive, or the class names do not fit the kind and the size.
    """

    name: str
    kind: Literal["class", "vector", "image"]
    size: int
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"condition {self.name!r} has size {self.size}; it must be at least 1")
        if self.class_names is not None and (self.kind != "class" or len(self.class_names) != self.size):
            raise ValueError(
                f"condition {self.name!r} is a {self.kind} of size {self.size}, and {len(self.class_names)} class names"
                " are given; give one name per class, and names for classes only"
            )


@record
class DataSpec:
    """Shape, range, quantisation and units of one example, and the maps to and from model units.

    Args:
        shape: Event shape: (D,) for vectors, (C, L) for signals, (C, H, W) for images.
        low: Smallest possible value in data units: one number, or one per channel, the first axis of the event (for a
            vector, one per number); None for unbounded data.
        high: Largest possible value in data units; None if and only if `low` is None.
        levels: Number of equally spaced grey levels from low to high; None for continuous data.
        channel_names: One name per channel.
        units: Physical unit of the values, for labels in plots and reports.
        offset: For unbounded data: the value that is subtracted before the division by `scale`, in data units.
        scale: For unbounded data: the length of one model unit in data units.
        model_range: For bounded data: the values of low and high in model units.
        conditions: Specifications of the conditions that come with each example.

    Raises:
        ValueError: The fields contradict each other; the message names them.
    """

    shape: tuple[int, ...]
    low: PerChannel | None = None
    high: PerChannel | None = None
    levels: int | None = None
    channel_names: tuple[str, ...] | None = None
    units: str | None = None
    offset: PerChannel = 0.0
    scale: PerChannel = 1.0
    model_range: tuple[float, float] = (-1.0, 1.0)
    conditions: tuple[ConditionSpec, ...] = ()

    def __post_init__(self) -> None:
        for name in ("shape", "low", "high", "channel_names", "offset", "scale", "model_range", "conditions"):
            if isinstance(value := getattr(self, name), list):  # lists cannot be hashed
                object.__setattr__(self, name, tuple(value))
        if not self.shape or any(n < 1 for n in self.shape):
            raise ValueError(f"shape {self.shape} must be one or more positive sizes, for example (3, 32, 32)")
        for name in ("low", "high", "offset", "scale", "channel_names"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.shape[0]:
                raise ValueError(
                    f"{name} has {len(value)} values for {self.shape[0]} channels (the first axis of shape"
                    f" {self.shape}); give one per channel"
                )
        if len({condition.name for condition in self.conditions}) < len(self.conditions):
            raise ValueError(
                f"two conditions share a name: {', '.join(c.name for c in self.conditions)}; give each its own name"
            )
        if self.levels is not None and (self.levels < 2 or not self.bounded):
            raise ValueError(
                f"levels={self.levels} needs low and high, between which the levels are, and at least two levels"
            )
        if self.bounded:
            self._check_bounded()
        else:
            self._check_unbounded()

    def _check_bounded(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError(f"give both low and high or neither; got low={self.low}, high={self.high}")
        width = self._channels("high") - self._channels("low")
        if not bool(((width > 0) & width.isfinite()).all()):
            raise ValueError(f"low must be below high, both finite; got low={self.low}, high={self.high}")
        if not self.model_range[0] < self.model_range[1]:
            raise ValueError(f"model_range must increase; got {self.model_range}")
        if (self.offset, self.scale) != (0.0, 1.0):
            raise ValueError(
                f"low={self.low} and high={self.high} already define the map of the data to"
                f" model_range={self.model_range}; offset and scale are for unbounded data (low=None, high=None)"
            )

    def _check_unbounded(self) -> None:
        offset, scale = self._channels("offset"), self._channels("scale")
        if not bool((offset.isfinite() & scale.isfinite() & (scale > 0)).all()):
            raise ValueError(f"scale must be positive and offset finite; got scale={self.scale}, offset={self.offset}")
        if self.model_range != (-1.0, 1.0):
            raise ValueError(
                f"model_range={self.model_range} is the range of low and high in model units, and these data are"
                " unbounded; give offset and scale, or low and high"
            )

    # ------------------------------------------------------------------------------------------- properties

    @property
    def bounded(self) -> bool:
        """Whether values have a smallest and largest value."""
        return self.low is not None or self.high is not None

    @property
    def dimension(self) -> int:
        """Number of scalars in one example, D."""
        return math.prod(self.shape)

    @property
    def quantisation_step(self) -> Tensor | None:
        """Distance between neighbouring grey levels in data units, (C,) float64; None for continuous data."""
        if self.levels is None:
            return None
        return (self._channels("high") - self._channels("low")) / (self.levels - 1)

    def _channels(self, name: str) -> Tensor:
        """The field `name` with one value per channel, (C,) float64."""
        value = torch.as_tensor(getattr(self, name), dtype=torch.float64)
        return value.expand(self.shape[0]) if value.ndim == 0 else value

    def _over(self, per_channel: Tensor, x: Tensor) -> Tensor:
        """Values of shape (C,) with the axes, the device and the dtype with which they multiply x."""
        shaped = per_channel.reshape((self.shape[0],) + (1,) * (len(self.shape) - 1))
        return shaped.to(device=x.device, dtype=x.dtype)

    # ------------------------------------------------------------------------------------------- maps

    def affine(self) -> tuple[Tensor, Tensor]:
        """(slope, intercept) of model = slope * data + intercept, per channel, (C,) float64; without dequantisation."""
        if not self.bounded:
            scale = self._channels("scale")
            return 1.0 / scale, -self._channels("offset") / scale
        a, b = self.model_range
        slope = (b - a) / (self._channels("high") - self._channels("low"))
        return slope, a - slope * self._channels("low")

    def to_model(self, x: Tensor) -> Tensor:
        """Convert data units to model units, (B, *shape) -> (B, *shape); integers become float32."""
        x = x if x.is_floating_point() else x.to(torch.float32)
        slope, intercept = self.affine()
        return x * self._over(slope, x) + self._over(intercept, x)

    def to_data(self, m: Tensor) -> Tensor:
        """Convert model units to data units, (B, *shape) -> (B, *shape): the inverse of `to_model`; not clipped."""
        slope, intercept = self.affine()
        return (m - self._over(intercept, m)) / self._over(slope, m)

    def dequantise(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Add uniform noise within the bin of each grey level: (k + u) / levels, mapped to the model range.

        Args:
            x: Grey values in data units, shape (B, *shape).
            uniform: u in [0, 1), shape of x.

        Returns:
            Dequantised data in model units, shape of x.

        Raises:
            ValueError: The data are continuous, or a value is between two grey levels.
        """
        step = self.quantisation_step
        if self.levels is None or step is None:
            raise ValueError(
                "only data with grey levels can be dequantised, and this DataSpec has levels=None; give it low, high"
                " and levels, or use to_model for continuous data"
            )
        x = x if x.is_floating_point() else x.to(torch.float32)
        level = (x - self._over(self._channels("low"), x)) / self._over(step, x)
        k = level.round()
        if bool(((level - k).abs() > 0.02).any()):
            raise ValueError(
                f"values between the {self.levels} grey levels cannot be dequantised, because bits per dimension count"
                " whole levels. Round the values to grey levels, or use a DataSpec with levels=None"
            )
        a, b = self.model_range
        return a + (b - a) * (k + uniform) / self.levels

    def log_jacobian(self, *, dequantised: bool) -> float:
        """log |d model / d data|, summed over the event. Added to nats in model units, it gives nats in data units.

        Args:
            dequantised: Whether the density is that of `dequantise(x, u)`, in which the bin of one grey level, 1 /
                levels of the model range, corresponds to one quantisation step in data units; otherwise it is that of
                `to_model(x)`.

        Raises:
            ValueError: `dequantised` is given for data without grey levels.
        """
        per_scalar = self.dimension // self.shape[0]
        slope, _ = self.affine()
        if dequantised:
            if self.levels is None:
                raise ValueError("data without grey levels are never dequantised; call log_jacobian(dequantised=False)")
            slope = slope * (self.levels - 1) / self.levels
        return float(slope.log().sum()) * per_scalar

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Bits per dimension of quantised data from nats in data units: -(nats + D log step) / (D log 2).

        The probability of a bin is the density times the step, so these are the bits of the grey levels themselves
        (Theis et al. 2016, section 3.1). For 8-bit data and nats in model units, they are -nats / (D log 2) + 7 if the
        model range is (-1, 1), and -nats / (D log 2) + 8 if it is (0, 1).

        Args:
            nats: Log density of dequantised data in data units, that is, with log_jacobian(dequantised=True) added; any
                shape.

        Returns:
            Bits per dimension, shape of nats.

        Raises:
            ValueError: The data are continuous, and a density without a quantisation step has no number of bits.
        """
        step = self.quantisation_step
        if step is None:
            raise ValueError(
                "bits/dim needs grey levels, because the density of continuous data depends on their units. Use"
                " LogProb.nats, or give the DataSpec low, high and levels"
            )
        log_steps = float(step.log().sum()) * (self.dimension // self.shape[0])
        return -(nats + log_steps) / (self.dimension * math.log(2.0))

    # ------------------------------------------------------------------------------------------- checks

    def check(self, x: Tensor, *, name: str = "data", values: bool = True) -> None:
        """Refuse data that do not fit this specification.

        Args:
            x: A batch in data units, with the batch as leading axis.
            name: Name of the data, for the message.
            values: Whether the values are checked too, for NaN and for their range.

        Raises:
            ValueError: The event shape differs, or there are NaN, infinities or values outside [low, high]; the message
                contains the values and their place.
        """
        shape, expected = tuple(x.shape[1:]), tuple(self.shape)
        if shape != expected:
            raise ValueError(
                f"{name} has event shape {shape}, and the model takes {expected}; give a batch of shape"
                f" (B, {', '.join(map(str, expected))})"
            )
        if not values or not x.numel():
            return
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            bad = (~torch.isfinite(x)).flatten(1).any(dim=1).nonzero()[:3, 0].tolist()
            raise ValueError(
                f"{name} has NaN or infinite values, first in examples {bad}; remove these examples or"
                " replace the values"
            )
        if self.bounded:
            self._check_range(x.transpose(0, 1).flatten(1), name)

    def _check_range(self, channels: Tensor, name: str) -> None:
        """Refuse values (C, ...) outside the range of their channel by more than rounding in float32 can explain."""
        low, high = self._channels("low"), self._channels("high")
        smallest, largest = channels.amin(dim=1).cpu().double(), channels.amax(dim=1).cpu().double()
        tolerance = 1e-4 * (high - low)
        for c in ((smallest < low - tolerance) | (largest > high + tolerance)).nonzero().flatten().tolist():
            where = f" in channel {self.channel_names[c] if self.channel_names else c}" if self.shape[0] > 1 else ""
            units = f" ({self.units})" if self.units else ""
            raise ValueError(
                f"{name} ranges from {float(smallest[c]):g} to {float(largest[c]):g}{where}, outside"
                f" [{float(low[c]):g}, {float(high[c]):g}], the range of the data of this model{units}; give values in"
                " data units"
            )
