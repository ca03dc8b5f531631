"""Operators A of y = A(x) + noise: linear operators with their adjoints, and any function."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.inverse.operators.spectrum import DenseSpectrum, ScaledSpectrum, Spectrum

LARGEST_MATRIX = 2**24
"""Entries of the largest matrix that is made of an operator for its singular values."""


class Operator(ABC):
    """A: (B, *event) -> (B, *observed), differentiable, example by example.

    Args:
        event: Shape of one example.
        observed: Shape of what is seen of it.

    `monotone` says whether larger entries of x never make any of A(x) smaller, so that A of the data's bounds bounds y.
    """

    monotone: bool = False

    def __init__(self, event: tuple[int, ...], observed: tuple[int, ...]):
        self.event, self.observed = tuple(event), tuple(observed)

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """A(x), unchecked."""

    def __call__(self, x: Tensor) -> Tensor:
        """A(x).

        Raises:
            ValueError: x is not a batch of examples, or the operator gives another shape than it declares.
        """
        if tuple(x.shape[1:]) != self.event:
            raise ValueError(f"this operator takes (B, {', '.join(map(str, self.event))}); got {tuple(x.shape)}")
        y = self.apply(x)
        if tuple(y.shape) != (len(x), *self.observed):
            raise ValueError(
                f"the operator gave {tuple(y.shape)} for {len(x)} examples, and says it gives {self.observed} for each"
            )
        return y

    def __matmul__(self, inner: Operator) -> Operator:
        """A @ B: x -> A(B(x)), linear where both are.

        Raises:
            ValueError: B does not give what A takes.
        """
        if inner.observed != self.event:
            raise ValueError(
                f"{type(self).__name__} takes examples of shape {self.event}, and {type(inner).__name__} gives"
                f" {inner.observed}; A @ B applies B first"
            )
        if isinstance(self, LinearOperator) and isinstance(inner, LinearOperator):
            return Composed(self, inner)
        return Function(lambda x: self(inner(x)), inner.event)


class Function(Operator):
    """Any differentiable function of the example.

    Args:
        function: (B, *event) -> (B, *observed), of torch operations.
        event: Shape of one example.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], event: tuple[int, ...]):
        with torch.no_grad():
            observed = tuple(function(torch.zeros(1, *event)).shape[1:])
        super().__init__(event, observed)
        self.function = function

    def apply(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(x)


class LinearOperator(Operator):
    """A x with an adjoint A' and, where it can be had, a singular value decomposition."""

    def adjoint(self, y: Tensor) -> Tensor:
        """A' y, (B, *observed) -> (B, *event), by automatic differentiation unless a class knows better."""
        # torch.func.vjp says the same, and imports torch's compiler first, which takes seconds.
        again = torch.is_grad_enabled() and y.requires_grad
        with torch.enable_grad():
            point = torch.zeros(len(y), *self.event, dtype=y.dtype, device=y.device, requires_grad=True)
            seen = self.apply(point)
            if not seen.requires_grad:  # it does not depend on x
                return torch.zeros_like(point).detach()
            return torch.autograd.grad(seen, point, y, create_graph=again, allow_unused=True, materialize_grads=True)[0]

    def spectrum(self) -> Spectrum:
        """The singular value decomposition, made once: by structure, else of the matrix.

        Raises:
            ValueError: The matrix would be too large.
        """
        if not hasattr(self, "_spectrum"):
            self._spectrum = self._decompose()
        return self._spectrum

    def _decompose(self) -> Spectrum:
        return DenseSpectrum(self.matrix(), self.event, self.observed)

    def matrix(self) -> Tensor:
        """A as a matrix (M, D), float64, column by column.

        Raises:
            ValueError: The matrix would have more than `LARGEST_MATRIX` entries.
        """
        rows, columns = math.prod(self.observed), math.prod(self.event)
        if rows * columns > LARGEST_MATRIX:
            raise ValueError(
                f"the singular values of {type(self).__name__} are those of a matrix of {rows} x {columns}, which is"
                " too large; use a solver without them (dps, diffpir, langevin, twisted)"
            )
        unit = torch.eye(columns, dtype=torch.float64).reshape(columns, *self.event)
        return torch.cat([self.apply(part).flatten(1) for part in unit.split(256)]).T

    def check_adjoint(self, seed: int = 0) -> float:
        """The dot-product test <A x, y> = <x, A' y> at random x and y, float64; also that A is linear.

        Returns:
            The relative difference.

        Raises:
            ValueError: The two differ, or A(2 x + x') is not 2 A x + A x'; the numbers are shown.
        """
        draw = torch.Generator().manual_seed(seed)
        x, other = (torch.randn(1, *self.event, generator=draw, dtype=torch.float64) for _ in range(2))
        y = torch.randn(1, *self.observed, generator=draw, dtype=torch.float64)
        seen = self(x)
        combined, size = self(2.0 * x + other), float(seen.norm()) + 1e-300
        bend = float((combined - 2.0 * seen - self(other)).norm()) / size
        if not bend < 1e-5:
            raise ValueError(
                f"{type(self).__name__} is not linear: A(2x + x') differs from 2 A(x) + A(x') by {bend:.3g} of |A(x)|;"
                " an offset belongs to y, and any differentiable function can be given as Function(f, event)"
            )
        back = self.adjoint(y)
        if tuple(back.shape) != (1, *self.event):
            raise ValueError(
                f"the adjoint of {type(self).__name__} gives {tuple(back.shape)} for y of shape {tuple(y.shape)}; it"
                f" must give (1, {', '.join(map(str, self.event))}), or be left out"
            )
        forward, backward = float((seen * y).sum()), float((x * back).sum())
        gap = abs(forward - backward) / (float(seen.norm() * y.norm()) + 1e-300)
        if not gap < 1e-5:
            raise ValueError(
                f"the adjoint of {type(self).__name__} fails the dot-product test: <A x, y> = {forward:.8g} and"
                f" <x, A' y> = {backward:.8g}; leave the adjoint out and it is derived by automatic differentiation"
            )
        return gap


class Linear(LinearOperator):
    """A linear function given as code.

    Args:
        function: x -> A x, (B, *event) -> (B, *observed).
        event: Shape of one example.
        adjoint: y -> A' y; derived by automatic differentiation if left out.

    Raises:
        ValueError: The function is not linear, or the adjoint fails the dot-product test.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        event: tuple[int, ...],
        adjoint: Callable[[Tensor], Tensor] | None = None,
    ):
        with torch.no_grad():
            observed = tuple(function(torch.zeros(1, *event, dtype=torch.float64)).shape[1:])
        super().__init__(event, observed)
        self.function, self._adjoint = function, adjoint
        self.check_adjoint()

    def apply(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A' y."""
        return super().adjoint(y) if self._adjoint is None else self._adjoint(y)


class Rescaled(LinearOperator):
    """A (x / slope): an operator of data units as one of model units, without the offset, which belongs to y.

    Args:
        operator: A.
        slope: Per channel, (C,): model = slope * data + intercept.
    """

    def __init__(self, operator: LinearOperator, slope: Tensor):
        super().__init__(operator.event, operator.observed)
        self.operator, self.slope, self.monotone = operator, slope, operator.monotone

    def _over(self, x: Tensor) -> Tensor:
        return self.slope.to(x).reshape(-1, *(1,) * (len(self.event) - 1))

    def apply(self, x: Tensor) -> Tensor:
        """A (x / slope)."""
        return self.operator.apply(x / self._over(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """(A' y) / slope."""
        x = self.operator.adjoint(y)
        return x / self._over(x)

    def _decompose(self) -> Spectrum:
        factors = 1.0 / self.slope.double()
        if bool((factors == factors[0]).all()):
            return ScaledSpectrum(self.operator.spectrum(), float(factors[0]))
        if (spectrum := self.operator.spectrum()).by_channel:
            return ScaledSpectrum(spectrum, factors.repeat_interleave(math.prod(self.event[1:])).to(spectrum.values))
        return super()._decompose()


class RowScaled(LinearOperator):
    """w A x: every entry of what is seen times its own positive number.

    Args:
        operator: A.
        weights: w, (*observed), positive.
    """

    def __init__(self, operator: LinearOperator, weights: Tensor):
        super().__init__(operator.event, operator.observed)
        self.operator, self.weights, self.monotone = operator, weights, operator.monotone

    def apply(self, x: Tensor) -> Tensor:
        """w A x."""
        return self.weights.to(x) * self.operator.apply(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A' (w y)."""
        return self.operator.adjoint(self.weights.to(y) * y)

    def _decompose(self) -> Spectrum:
        spectrum, w = self.operator.spectrum(), self.weights.double()
        if bool((w == w.flatten()[0]).all()):
            return ScaledSpectrum(spectrum, float(w.flatten()[0]))
        if spectrum.picks:
            factors = spectrum.left(w.to(spectrum.values)[None])[0]
            return ScaledSpectrum(spectrum, torch.where(spectrum.seen, factors, torch.ones_like(factors)))
        return super()._decompose()


class Composed(LinearOperator):
    """A B x.

    Args:
        outer: A.
        inner: B.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator):
        super().__init__(inner.event, outer.observed)
        self.outer, self.inner, self.monotone = outer, inner, outer.monotone and inner.monotone

    def apply(self, x: Tensor) -> Tensor:
        """A (B x)."""
        return self.outer.apply(self.inner.apply(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """B' (A' y)."""
        return self.inner.adjoint(self.outer.adjoint(y))
