"""y = A(x) + noise, in the units in which it was measured, and as a model sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.inverse.noise import GaussianNoise, MeasurementNoise
from scorefield.inverse.operators.from_files import operator_of
from scorefield.inverse.operators.operator import Function, LinearOperator, Operator, Rescaled, RowScaled
from scorefield.inverse.operators.pixels import Mask, Matrix


@dataclass(frozen=True)
class Observation:
    """y = A(x) + noise.

    A matrix, a function or a name stands for an operator, and a number for normal noise; they become one when the shape
    of an example is known, in `for_examples`, which a model calls.

    Args:
        operator: A: an `Operator`; a matrix (M, D) of flattened examples; a differentiable function of a batch
            (B, *event); or a name such as "blur:sigma=2" or "mask:right", with the files that it names.
        observed: y, (*observed) for one example, or (B, *observed), one row per example. For a mask also whole
            examples, of which the known part is taken.
        noise: Distribution of y given A(x), or the standard deviation of normal noise in the units of y.

    Raises:
        ValueError: y does not have the shape that A gives, is complex or not finite, or is impossible under the noise.
    """

    operator: Operator
    observed: Tensor
    noise: MeasurementNoise

    if TYPE_CHECKING:

        def __init__(
            self,
            operator: Operator | Tensor | np.ndarray | Callable[[Tensor], Tensor] | str,
            observed: Tensor | np.ndarray,
            noise: MeasurementNoise | float,
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.noise, (int, float)):
            object.__setattr__(self, "noise", GaussianNoise(float(self.noise)))
        y = torch.as_tensor(self.observed)
        if y.is_complex():
            raise ValueError(
                "y is complex, and operators give real numbers; FourierMask(...).observe(spectrum) makes y of measured"
                " frequencies"
            )
        y = y if y.is_floating_point() else y.double()  # which holds counts of any size
        object.__setattr__(self, "observed", y)
        if not isinstance(self.operator, Operator):  # checked in `for_examples`
            return
        shape, wanted = tuple(y.shape), self.operator.observed
        if shape != wanted and shape[1:] != wanted:
            whole = shape[-len(self.operator.event) :] == self.operator.event and hasattr(self.operator, "observe")
            raise ValueError(
                f"y has shape {shape}, and the operator gives {wanted} for an example of shape {self.operator.event};"
                f" give y of shape {wanted}, or (n, {', '.join(map(str, wanted))}) for n examples"
                + ("; operator.observe(...) takes it from whole examples" if whole else "")
            )
        if not bool(torch.isfinite(self.observed).all()):
            raise ValueError("y has NaN or infinite values; leave what was not measured out with a Mask")
        self.noise.check(self.observed)

    def for_examples(self, event: tuple[int, ...]) -> Observation:
        """This observation with an `Operator` for examples of this shape.

        Args:
            event: Shape of one example in data units.

        Raises:
            ValueError: The name is unknown, or the matrix or y does not fit examples of this shape.
            FileNotFoundError: A file that the name names does not exist.
        """
        given: Any = self.operator
        if isinstance(given, Operator):
            return self
        if isinstance(given, str):
            operator = operator_of(given, event)
        elif isinstance(given, (Tensor, np.ndarray)):
            operator = Matrix(torch.as_tensor(given), event)
        elif callable(given):
            operator = Function(cast("Callable[[Tensor], Tensor]", given), event)
        else:
            raise TypeError(
                f"a {type(given).__name__} is no operator; give an Operator, a matrix, a function of a batch or a name"
            )
        y = self.observed
        if isinstance(operator, Mask) and y.shape[-len(event) :] == torch.Size(event) != torch.Size(operator.observed):
            y = operator(y if y.ndim > len(event) else y[None])
            y = y if self.observed.ndim > len(event) else y[0]
        return Observation(operator, y, self.noise)

    @classmethod
    def whitened(cls, operator: Operator, observed: Tensor, std: Tensor) -> Observation:
        """y with normal noise of another deviation at every entry: y / std = A(x) / std + noise of deviation 1.

        Its likelihood is that of y / std, smaller than that of y by the sum of log std.

        Args:
            operator: A.
            observed: y, as above.
            std: Standard deviations in the units of y, (*observed) or what broadcasts to it, positive.

        Raises:
            ValueError: std does not fit, or is not positive and finite.
        """
        std = torch.as_tensor(std)
        if not bool(((std > 0) & torch.isfinite(std)).all()):
            raise ValueError("the deviations of the entries of y must be positive and finite; leave others out by Mask")
        try:
            std = std.expand(operator.observed)
        except RuntimeError:
            raise ValueError(f"{tuple(std.shape)} deviations are given for y of shape {operator.observed}") from None
        if isinstance(operator, LinearOperator):
            scaled: Operator = RowScaled(operator, 1.0 / std)
        else:
            scaled = Function(lambda x: operator(x) / std.to(x), operator.event)
        return cls(scaled, torch.as_tensor(observed) / std, GaussianNoise(1.0))

    @property
    def linear(self) -> bool:
        """Whether A is linear."""
        return isinstance(self.operator, LinearOperator)

    @property
    def gaussian(self) -> bool:
        """Whether the noise is normal with a known deviation."""
        return isinstance(self.noise, GaussianNoise)

    @property
    def batch(self) -> int | None:
        """Number of examples with a y of their own; None where one y is for all."""
        return None if tuple(self.observed.shape) == self.operator.observed else len(self.observed)

    def rows(self, keep: Tensor | slice | list[int]) -> Observation:
        """The observations of some examples; itself where one y is for all."""
        return self if self.batch is None else replace(self, observed=self.observed[keep])

    def y(self, like: Tensor) -> Tensor:
        """y for a batch like `like`, (B, *observed), its dtype and device.

        Raises:
            ValueError: There are as many y as other examples.
        """
        y = self.observed.to(like)
        if self.batch is None:
            return y.expand(len(like), *self.operator.observed)
        if self.batch != len(like):
            raise ValueError(f"{self.batch} observations for a batch of {len(like)}; use observation.rows(...)")
        return y

    def log_likelihood(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(y | x) with its constants, (B,), differentiable in x; of the y given, row by row, if any is."""
        return self.noise.log_prob(self.y(x) if y is None else y, self.operator(x))

    def residual(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """y - A(x), (B, *observed)."""
        return (self.y(x) if y is None else y) - self.operator(x)

    def in_model_units(self, spec: DataSpec) -> Observation:
        """This observation of an example in model units: A and y absorb the map to data units, the noise stays.

        Args:
            spec: What the data are. Where they have bounds and A is monotone, they bound A(x), and y must be within the
                noise.

        Raises:
            ValueError: The operator is for examples of another shape, or y is far from what the data can give.
        """
        inner = self.operator
        if inner.event != spec.shape:
            raise ValueError(f"the operator is for examples of shape {inner.event}; the model has {spec.shape}")
        self._check_range(spec)
        # A x = A (m / slope) + A (x at m = 0), and the last is a constant that y gives up. Noise whose distribution
        # depends on A(x) itself, as counts do, needs the whole and cannot give it up.
        if not isinstance(inner, LinearOperator) or not self.noise.shift_invariant:
            return replace(self, operator=Function(lambda m: inner(spec.to_data(m)), spec.shape))
        slope, _ = spec.affine()
        origin = inner(spec.to_data(torch.zeros(1, *spec.shape, dtype=torch.float64)))[0]
        # float64, so that a small signal on a large offset loses no digits.
        y = self.observed.double() - origin.to(self.observed.device)
        return replace(self, operator=Rescaled(inner, slope), observed=y)

    def _check_range(self, spec: DataSpec) -> None:
        if not spec.bounded or not self.operator.monotone:
            return
        ends = torch.tensor(spec.model_range, dtype=torch.float64).reshape(2, *(1,) * len(spec.shape))
        low, high = self.operator(spec.to_data(ends.expand(2, *spec.shape)))
        slack = 0.1 * (high - low) + 20.0 * self.noise.variance(high).sqrt()
        y = self.observed.double().cpu()
        if bool(((y < low - slack) | (y > high + slack)).any()):
            units = f" ({spec.units})" if spec.units else ""
            raise ValueError(
                f"y ranges from {float(y.min()):g} to {float(y.max()):g}, and data between {spec.low} and {spec.high}"
                f"{units} give values from {float(low.min()):g} to {float(high.max()):g}, with noise of deviation"
                f" {float(self.noise.variance(high).max()) ** 0.5:g}; give y and its noise in data units"
            )
