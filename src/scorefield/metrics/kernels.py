"""Maximum mean discrepancy: the largest difference of means over a unit ball of functions.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),

x, x' independent samples and y, y' independent real examples, from pairs that differ, so the estimate is unbiased at
any number of examples and may be negative (Gretton et al. 2012, lemma 6). With d = -k it is the statistic of
`energy_distance`, and its interval the same jackknife. Over Inception features with the cubic kernel it is the KID.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pdist

from scorefield._random import philox
from scorefield.metrics.energy_distance import Jackknifed, two_sample
from scorefield.metrics.features.feature import Features, RawFeatures
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference
from scorefield.metrics.rows import KeptRows, mean_error, normal_interval

BLOCK = 1024
"""Rows of the kernel matrix held at once."""
SUBSETS, SUBSET_SIZE = 100, 1000
"""Subsets of the published kernel distance."""


class _Discrepancy(KeptRows):
    """The statistic of a kernel that a subclass defines."""

    def __init__(self, reference: Reference, features: Features, *, batch_size: int = 256):
        if len(reference) < 3:
            raise ValueError(f"{self.name} needs at least 3 reference examples, one to leave out; got {len(reference)}")
        super().__init__(reference, features, batch_size=batch_size)
        self._real_sums: Tensor | None = None

    @abstractmethod
    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """k(a_i, b_j), (n, F) and (m, F) float64 -> (n, m)."""

    def jackknifed(self) -> Jackknifed:
        """MMD^2 over all pairs with its left-out values, for differences of samplers that shared their noise.

        Raises:
            ValueError: Fewer than 3 samples were seen.
        """
        self._need(3)
        x, y = self.pair()
        if self._real_sums is None:
            self._real_sums = self._inside(y)
        xy, yx = self._between(x, y)
        return two_sample(-xy, -yx, -self._inside(x), -self._real_sums)

    def compute(self) -> Value:
        """MMD^2 over all pairs, its 95 % interval by the jackknife over samples and real examples.

        Raises:
            ValueError: Fewer than 3 samples were seen.
        """
        found = self.jackknifed()
        error = found.std_error
        interval = normal_interval(found.number, error)
        return Value(found.number, interval, better="lower", details={"standard error": error})

    def _between(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of k over the other set, (n,) and (m,)."""
        rows, columns = [], torch.zeros(len(y), dtype=torch.float64)
        for part in x.split(BLOCK):
            k = self.kernel(part, y)
            rows.append(k.sum(dim=1))
            columns += k.sum(dim=0)
        return torch.cat(rows), columns

    def _inside(self, x: Tensor) -> Tensor:
        """Sums of k over the other rows of the same set, (n,)."""
        sums = []
        for start in range(0, len(x), BLOCK):
            k = self.kernel(x[start : start + BLOCK], x)
            rows = torch.arange(len(k))
            k[rows, start + rows] = 0.0
            sums.append(k.sum(dim=1))
        return torch.cat(sums)


class KernelDistance(_Discrepancy):
    """MMD^2 with the kernel (a.b / F + 1)^3 over F features; lower is better, and noise may make it negative.

    Args:
        features: The feature function.
        reference: The real data, at least 3 examples.
        estimator: "all" takes every pair. "subsets" is the published number: the mean over 100 subsets of 1,000
            samples and 1,000 examples (fewer where there are fewer), which estimates the same with more noise.
        batch_size: Number of reference examples per call of the feature extractor.

    Raises:
        ValueError: Fewer than 3 real examples, or another estimator.

    Reference: Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", 2018, section 4 (the kernel
    inception distance; its cubic kernel is that above, its subsets those of its released code).
    """

    name = "kernel distance"

    def __init__(
        self,
        features: Features,
        reference: Reference,
        *,
        estimator: Literal["all", "subsets"] = "all",
        batch_size: int = 256,
    ):
        if estimator not in ("all", "subsets"):
            raise ValueError(f"estimator={estimator!r} is unknown; use 'all' or 'subsets'")
        self.estimator = estimator
        super().__init__(reference, features, batch_size=batch_size)

    def settings(self) -> Mapping[str, Any]:
        """The kernel and which pairs are taken."""
        subsets = f"{SUBSETS} subsets of at most {SUBSET_SIZE}"
        return {
            "kernel": "(a.b / F + 1)^3",
            "features": self._real.shape[1],
            "pairs": "all" if self.estimator == "all" else subsets,
        }

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """(a.b / F + 1)^3."""
        return (a @ b.mT / a.shape[1] + 1.0).pow(3)

    def compute(self) -> Value:
        """The distance and its 95 % interval; with subsets the interval holds their choice too.

        Raises:
            ValueError: Fewer than 3 samples were seen.
        """
        whole = super().compute()
        if self.estimator == "all":
            return whole
        values = self._of_subsets()
        number = float(values.mean())
        # Given the examples, the mean over subsets scatters about the value of all pairs.
        error = (whole.details["standard error"] ** 2 + mean_error(values) ** 2) ** 0.5
        details = {
            "standard error": error,
            "standard deviation over subsets": float(values.std()),
            "all pairs": whole.number,
        }
        return Value(number, normal_interval(number, error), better="lower", details=details)

    def _of_subsets(self) -> Tensor:
        x, y = self.pair()
        size = min(SUBSET_SIZE, len(x), len(y))
        values = []
        for k in range(SUBSETS):
            draw = philox(0, k)
            a = x[torch.from_numpy(draw.choice(len(x), size, replace=False))]
            b = y[torch.from_numpy(draw.choice(len(y), size, replace=False))]
            xy, yx = self._between(a, b)
            values.append(two_sample(-xy, -yx, -self._inside(a), -self._inside(b)).number)
        return torch.tensor(values, dtype=torch.float64)


class GaussianDiscrepancy(_Discrepancy):
    """MMD^2 with the kernel exp(-|a - b|^2 / (2 h^2)), zero for equal distributions only; lower is better.

    Args:
        reference: The real data, at least 3 examples.
        features: The feature function; the values themselves unless given.
        bandwidth: h in feature units; None is the median distance between (at most 2,000) real examples. Samples do
            not enter, so that every set of samples meets the same kernel (the paper takes the median over both).
        batch_size: Number of reference examples per call of the feature extractor.

    Raises:
        ValueError: Fewer than 3 real examples, or a bandwidth that is not positive.

    Reference: Gretton, Borgwardt, Rasch, Schoelkopf and Smola, "A kernel two-sample test", 2012, section 8.
    """

    name = "Gaussian MMD"

    def __init__(
        self,
        reference: Reference,
        features: Features | None = None,
        *,
        bandwidth: float | None = None,
        batch_size: int = 256,
    ):
        self.bandwidth = 1.0 if bandwidth is None else bandwidth
        super().__init__(reference, features or RawFeatures(), batch_size=batch_size)
        if bandwidth is None:
            self.bandwidth = float(pdist(self._real[:2000].to(torch.float64)).median())
        if not self.bandwidth > 0:
            raise ValueError(
                f"the bandwidth must be positive, got {self.bandwidth:g}; where most real examples are equal the median"
                " distance is 0: give bandwidth=..."
            )

    def settings(self) -> Mapping[str, Any]:
        """The kernel and its bandwidth."""
        return {"kernel": "exp(-|a - b|^2 / (2 h^2))", "h": self.bandwidth}

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """exp(-|a - b|^2 / (2 h^2))."""
        squared = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
        return (squared / (-2.0 * self.bandwidth**2)).exp()
