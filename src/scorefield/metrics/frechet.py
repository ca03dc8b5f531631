"""Frechet distance between Gaussians fitted to features of samples and of real data.

With means m_a, m_b and covariances S_a, S_b of the features,

    d = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)),

the squared 2-Wasserstein distance of N(m_a, S_a) and N(m_b, S_b) (Dowson and Landau 1982), which over Inception
features is the FID of Heusel et al. (2017, eq. 6). d is biased upwards: two sets of N and M examples of one
distribution with covariance eigenvalues l_1 .. l_F are about (sum_i l_i + 1/2 sum_ij l_i l_j / (l_i + l_j)) (1 / N + 1
/ M) apart, which is (F + F^2 / 4) (1 / N + 1 / M) for unit variances. So values are comparable at equal N only (the
receipt holds N), or extrapolated to infinite N: `FrechetInfinity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from scorefield._random import philox
from scorefield.metrics.coupling import Coupling, coupling
from scorefield.metrics.features.feature import Features
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference
from scorefield.metrics.rows import KeptRows, mean_error, normal_interval
from scorefield.metrics.statistics import ReferenceMoments

BLOCK = 4096
"""Rows converted to float64 at once."""


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Squared 2-Wasserstein distance of two Gaussians, exact also where covariances are singular.

    Never negative, zero for equal arguments and free of cancellation: see `coupling`.

    Args:
        mean_a: Shape (F,).
        covariance_a: Shape (F, F), symmetric positive semi-definite.
        mean_b: Shape (F,).
        covariance_b: Shape (F, F).

    Raises:
        ValueError: The shapes do not belong together, or a covariance has an eigenvalue that is negative beyond
            rounding.
    """
    size = len(mean_a)
    for name, tensor, shape in (
        ("mean_b", mean_b, (size,)),
        ("covariance_a", covariance_a, (size, size)),
        ("covariance_b", covariance_b, (size, size)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; with mean_a of shape ({size},) it must be {shape}"
            )
    shift = mean_a.to(torch.float64) - mean_b.to(torch.float64)
    return float(shift @ shift) + coupling(covariance_a, covariance_b).squared()


def influence(rows: Tensor, own: Fitted, other: Fitted, found: Coupling | None = None) -> Tensor:
    """Contribution of each row to the distance, to first order: n (d - d without it) up to a constant, (n,).

    With T the optimal map of the own Gaussian to the other, the derivative of d by S_a is 1 - T
    (Bhatia, Jain and Lim 2019) and that by m_a is 2 (m_a - m_b), so x counts (x - m_a)' (2 (m_a - m_b) + (1 - T)
    (x - m_a)).

    Args:
        rows: The rows of `own`, (n, F).
        own: Moments of more than F rows.
        other: Moments of the other set.
        found: Their coupling, where it is known.
    """
    transport = (found or coupling(own.covariance, other.covariance)).transport()
    slope = 2.0 * (own.mean - other.mean)
    parts = []
    for block in rows.split(BLOCK):
        centred = block.to(torch.float64) - own.mean
        parts.append((centred * (slope + centred - centred @ transport.mT)).sum(dim=1))
    return torch.cat(parts)


class Fitted(Protocol):
    """A Gaussian: mean (F,) and covariance (F, F)."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...


class Moments:
    """Count, mean and scatter matrix of rows, accumulated in float64 and mergeable.

    Uses the pairwise update of Chan, Golub and LeVeque (1983), which does not lose digits when the mean is large.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Add rows, shape (B, F)."""
        rows = rows.to(torch.float64)
        mean = rows.mean(dim=0)
        centred = rows - mean
        self.merge(len(rows), mean, centred.mT @ centred)

    def merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Add `count` rows of the given mean, (F,), and scatter about it, (F, F)."""
        if count == 0:
            return
        if self.count == 0:
            self.count, self.mean, self.scatter = count, mean.clone(), scatter.clone()
            return
        total = self.count + count
        shift = mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, (F, F); needs two rows."""
        return self.scatter / (self.count - 1)


def moments(rows: Tensor) -> Moments:
    """Moments of rows (N, F), converted to float64 in blocks."""
    found = Moments()
    for block in rows.split(BLOCK):
        found.update(block)
    return found


class FrechetDistance(KeptRows):
    """Frechet distance of samples to real data over any features, in squared feature units; lower is better.

    The interval (infinitesimal jackknife over samples and reference) is of the expected distance at this N: it knows
    the noise and not the bias, which `FrechetInfinity` removes. Where the distance is near zero it errs to the safe
    side. None where a covariance is singular. Over a reference of which the mean and covariance alone are known it
    takes them as exact, and a warning says so.

    Args:
        features: The feature function.
        reference: The real data, whose features are computed once, or statistics of them (`read_statistics`).
        batch_size: Number of reference examples per call of the feature extractor.

    Raises:
        ValueError: The reference has a single example.

    Reference: Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017.
    """

    name = "Frechet distance"

    def __init__(self, features: Features, reference: Reference, *, batch_size: int = 256):
        self._given = reference if isinstance(reference, ReferenceMoments) else None
        if self._given is None and len(reference) < 2:
            raise ValueError("a covariance needs at least two reference examples; this reference has one")
        super().__init__(reference, features, batch_size=batch_size)
        self._real_moments = moments(self._real) if self._given is None else self._given

    def settings(self) -> Mapping[str, Any]:
        """Nothing but the number of features, which the feature function decides."""
        return {"features": self._real.shape[1]}

    def compute(self) -> Value:
        """The distance; flagged "singular" where samples or reference are too few for their covariance.

        Raises:
            ValueError: Fewer than two samples were seen.
        """
        self._need(2)
        rows, real = self.rows(), self._real_moments
        seen = moments(rows)
        found = coupling(seen.covariance, real.covariance)
        shift, spread = float((seen.mean - real.mean).square().sum()), found.squared()
        singular = _singular(seen.count, real.count, len(real.mean))
        details = {"mean term": shift, "covariance term": spread}
        value = self._value(shift + spread, rows, seen, found, singular, details)
        if value.interval is None:
            return value
        # A distance is not negative, and an interval that ends below zero says no more.
        return dataclasses.replace(value, interval=(max(0.0, value.interval[0]), value.interval[1]))

    def _rows_of(self, reference: Reference, features: Features, batch_size: int) -> Tensor:
        if isinstance(reference, ReferenceMoments):
            return torch.empty(0, reference.width)
        return super()._rows_of(reference, features, batch_size)

    def _value(
        self,
        number: float,
        rows: Tensor,
        seen: Moments,
        found: Coupling,
        singular: tuple[str, ...],
        details: dict[str, float],
    ) -> Value:
        """The number with its standard error, over the reference too where that is a sample, unless it is singular."""
        warnings, interval = singular, None
        if not singular:
            sets = [influence(rows, seen, self._real_moments, found)]
            if not self._fixed:
                sets.append(influence(self._real, self._real_moments, seen, found.reversed()))
            error = mean_error(*sets)
            interval = normal_interval(number, error)
            details["standard error"] = error
            if self._given is not None:
                warnings = (
                    "the interval is over the samples alone: of the reference only mean and covariance are known",
                )
        return Value(
            number,
            interval,
            unit="squared feature units",
            better="lower",
            status="singular" if singular else "ok",
            warnings=warnings,
            details=details,
        )

    @property
    def _fixed(self) -> bool:
        """Whether the reference is taken as it is, not as a sample."""
        return self._given is not None


def _singular(samples: int, examples: int | None, size: int) -> tuple[str, ...]:
    return tuple(
        f"only {count} {what} for {size} features: their covariance is singular (rank at most {count - 1}) and"
        f" the distance mostly measures N; use more than {size}, or features of lower dimension"
        for what, count in (("samples", samples), ("reference examples", examples))
        if count is not None and count <= size
    )


class FrechetInfinity(FrechetDistance):
    """Frechet distance extrapolated to infinitely many examples; lower is better, and noise may make it negative.

    The bias of d is b / N to first order, so with the mean over the two halves of a random halving,

        d_inf = 2 d(N) - mean d(N / 2),   left over: O(1 / N^2),

    averaged over halvings. A halving shares its first-order noise with the whole, so d_inf is as sharp as d.

    Args:
        features: The feature function.
        reference: The real data.
        halvings: Number of halvings, each with two more distances.
        reference_is: "sample" halves the reference too and estimates the distance of the two distributions;
            "population" takes the reference as it is, as the paper does: the bias of its finite number stays.
        batch_size: Number of reference examples per call of the feature extractor.

    Raises:
        ValueError: No halving, a reference of less than 4 examples, or a mean and covariance taken for a sample.

    Reference: Chong and Forsyth, "Effectively unbiased FID and Inception score and where to find them", 2020 (a line
    through 15 values of N; here through two, which costs less and leaves less of the second order).
    """

    name = "Frechet distance, N to infinity"

    def __init__(
        self,
        features: Features,
        reference: Reference,
        *,
        halvings: int = 4,
        reference_is: Literal["sample", "population"] = "sample",
        batch_size: int = 256,
    ):
        if halvings < 1 or reference_is not in ("sample", "population"):
            raise ValueError(
                f"needs halvings >= 1 and reference_is 'sample' or 'population'; got halvings={halvings} and"
                f" reference_is={reference_is!r}"
            )
        if isinstance(reference, ReferenceMoments):
            if reference_is == "sample":
                raise ValueError(
                    f"of the reference {reference.facts.name!r} only mean and covariance are known, which cannot be"
                    " halved; call FrechetInfinity(features, reference, reference_is='population')"
                )
        elif len(reference) < 4:
            raise ValueError(f"needs 4 reference examples to halve; got {len(reference)}")
        self.halvings = halvings
        self.reference_is = reference_is
        super().__init__(features, reference, batch_size=batch_size)

    def settings(self) -> Mapping[str, Any]:
        """Number of features, halvings, and what the reference is taken for."""
        return {**super().settings(), "halvings": self.halvings, "reference is": self.reference_is}

    def compute(self) -> Value:
        """The extrapolation; flagged "singular" where half of the examples are too few for a covariance.

        Raises:
            ValueError: Fewer than 4 samples were seen.
        """
        self._need(4)
        rows, real = self.rows(), self._real_moments
        examples = real.count if self._fixed else len(self._real) // 2
        singular = _singular(len(rows) // 2, examples, len(real.mean))
        seen = moments(rows)
        found = coupling(seen.covariance, real.covariance)
        whole = float((seen.mean - real.mean).square().sum()) + found.squared()
        halves = []
        for k in range(self.halvings):
            of_real = (real, real) if self._fixed else _halves(self._real, k)
            for a, b in zip(_halves(rows, k), of_real, strict=True):
                halves.append(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
        number = 2.0 * whole - sum(halves) / len(halves)
        return self._value(number, rows, seen, found, singular, {"distance at this N": whole})

    @property
    def _fixed(self) -> bool:
        return self.reference_is == "population"


def _halves(rows: Tensor, number: int) -> tuple[Moments, Moments]:
    order = torch.from_numpy(philox(len(rows), number).permutation(len(rows)))
    middle = len(rows) // 2
    return moments(rows[order[:middle]]), moments(rows[order[middle:]])
