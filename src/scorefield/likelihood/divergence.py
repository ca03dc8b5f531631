"""The divergence of the flow, exact or estimated with random probes, and the variance of the estimate.

A field is evaluated once, and every divergence takes only vector-Jacobian products of that evaluation. With the
Jacobian A,

    exact        sum_d (A' e_d)_d, which takes D products
    hutchinson   v' A v, one product per probe v (Skilling 1989; Hutchinson 1990)
    hutch++      tr(Q' A Q) + g' P A P g with Q a basis of A' S for a random sketch S of k columns and P = I - Q Q'.
                 The large part of the trace is exact and the rest is estimated, with 2k products and one per probe g
                 (Meyer et al. 2021, here with transposed products, because the Jacobian of a score is nearly
                 symmetric). In what follows A stands for P A P.

A probe is kept for a whole integration, so the integral of v' A v is v' M v with M the integral of A, and w = M' v can
be integrated along without further products. The variance of v' M v over Rademacher probes is
2 (|M|_F^2 - sum_i M_ii^2) for a symmetric M and at most that otherwise, and |w|^2 estimates |M|_F^2, so that one probe
is enough for a standard error.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield._math import Pullback, trace, value_and_pullback


class Divergence(ABC):
    """A method for divergences, with the probes drawn for each example of a batch."""

    size: int
    """Number of estimates per evaluation, P."""

    carried: int
    """Number of values integrated with the state for the standard error: P D, or 0 where the divergence is exact."""

    def evaluate(self, field: Callable[[Tensor], Tensor], x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value and divergence of a field, from one forward pass.

        Args:
            field: Maps (b, *event) to (b, *event).
            x: Where it is evaluated, (b, *event).
            rows: Indices of these examples in the batch, (b,).

        Returns:
            The value of the field, shape of x; the estimates of its divergence, (b, P); and the products A' v, whose
            integral gives the standard error, (b, P D).
        """
        value, pull = value_and_pullback(field, x)
        return (value, *self._trace(pull, x, rows))

    @abstractmethod
    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The estimates of the trace, (b, P), and the products for the standard error, (b, P D)."""

    @abstractmethod
    def variance(self, carried: Tensor) -> Tensor:
        """Variance over probes of one estimate of the integrated divergence, (B,).

        Args:
            carried: The integrals w = M' v, (B, P D).
        """

    @abstractmethod
    def select(self, rows: Tensor) -> Divergence:
        """The same method with the probes of some of the examples."""


class Exact(Divergence):
    """The exact divergence, by D vector-Jacobian products."""

    size, carried = 1, 0

    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return trace(pull, x)[:, None], x.new_zeros(len(x), 0)

    def variance(self, carried: Tensor) -> Tensor:
        """0: the divergence is exact."""
        return carried.new_zeros(len(carried))

    def select(self, rows: Tensor) -> Exact:
        """This object: no probes are drawn for it."""
        return self


class Hutchinson(Divergence):
    """Hutchinson's estimate v' A v.

    Args:
        probes: v, (P, B, *event), with identity second moment.
        rademacher: Whether the entries of the probes are signs; the diagonal of A then adds no variance.
    """

    def __init__(self, probes: Tensor, rademacher: bool):
        self.probes, self.rademacher = probes, rademacher
        self.size = len(probes)
        self.carried = self.size * math.prod(probes.shape[2:])

    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self._estimates(pull, self.probes[:, rows])

    def _estimates(self, pull: Pullback, probes: Tensor) -> tuple[Tensor, Tensor]:
        """v' A v, (b, P), and the products A' v, (b, P D), for probes v of shape (P, b, *event)."""
        products = torch.stack([pull(v, k + 1 == self.size).flatten(1) for k, v in enumerate(probes)])
        return (products * probes.flatten(2)).sum(dim=2).T, products.transpose(0, 1).flatten(1)

    def variance(self, carried: Tensor) -> Tensor:
        """2 (|M|_F^2 - sum_i M_ii^2), each term estimated from the probes of the example; not negative.

        For Gaussian probes 2 |M|_F^2.
        """
        w = self._vectors(carried)
        squared = w.square().sum(dim=2).mean(dim=1)
        if not self.rademacher:
            return 2.0 * squared
        entries = w * self.probes.flatten(2).transpose(0, 1)  # v_i w_i, whose mean over probes is M_ii
        trace = entries.sum(dim=2).mean(dim=1)
        # sum_i M_ii^2 is at least trace^2 / D; pairs of different probes give an unbiased estimate of it.
        diagonal = trace.square() / w.shape[2]
        if self.size > 1:
            total = entries.sum(dim=1)
            pairs = (total.square() - entries.square().sum(dim=1)).sum(dim=1) / (self.size * (self.size - 1))
            diagonal = torch.maximum(diagonal, torch.minimum(pairs, squared))
        return 2.0 * (squared - diagonal).clamp_min(0.0)

    def _vectors(self, carried: Tensor) -> Tensor:
        """Reshape (B, P D) to (B, P, D)."""
        return carried.reshape(len(carried), self.size, carried.shape[1] // self.size)

    def select(self, rows: Tensor) -> Hutchinson:
        """The same method with the probes of some of the examples."""
        return Hutchinson(self.probes[:, rows], self.rademacher)


class HutchPlusPlus(Hutchinson):
    """Hutch++: the large part of the trace exactly by a sketch, and the rest estimated with probes.

    Args:
        probes: g, (P, B, *event).
        rademacher: Whether the entries of the probes are signs.
        sketch: S, (k, B, *event); with k = D the trace is exact.
    """

    def __init__(self, probes: Tensor, rademacher: bool, sketch: Tensor):
        super().__init__(probes, rademacher)
        self.sketch = sketch

    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        image = torch.stack([pull(s, False).flatten(1) for s in self.sketch[:, rows]], dim=2)  # A' S, (b, D, k)
        Q = torch.linalg.qr(image).Q
        pulled = torch.stack([pull(q.reshape(x.shape), False).flatten(1) for q in Q.unbind(2)], dim=2)
        large = (pulled * Q).sum(dim=(1, 2))
        rest = _outside(Q, self.probes[:, rows].flatten(2).to(x))
        estimates, products = self._estimates(pull, rest.reshape(self.size, *x.shape))
        carried = _outside(Q, products.reshape(len(x), self.size, -1).transpose(0, 1)).transpose(0, 1).flatten(1)
        return large[:, None] + estimates, carried

    def select(self, rows: Tensor) -> HutchPlusPlus:
        """The same method with the probes and sketches of some of the examples."""
        return HutchPlusPlus(self.probes[:, rows], self.rademacher, self.sketch[:, rows])


def _outside(Q: Tensor, v: Tensor) -> Tensor:
    """(I - Q Q') v for Q (b, D, k) and v (P, b, D)."""
    return v - torch.einsum("bdk,pbk->pbd", Q, torch.einsum("bdk,pbd->pbk", Q, v))
