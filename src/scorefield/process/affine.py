"""Exact normal distributions of dx = (A(t) x + b(t)) dt + G(t) dw, from the equations of its moments in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from scorefield._math import over_event

Coefficients: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Times (K,) to A (K, D, D), b (K, D) and G G' (K, D, D), all float64."""

KNOTS = 64
"""Equal intervals of [0, 1] whose distributions are stored."""

MOST_STEPS = 32
"""Steps allowed in one interval."""

MOMENT_TOLERANCE = 1e-8
"""Change of the moments, on their own scale, when the steps double; the finer, 16 times as good, are kept."""

TERMS = 16
"""Terms of the Taylor series of a step, whose generator has a norm of at most 1/4: the rest is below 1e-18."""


class Moments(NamedTuple):
    """x_t given x_s is N(transition x_s + offset, covariance), over the flattened event, float64.

    Attributes:
        transition: Phi, shape (B, D, D).
        offset: m, shape (B, D).
        covariance: P, shape (B, D, D).
    """

    transition: Tensor
    offset: Tensor
    covariance: Tensor

    def after(self, first: Moments) -> Moments:
        """The composition of `first` and then this transition."""
        phi = self.transition
        return Moments(
            phi @ first.transition,
            _apply(phi, first.offset) + self.offset,
            phi @ first.covariance @ phi.mT + self.covariance,
        )


class AffineLaw:
    """The distributions of x_t given x_s of one affine SDE, for every s <= t in [0, 1].

    dPhi/dt = A Phi, dm/dt = A m + b, dP/dt = A P + P A' + G G' (Sarkka and Solin 2019, section 6.2), by Magnus steps of
    fourth order, which are exact where the coefficients are constant. Distributions from 0 to equally spaced knots are
    stored; a distribution at t is that of the knot below, carried on to t. Small times are thus reached in steps of
    their own size, and a covariance of order t^3 keeps its relative precision.

    Args:
        coefficients: A, b and G G' at given times.

    Raises:
        ValueError: The coefficients vary too fast for the steps allowed.
    """

    def __init__(self, coefficients: Coefficients):
        self._coefficients = coefficients
        start = torch.arange(KNOTS, dtype=torch.float64) / KNOTS
        length = torch.full_like(start, 1.0 / KNOTS)
        self._steps, change = 1, math.inf
        self._knots = _chained(integrate(coefficients, start, length, self._steps))
        while change > MOMENT_TOLERANCE and self._steps < MOST_STEPS:
            finer = _chained(integrate(coefficients, start, length, 2 * self._steps))
            change, self._steps, self._knots = _change(self._knots, finer), 2 * self._steps, finer
        if change > MOMENT_TOLERANCE:
            raise ValueError(
                f"the moment equations still change by {change:.1g} with {KNOTS * self._steps} steps: the drift or the"
                " diffusion jumps in t, or is too large for t in [0, 1]; smooth or rescale it"
            )

    def moments(self, t: Tensor) -> Moments:
        """The distribution of x_t given x_0 at times of shape (B,)."""
        t = t.detach().to(device="cpu", dtype=torch.float64)
        knot = (t * KNOTS).floor().clamp(0, KNOTS - 1).long()
        start = knot / KNOTS
        rest = integrate(self._coefficients, start, t - start, self._steps)
        return rest.after(Moments(*(part[knot] for part in self._knots)))

    def kernel(self, s: Tensor, t: Tensor) -> Moments:
        """The distribution of x_t given x_s, for s <= t, both of shape (B,)."""
        s, t = (u.detach().to(device="cpu", dtype=torch.float64) for u in (s, t))
        intervals = max(1, math.ceil(KNOTS * float((t - s).max())))
        return integrate(self._coefficients, s, t - s, self._steps * intervals)


