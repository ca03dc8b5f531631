"""Vendi score: the effective number of different samples.

    V = exp( - sum_i l_i log l_i ),   l the eigenvalues of K / n,  K_ij = cos(phi(x_i), phi(x_j)),

1 when all samples look alike, n when all are orthogonal. The nonzero eigenvalues of K / n are those of the matrix
C = mean_i u_i u_i' of the normalised features u_i, (F, F), so it costs n F^2 + F^3 and not n^3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield.metrics.features.feature import Features
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference
from scorefield.metrics.rows import KeptRows, mean_error, normal_interval

BLOCK = 4096
"""Rows converted to float64 at once."""


def vendi(rows: Tensor) -> tuple[float, Tensor]:
    """Vendi score of rows (n, F) under the cosine, and what each row adds to its logarithm to first order.

    With H = -tr C log C, u counts -u' (log C) u - H; the mean is zero.

    Raises:
        ValueError: A row of zeros, which has no direction.
    """
    units = [block / block.norm(dim=1, keepdim=True) for block in rows.to(torch.float64).split(BLOCK)]
    if not all(bool(torch.isfinite(u).all()) for u in units):
        raise ValueError(
            "the features of an example are all zero, and its cosine with others is undefined; use other features"
        )
    gram = sum((u.mT @ u for u in units), torch.zeros(()).to(torch.float64)) / len(rows)
    values, vectors = torch.linalg.eigh(gram)
    kept = values > len(values) * torch.finfo(torch.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    entropy = float(torch.special.entr(values).sum())
    added = torch.cat([-((u @ vectors).square() @ values.log()) - entropy for u in units])
    return math.exp(entropy), added


class VendiScore(KeptRows):
    """Effective number of different samples, in the cosine of their features; higher is more diverse.

    Between 1 and the lesser of N and the number of features. It grows with N, so it compares at equal N. The interval
    is an infinitesimal jackknife over the samples.

    Args:
        features: The feature function.
        reference: Real data; the details hold their score.
        batch_size: Number of reference examples per call of the feature extractor.

    Raises:
        ValueError: Features that are all zero.

    Reference: Friedman and Dieng, "The Vendi score: a diversity evaluation metric for machine learning", 2023, eq. 2.
    """

    name = "Vendi score"

    def __init__(self, features: Features, reference: Reference, *, batch_size: int = 256):
        super().__init__(reference, features, batch_size=batch_size)
        self._of_reference = vendi(self._real)[0]

    def settings(self) -> Mapping[str, Any]:
        """The similarity."""
        return {"similarity": "cosine", "features": self._real.shape[1]}

    def compute(self) -> Value:
        """The score.

        Raises:
            ValueError: Fewer than 2 samples were seen, or the features of one are all zero.
        """
        self._need(2)
        number, added = vendi(self.rows())
        error = number * mean_error(added)
        low, high = normal_interval(number, error)
        details = {"standard error": error, f"of the {len(self._real)} reference examples": self._of_reference}
        return Value(number, (max(1.0, low), high), unit="effective samples", better="higher", details=details)
