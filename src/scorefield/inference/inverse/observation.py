"""y = A(x) + noise, in the units in which it was measured, and as a model sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.inference.inverse.noise import GaussianNoise, MeasurementNoise
from scorefield.inference.inverse.operators import Function, LinearOperator, Operator, Rescaled


@dataclass(frozen=True)
class Observation:
    """y = A(x) + noise.

    Args:
        operator: A.
        observed: y, (*observed) for one example, or (B, *observed), one row per example.
        noise: Law of y given A(x); `GaussianNoise(std)` in the units of y.

    Raises:
        ValueError: y does not have the shape that A gives, or is not finite, or is impossible under the noise.
    """

    operator: Operator
    observed: Tensor
    noise: MeasurementNoise

    def __post_init__(self) -> None:
        object.__setattr__(self, "observed", torch.as_tensor(self.observed))
        shape, wanted = tuple(self.observed.shape), self.operator.observed
        if shape != wanted and shape[1:] != wanted:
            raise ValueError(
                f"y has shape {shape}, and the operator gives {wanted} for an example of shape {self.operator.event};"
                f" give y of shape {wanted}, or (n, {', '.join(map(str, wanted))}) for n examples"
            )
        if not bool(torch.isfinite(self.observed).all()):
            raise ValueError("y has NaN or infinite values; leave what was not measured out with a Mask")
        self.noise.check(self.observed)

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
        """The same observation of an example in model units: A and y absorb the map to data units, the noise stays.

        Raises:
            ValueError: The operator is for examples of another shape.
        """
        if self.operator.event != spec.shape:
            raise ValueError(f"the operator is for examples of shape {self.operator.event}; the model has {spec.shape}")
        slope, _ = spec.affine()
        if not isinstance(self.operator, LinearOperator):
            inner = self.operator
            return replace(self, operator=Function(lambda m: inner(spec.to_data(m)), spec.shape))
        # A x = A (m / slope) + A (x at m = 0), and the last is a constant that y gives up. Noise whose law depends on
        # A(x) itself, as counts do, needs the whole and cannot give it up.
        if not self.noise.shift_invariant:
            inner = self.operator
            return replace(self, operator=Function(lambda m: inner(spec.to_data(m)), spec.shape))
        origin = self.operator(spec.to_data(torch.zeros(1, *spec.shape, dtype=torch.float64)))[0]
        return replace(self, operator=Rescaled(self.operator, slope), observed=self.observed - origin.to(self.observed))
