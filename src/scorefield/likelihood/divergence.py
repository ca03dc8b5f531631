"""The divergence of the flow: exact, or estimated with random probes, with what the estimate may err by.

A field is evaluated once; every divergence costs only vector-Jacobian products of that evaluation. With A the Jacobian,

    exact        sum_d (A' e_d)_d, D products
    hutchinson   v' A v, one product a probe v (Skilling 1989; Hutchinson 1990)
    hutch++      tr(Q' A Q) + g' P A P g with Q a basis of A' S for a random sketch S of k columns and P = I - Q Q':
                 the large part of the trace is exact, the rest estimated; 2k products and one a probe (Meyer et al.
                 2021, with transposed products: the Jacobian of a score is nearly symmetric). P A P is its A below.

A probe stays the same for a whole integration, so that the integral of v' A v is v' M v with M the integral of A, and
w = M' v comes along at no cost. The variance of v' M v over Rademacher probes is 2 (|M|_F^2 - sum_i M_ii^2) for a
symmetric M and at most that for others, and |w|^2 estimates |M|_F^2: one probe is enough for a standard error.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield._math import Pullback, trace, value_and_pullback


class Divergence(ABC):
    """How a divergence is found, with what was drawn for it; examples are the rows of a batch."""

    size: int
    """Estimates per evaluation, P."""

    carried: int
    """Numbers per evaluation from which the standard error is made: P D, or none."""

    def evaluate(self, field: Callable[[Tensor], Tensor], x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value and divergences of a field at x, of the examples `rows` of the batch, from one forward pass.

        Returns:
            The value, shape of x; the estimates of the divergence, (b, P); and what is carried, (b, P D).
        """
        value, pull = value_and_pullback(field, x)
        return (value, *self._trace(pull, x, rows))

    @abstractmethod
    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The estimates and what is carried."""

    @abstractmethod
    def variance(self, carried: Tensor) -> Tensor:
        """Variance of one estimate of an integral over probes, (B,), from what was integrated along, (B, P D)."""

    @abstractmethod
    def select(self, rows: Tensor) -> Divergence:
        """That of some of the examples."""


class Exact(Divergence):
    """D vector-Jacobian products."""

    size, carried = 1, 0

    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return trace(pull, x)[:, None], x.new_zeros(len(x), 0)

    def variance(self, carried: Tensor) -> Tensor:
        """0."""
        return carried.new_zeros(len(carried))

    def select(self, rows: Tensor) -> Exact:
        """The same."""
        return self


class Hutchinson(Divergence):
    """Random probes.

    Args:
        probes: v, (P, B, *event), with identity second moment.
        rademacher: Whether their entries are signs; then the diagonal of the Jacobian adds no variance.
    """

    def __init__(self, probes: Tensor, rademacher: bool):
        self.probes, self.rademacher = probes, rademacher
        self.size = len(probes)
        self.carried = self.size * math.prod(probes.shape[2:])

    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.probes[:, rows]
        return self._estimates(pull, chosen, chosen.flatten(2))

    def _estimates(self, pull: Pullback, weights: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        """v' A v and A' v for probes v: (P, b, *event), and flattened."""
        products = torch.stack([pull(v, k + 1 == self.size).flatten(1) for k, v in enumerate(weights)])
        return (products * flat).sum(dim=2).T, products.transpose(0, 1).flatten(1)

    def variance(self, carried: Tensor) -> Tensor:
        """2 (|M|_F^2 - sum_i M_ii^2), each term from the probes at hand; never below 0."""
        w = self._vectors(carried)
        squared = w.square().sum(dim=2).mean(dim=1)
        if not self.rademacher:
            return 2.0 * squared
        entries = w * self.probes.flatten(2).transpose(0, 1)  # v_i w_i, whose mean over probes is M_ii
        trace = entries.sum(dim=2).mean(dim=1)
        # The least that a diagonal of this trace can have, and, from pairs of probes, an unbiased estimate.
        diagonal = trace.square() / w.shape[2]
        if self.size > 1:
            total = entries.sum(dim=1)
            pairs = (total.square() - entries.square().sum(dim=1)).sum(dim=1) / (self.size * (self.size - 1))
            diagonal = torch.maximum(diagonal, torch.minimum(pairs, squared))
        return 2.0 * (squared - diagonal).clamp_min(0.0)

    def _vectors(self, carried: Tensor) -> Tensor:
        """(B, P D) as (B, P, D)."""
        return carried.reshape(len(carried), self.size, carried.shape[1] // self.size)

    def select(self, rows: Tensor) -> Hutchinson:
        """With the probes of these examples."""
        return Hutchinson(self.probes[:, rows], self.rademacher)


class HutchPlusPlus(Hutchinson):
    """A sketch that takes the large part of the trace exactly, and probes for the rest.

    Args:
        probes: g, (P, B, *event).
        rademacher: Whether their entries are signs.
        sketch: S, (k, B, *event); k = D is exact.
    """

    def __init__(self, probes: Tensor, rademacher: bool, sketch: Tensor):
        super().__init__(probes, rademacher)
        self.sketch = sketch

    def _trace(self, pull: Pullback, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        image = torch.stack([pull(s, False).flatten(1) for s in self.sketch[:, rows]], dim=2)  # A' S, (b, D, k)
        Q = torch.linalg.qr(image).Q
        pulled = torch.stack([pull(q.reshape(x.shape), False).flatten(1) for q in Q.unbind(2)], dim=2)
        large = (pulled * Q).sum(dim=(1, 2))
        flat = self.probes[:, rows].flatten(2).to(x)
        rest = _outside(Q, flat)
        estimates, products = self._estimates(pull, rest.reshape(self.size, *x.shape), rest)
        carried = _outside(Q, products.reshape(len(x), self.size, -1).transpose(0, 1)).transpose(0, 1).flatten(1)
        return large[:, None] + estimates, carried

    def select(self, rows: Tensor) -> HutchPlusPlus:
        """With the draws of these examples."""
        return HutchPlusPlus(self.probes[:, rows], self.rademacher, self.sketch[:, rows])


def _outside(Q: Tensor, v: Tensor) -> Tensor:
    """(I - Q Q') v of Q (b, D, k) and v (P, b, D)."""
    return v - torch.einsum("bdk,pbk->pbd", Q, torch.einsum("bdk,pbd->pbk", Q, v))
