"""The optimal coupling of two centred Gaussians: the linear algebra of Frechet distances.

With any roots R R' = S of the covariances, the trace term of the distance is min over orthogonal Q of |R_a - R_b Q|^2,
attained where Q' is the orthogonal factor of the polar decomposition of R_a' R_b (Bhatia, Jain and Lim 2019, theorem
1). As a sum of squares it is never negative, zero for equal arguments, and free of the cancellation in tr S_a + tr S_b
- 2 tr(...)^(1/2); the usual matrix square root of the product S_a S_b is unstable where a covariance is singular.

Where both covariances are away from singular, the roots are Cholesky's and the polar factor is Newton's (Higham 1986),
which is all matrix products: several times as fast in 2048 dimensions as the eigen- and singular value decompositions
that serve the other cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SINGULAR = 1e-11
"""Squared pivots of Cholesky's root, relative to the largest variance, below which a covariance counts as singular."""
STEPS = 40
"""Largest number of Newton iterations; about nine are needed."""


@dataclass(frozen=True)
class Coupling:
    """Roots of two covariances that are nearest to each other.

    Attributes:
        root_a: R_a, (F, F) float64.
        root_b: R_b Q, (F, F).
        regular: Whether both are invertible.
    """

    root_a: Tensor
    root_b: Tensor
    regular: bool

    def squared(self) -> float:
        """The squared distance |R_a - R_b Q|^2."""
        return float((self.root_a - self.root_b).square().sum())

    def reversed(self) -> Coupling:
        """The coupling of b and a."""
        return Coupling(self.root_b, self.root_a, self.regular)

    def transport(self) -> Tensor:
        """The optimal map from a to b, T = R_b Q R_a^+, symmetric, with T S_a T = S_b where S_a is regular, (F, F)."""
        if self.regular:
            return torch.linalg.solve(self.root_a, self.root_b, left=False)
        values, vectors = torch.linalg.eigh(self.root_a @ self.root_a.mT)
        kept = values > len(values) * torch.finfo(torch.float64).eps * values.max()
        inverse = torch.where(kept, 1.0 / values, 0.0)
        return self.root_b @ self.root_a.mT @ (vectors * inverse) @ vectors.mT


def coupling(covariance_a: Tensor, covariance_b: Tensor) -> Coupling:
    """The coupling of N(0, S_a) and N(0, S_b), exact also where covariances are singular.

    Args:
        covariance_a: (F, F), symmetric positive semi-definite.
        covariance_b: (F, F).

    Raises:
        ValueError: A covariance has an eigenvalue that is negative beyond rounding.
    """
    triangles = [_triangle(s) for s in (covariance_a, covariance_b)]
    if triangles[0] is not None and triangles[1] is not None:
        factor = _polar(triangles[0].mT @ triangles[1])
        if factor is not None:
            return Coupling(triangles[0], triangles[1] @ factor.mT, True)
    root_a, root_b = _root(covariance_a), _root(covariance_b)
    u, _, v_transposed = torch.linalg.svd(root_a.mT @ root_b)
    return Coupling(root_a, root_b @ (v_transposed.mT @ u.mT), False)


def _symmetric(covariance: Tensor) -> Tensor:
    s = covariance.to(torch.float64)
    return (s + s.mT) / 2


def _triangle(covariance: Tensor) -> Tensor | None:
    """Cholesky's root, None where the covariance is singular or nearly so."""
    s = _symmetric(covariance)
    root, failed = torch.linalg.cholesky_ex(s)
    pivots = root.diagonal().square()
    return None if int(failed) or not bool((pivots > SINGULAR * s.diagonal().max()).all()) else root


def _polar(m: Tensor) -> Tensor | None:
    """Orthogonal factor of a square matrix by Newton's scaled iteration, None where that does not converge."""
    x = m
    for _ in range(STEPS):
        inverse, failed = torch.linalg.inv_ex(x)
        if int(failed):
            return None
        scale = (_norms(inverse) / _norms(x)) ** 0.25
        step = 0.5 * (scale * x + inverse.mT / scale)
        change = float((step - x).norm())
        x = step
        # Convergence is quadratic: the next step would change the square of this.
        if change <= 1e-9 * len(m) ** 0.5:
            return x
    return None


def _norms(m: Tensor) -> Tensor:
    """Product of the largest column and row sum, between which the spectral norm's square lies."""
    sums = m.abs()
    return sums.sum(dim=0).max() * sums.sum(dim=1).max()


def _root(covariance: Tensor) -> Tensor:
    """R with R R' = S; eigenvalues that rounding cannot tell from zero are zero, else their roots would be 1e-8."""
    values, vectors = torch.linalg.eigh(_symmetric(covariance))
    rounding = len(values) * torch.finfo(torch.float64).eps * float(values.abs().max())
    # The caller's covariance may itself be rounded, to float32 at worst.
    if float(values.min()) < -1e-5 * float(values.abs().max()):
        raise ValueError(f"a covariance has the eigenvalue {float(values.min()):g}; covariances have none below zero")
    return vectors * values.where(values > rounding, 0.0).sqrt()
