"""Exact normal distributions of dx = (A(t) x + b(t)) dt + G(t) dw, from its moment equations in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from scorefield._math import over_event

Coefficients: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""A function from times (K,) to A (K, D, D), b (K, D) and G G' (K, D, D), all float64."""

KNOTS = 64
"""Number of equal intervals of [0, 1] at whose ends the distributions are stored."""

MOST_STEPS = 32
"""Largest number of integration steps in one interval."""

MOMENT_TOLERANCE = 1e-8
"""Largest relative change of the moments when the number of steps doubles.

The moments of the finer steps are used; by the fourth order of the steps their error is about 16 times smaller.
"""

TERMS = 16
"""Number of terms of the Taylor series of a step; at its norm of at most 1/4, the rest is below 1e-18."""


class Moments(NamedTuple):
    """The distribution of x_t given x_s, N(transition x_s + offset, covariance), over the flattened event; float64.

    Attributes:
        transition: Phi, shape (B, D, D).
        offset: m, shape (B, D).
        covariance: P, shape (B, D, D).
    """

    transition: Tensor
    offset: Tensor
    covariance: Tensor

    def after(self, first: Moments) -> Moments:
        """The transition that applies `first` and then this one."""
        phi = self.transition
        return Moments(
            phi @ first.transition,
            _apply(phi, first.offset) + self.offset,
            phi @ first.covariance @ phi.mT + self.covariance,
        )


class AffineTransitions:
    """The normal distributions of x_t given x_s of one affine SDE, for every s <= t in [0, 1].

    dPhi/dt = A Phi, dm/dt = A m + b, dP/dt = A P + P A' + G G' (Sarkka and Solin 2019, section 6.2), integrated by
    Magnus steps of fourth order, which are exact where the coefficients are constant. The distributions from 0 to
    equally spaced knots are stored, and one at t is integrated from the knot below t. Small times are thus reached in
    steps of their own size, and a covariance of order t^3 keeps its relative precision.

    Args:
        coefficients: A, b and G G' as a function of the times.

    Raises:
        ValueError: The coefficients vary too fast in time for `MOST_STEPS` steps per interval.
    """

    def __init__(self, coefficients: Coefficients):
        self._coefficients = coefficients
        start = torch.arange(KNOTS, dtype=torch.float64) / KNOTS
        length = torch.full_like(start, 1.0 / KNOTS)
        self._steps, change = 1, math.inf
        self._knots = _from_zero(integrate(coefficients, start, length, self._steps))
        while change > MOMENT_TOLERANCE and self._steps < MOST_STEPS:
            finer = _from_zero(integrate(coefficients, start, length, 2 * self._steps))
            change, self._steps, self._knots = _change(self._knots, finer), 2 * self._steps, finer
        if change > MOMENT_TOLERANCE:
            raise ValueError(
                f"the solution of the moment equations still changes by {change:.1g} with {KNOTS * self._steps} steps:"
                " the drift or the diffusion jumps in t, or is too large for t in [0, 1]. Make it smooth in t, or"
                " rescale it"
            )

    def moments(self, t: Tensor) -> Moments:
        """The distribution of x_t given x_0 at times of shape (B,)."""
        t = t.detach().to(device="cpu", dtype=torch.float64)
        knot = (t * KNOTS).floor().clamp(0, KNOTS - 1).long()
        start = knot / KNOTS
        from_knot = integrate(self._coefficients, start, t - start, self._steps)
        return from_knot.after(Moments(*(part[knot] for part in self._knots)))

    def kernel(self, s: Tensor, t: Tensor) -> Moments:
        """The distribution of x_t given x_s, for s <= t, both of shape (B,)."""
        s, t = (u.detach().to(device="cpu", dtype=torch.float64) for u in (s, t))
        intervals = max(1, math.ceil(KNOTS * float((t - s).max())))
        return integrate(self._coefficients, s, t - s, self._steps * intervals)


