"""Sliced Wasserstein distance: optimal transport in one dimension, averaged over directions.

    SW_p = ( mean over directions theta of  integral_0^1 |F_theta^(-1)(u) - G_theta^(-1)(u)|^p du )^(1/p),

with F_theta, G_theta the distributions of theta . x for samples and for real data (Bonneel et al. 2015; Rabin et al.
2011). The integral of two empirical distributions is exact, for unequal numbers of examples too. It needs no features
and no Gaussian assumption; like every distance of empirical distributions it is positive for two samples of one
distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._random import philox
from scorefield.metrics.features.feature import RawFeatures
from scorefield.metrics.metric import Metric
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference
from scorefield.metrics.rows import mean_error, normal_interval


def random_directions(dimension: int, count: int, seed: int) -> Tensor:
    """Directions uniform on the unit sphere, float64, shape (dimension, count).

    Direction k is a function of (seed, k) alone, so more projections refine a value instead of replacing it.
    """
    normals = np.stack([philox(seed, k).standard_normal(dimension) for k in range(count)], axis=1)
    return torch.from_numpy(normals / np.linalg.norm(normals, axis=0, keepdims=True))


def wasserstein_1d(a: Tensor, b: Tensor, order: int = 2) -> Tensor:
    """W_p^p of empirical distributions in one dimension, per column: integral_0^1 |F^(-1)(u) - G^(-1)(u)|^p du.

    Args:
        a: Values sorted along axis 0, shape (N, P).
        b: Values sorted along axis 0, shape (M, P).
        order: p, 1 or 2.

    Returns:
        Shape (P,), in units of the values to the power p.
    """
    n, m = len(a), len(b)
    if n == m:
        return (a - b).abs().pow(order).mean(dim=0)
    # Both quantile functions are constant between neighbouring multiples of 1/n and 1/m; integers keep the cuts exact.
    cuts = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    width = torch.diff(cuts, prepend=cuts.new_zeros(1)).to(a.dtype) / (n * m)
    rank_a, rank_b = (cuts - 1) // m, (cuts - 1) // n
    return (width[:, None] * (a[rank_a] - b[rank_b]).abs().pow(order)).sum(dim=0)


def potential(a: Tensor, b: Tensor, order: int = 2) -> Tensor:
    """First-order contribution of each value of a to W_p^p of a and b, per column: the Kantorovich potential.

    phi(a_(i+1)) - phi(a_(i)) = |a_(i+1) - y|^p - |a_(i) - y|^p with y = G^(-1)(i / n), the end of what a_(i) is carried
    to (the mean of both sides where G^(-1) jumps there), and mean phi = 0 (Santambrogio 2015, section 1.3).

    Args:
        a: Values sorted along axis 0, (N, P).
        b: Values sorted along axis 0, (M, P).
        order: p, 1 or 2.

    Returns:
        (N, P), in units of the values to the power p.
    """
    n, m = len(a), len(b)
    cuts = torch.arange(1, n) * m
    step = torch.zeros_like(a[1:])
    for rank in ((cuts - 1) // n, cuts // n):  # the values of G^(-1) left and right of i / n
        y = b[rank]
        step += ((a[1:] - y).abs().pow(order) - (a[:-1] - y).abs().pow(order)) / 2.0
    phi = torch.cat([torch.zeros_like(a[:1]), step.cumsum(dim=0)])
    return phi - phi.mean(dim=0)


class SlicedWasserstein(Metric):
    """Sliced Wasserstein distance of samples to real data, in data units; lower is better.

    The interval (infinitesimal jackknife over samples and reference, and the choice of directions) is of the expected
    distance at this N: like every distance of empirical distributions it is positive for two samples of one
    distribution. Keeps every sample's projections (8 bytes each), which is what an exact quantile coupling needs.

    Args:
        reference: The real data.
        projections: Number of directions P.
        seed: Seed of the directions.
        order: p, 1 or 2.

    Raises:
        ValueError: No projection, or another order.

    Reference: Bonneel, Rabin, Peyre and Pfister, "Sliced and Radon Wasserstein barycenters of measures", 2015, eq. 8.
    """

    name = "sliced Wasserstein distance"

    def __init__(self, reference: Reference, projections: int = 128, seed: int = 0, *, order: int = 2):
        if projections < 1 or order not in (1, 2):
            raise ValueError(f"needs projections >= 1 and order 1 or 2; got projections={projections}, order={order}")
        self.order, self.seed = order, seed
        self.directions = random_directions(int(np.prod(reference.event)), projections, seed)
        super().__init__(reference, RawFeatures())
        self._real, self._real_order = torch.cat([self._project(x) for x in reference.batches(1024)]).sort(dim=0)

    def settings(self) -> Mapping[str, Any]:
        """Directions, their seed, and the order p."""
        return {"projections": self.directions.shape[1], "seed": self.seed, "order": self.order}

    def compute(self) -> Value:
        """The distance, its 95 % interval, and the Monte Carlo error that the choice of directions leaves.

        Raises:
            ValueError: No sample was seen.
        """
        self._need(1)
        x, order = torch.cat(self._rows).sort(dim=0)
        powers = wasserstein_1d(x, self._real, self.order)
        number = float(powers.mean()) ** (1 / self.order)
        details, interval = {}, None
        if number > 0 and min(len(x), len(self._real), len(powers)) > 1:
            # Delta method: the error of mean^(1/p) is the error of the mean times its derivative.
            slope = number / (self.order * float(powers.mean()))
            chosen = float(powers.std()) / len(powers) ** 0.5 * slope
            error = slope * mean_error(self._added(x, self._real, order), self._added(self._real, x, self._real_order))
            details = {"standard error from the choice of directions": chosen, "standard error from examples": error}
            low, high = normal_interval(number, math.hypot(chosen, error))
            interval = (max(0.0, low), high)
        units = self.reference.facts.units or "data units"
        return Value(number, interval, unit=units, better="lower", details=details)

    def _added(self, a: Tensor, b: Tensor, order: Tensor) -> Tensor:
        """First-order contribution of each example of a to the mean over directions; `order` sorted it."""
        phi = potential(a, b, self.order)
        return torch.zeros_like(phi).scatter_(0, order, phi).mean(dim=1)

    def _project(self, x: Tensor) -> Tensor:
        return x.to("cpu").to(torch.float64).reshape(len(x), -1) @ self.directions

    def _clear(self) -> None:
        self._rows: list[Tensor] = []

    def _accumulate(self, x: Tensor, hashes: list[int]) -> None:
        self._rows.append(self._project(x))

    def _tensors(self) -> dict[str, Tensor]:
        empty = self.directions.new_zeros(0, self.directions.shape[1])
        return {"projections": torch.cat([empty, *self._rows])}

    def _absorb(self, tensors: Mapping[str, Tensor], count: int) -> None:
        self._rows.append(tensors["projections"])