def integrate(coefficients: Coefficients, start: Tensor, length: Tensor, steps: int) -> Moments:
    """Transitions from `start` to `start + length`, both of shape (K,), in so many Magnus steps each.

    With M_1 and M_2 the generators at the Gauss points of a step h, the step is the exponential of h (M_1 + M_2) / 2 -
    sqrt(3) h^2 [M_1, M_2] / 12 (Blanes, Casas, Oteo and Ros 2009, eq. 254). A generator is the triple (A, b, Q), Q = G
    G'; it stands for the matrix [[A, Q], [0, -A']] with a column b, which gives the commutator below.
    """
    h = length / steps
    reach = math.sqrt(3.0) / 6.0
    law = None
    for n in range(steps):
        A1, b1, Q1 = coefficients(start + (n + 0.5 - reach) * h)
        A2, b2, Q2 = coefficients(start + (n + 0.5 + reach) * h)
        mixed = A1 @ Q2 - A2 @ Q1
        commutator = (A1 @ A2 - A2 @ A1, _apply(A1, b2) - _apply(A2, b1), mixed + mixed.mT)
        generator = (
            over_event(0.5 * h, one) * (one + two) - over_event(reach / 2.0 * h * h, one) * bracket
            for one, two, bracket in zip((A1, b1, Q1), (A2, b2, Q2), commutator, strict=True)
        )
        step = _exponential(*generator)
        law = step if law is None else step.after(law)
    assert law is not None
    return law


def _exponential(A: Tensor, b: Tensor, Q: Tensor) -> Moments:
    """Distribution after unit time of dx = (A x + b) du + dw, dw of covariance Q du, by a doubled Taylor series.

    Halving and then composing distributions with themselves, rather than squaring the large matrix, never cancels:
    every term of the composed covariance is positive.
    """
    norm = float(A.abs().sum(dim=-1).max()) if A.numel() else 0.0
    halvings = max(0, math.ceil(math.log2(4.0 * norm))) if norm > 0 else 0
    A, b, Q = (part / 2.0**halvings for part in (A, b, Q))
    law = _standstill(b)
    term = Moments(A, b, Q)
    for k in range(1, TERMS + 1):
        law = Moments(*(total + more for total, more in zip(law, term, strict=True)))
        spread = A @ term.covariance
        term = Moments(*(part / (k + 1) for part in (A @ term.transition, _apply(A, term.offset), spread + spread.mT)))
    for _ in range(halvings):
        law = law.after(law)
    return law


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (..., D, D) times vectors (..., D)."""
    return (matrix @ vector[..., None])[..., 0]


def _standstill(like: Tensor) -> Moments:
    """The identity transition, for offsets shaped like (..., D)."""
    zeros = torch.diag_embed(torch.zeros_like(like))
    return Moments(torch.diag_embed(torch.ones_like(like)), torch.zeros_like(like), zeros)


def _chained(intervals: Moments) -> Moments:
    """Distributions from time 0 to every knot, composed from those of the intervals; the first is the identity."""
    laws = [_standstill(intervals.offset[0])]
    for k in range(len(intervals.offset)):
        laws.append(Moments(*(part[k] for part in intervals)).after(laws[-1]))
    return Moments(*(torch.stack(parts) for parts in zip(*laws, strict=True)))


def _change(coarse: Moments, fine: Moments) -> float:
    """Largest change: of P in its own deviations, of Phi and m in their largest entry (or 1 if that is less)."""
    deviation = fine.covariance.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    scale = (deviation[:, :, None] * deviation[:, None, :]).clamp_min(1e-300)
    changes = [((coarse.covariance - fine.covariance).abs() / scale)[1:].max()]
    for before, after in zip(coarse[:2], fine[:2], strict=True):
        changes.append((before - after).abs().max() / after.abs().max().clamp_min(1.0))
    worst = float(torch.stack(changes).max())
    return worst if math.isfinite(worst) else math.inf


def factor(covariance: Tensor, t: Tensor) -> Tensor:
    """Lower Cholesky factors of covariances (B, D, D); they do not mind variances of very different size.

    Raises:
        ValueError: A covariance is singular; `t` says where.
    """
    lower, info = torch.linalg.cholesky_ex(covariance)
    if bool((info > 0).any()):
        bad = float(t.detach().reshape(-1).cpu()[int((info > 0).nonzero()[0])])
        raise ValueError(
            f"the covariance of x_t given x_0 is singular at t = {bad:g}: no noise has reached some component, so there"
            " is no score; use t > 0, and a diffusion that drives every component itself or through the drift"
        )
    return lower