def integrate(coefficients: Coefficients, start: Tensor, length: Tensor, steps: int) -> Moments:
    """Transitions from `start` to `start + length`, both of shape (K,), each in the given number of Magnus steps.

    With M_1 and M_2 the generators at the Gauss points of a step h, the step is the exponential of h (M_1 + M_2) / 2 -
    sqrt(3) h^2 [M_1, M_2] / 12 (Blanes, Casas, Oteo and Ros 2009, eq. 254). A generator is the triple (A, b, Q) with
    Q = G G'. It represents the matrix [[A, Q], [0, -A']] with an additional column b, which gives the commutator.
    """
    h = length / steps
    gauss = math.sqrt(3.0) / 6.0  # distance of the two Gauss points from the middle of a step of unit length
    total = None
    for n in range(steps):
        A1, b1, Q1 = coefficients(start + (n + 0.5 - gauss) * h)
        A2, b2, Q2 = coefficients(start + (n + 0.5 + gauss) * h)
        mixed = A1 @ Q2 - A2 @ Q1
        commutator = (A1 @ A2 - A2 @ A1, _apply(A1, b2) - _apply(A2, b1), mixed + mixed.mT)
        generator = (
            over_event(0.5 * h, one) * (one + two) - over_event(gauss / 2.0 * h * h, one) * bracket
            for one, two, bracket in zip((A1, b1, Q1), (A2, b2, Q2), commutator, strict=True)
        )
        step = _exponential(*generator)
        total = step if total is None else step.after(total)
    assert total is not None
    return total


def _exponential(A: Tensor, b: Tensor, Q: Tensor) -> Moments:
    """Distribution after unit time of dx = (A x + b) du + dw, with noise dw of covariance Q du.

    The Taylor series of the distribution after the time 2^-k is composed with itself k times. Composing distributions,
    unlike squaring the large matrix exponential, never cancels digits: every term of the covariance is positive.
    """
    norm = float(A.abs().sum(dim=-1).max()) if A.numel() else 0.0
    halvings = max(0, math.ceil(math.log2(4.0 * norm))) if norm > 0 else 0
    A, b, Q = (part / 2.0**halvings for part in (A, b, Q))
    total = _identity(b)
    term = Moments(A, b, Q)
    for k in range(1, TERMS + 1):
        total = Moments(*(part + more for part, more in zip(total, term, strict=True)))
        spread = A @ term.covariance
        term = Moments(*(part / (k + 1) for part in (A @ term.transition, _apply(A, term.offset), spread + spread.mT)))
    for _ in range(halvings):
        total = total.after(total)
    return total


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (..., D, D) times vectors (..., D)."""
    return (matrix @ vector[..., None])[..., 0]


def _identity(like: Tensor) -> Moments:
    """The identity transition, for offsets of the shape (..., D) of `like`."""
    zeros = torch.diag_embed(torch.zeros_like(like))
    return Moments(torch.diag_embed(torch.ones_like(like)), torch.zeros_like(like), zeros)


def _from_zero(intervals: Moments) -> Moments:
    """Transitions from time 0 to every knot, composed from those of the intervals; the first is the identity."""
    knots = [_identity(intervals.offset[0])]
    for k in range(len(intervals.offset)):
        knots.append(Moments(*(part[k] for part in intervals)).after(knots[-1]))
    return Moments(*(torch.stack(parts) for parts in zip(*knots, strict=True)))


def _change(coarse: Moments, fine: Moments) -> float:
    """Largest relative change of the moments.

    Entries of P are relative to the standard deviations of both components; entries of Phi and m are relative to their
    largest entry, or to 1 if that is smaller.
    """
    deviation = fine.covariance.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    scale = (deviation[:, :, None] * deviation[:, None, :]).clamp_min(1e-300)
    changes = [((coarse.covariance - fine.covariance).abs() / scale)[1:].max()]
    for before, after in zip(coarse[:2], fine[:2], strict=True):
        changes.append((before - after).abs().max() / after.abs().max().clamp_min(1.0))
    worst = float(torch.stack(changes).max())
    return worst if math.isfinite(worst) else math.inf


def cholesky_factor(covariance: Tensor, t: Tensor) -> Tensor:
    """Lower Cholesky factors of covariances (B, D, D), accurate for variances of very different size too.

    Raises:
        ValueError: A covariance is singular; the message contains its time from `t`, shape (B,).
    """
    lower, info = torch.linalg.cholesky_ex(covariance)
    if bool((info > 0).any()):
        bad = float(t.detach().reshape(-1).cpu()[int((info > 0).nonzero()[0])])
        raise ValueError(
            f"the covariance of x_t given x_0 is singular at t = {bad:g}: no noise has reached some component, so the"
            " score does not exist. Use t > 0, and a diffusion that adds noise to every component, directly or through"
            " the drift"
        )
    return lower
