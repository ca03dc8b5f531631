"""Frechet distance between Gaussians fitted to features of samples and of real data.

With means m_a, m_b and covariances S_a, S_b of the features,

    d = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)),

the squared 2-Wasserstein distance of N(m_a, S_a) and N(m_b, S_b) (Dowson and Landau 1982), which over Inception
features is the FID of Heusel et al. (2017, eq. 6). d is biased upwards by about (number of features) / N, so values
are comparable at equal N only; the receipt holds N.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield.metrics.features import Features, feature_rows
from scorefield.metrics.metric import Metric, Reference
from scorefield.metrics.receipt import Value


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Squared 2-Wasserstein distance of two Gaussians, exact also where covariances are singular.

    With R R' = S from symmetric eigen-decompositions, the trace term is min over orthogonal Q of |R_a - R_b Q|^2,
    attained at Q = V U' with U s V' = R_a' R_b (Bhatia, Jain and Lim 2019, theorem 1). As a sum of squares it is
    never negative, zero for equal arguments, and free of the cancellation in tr S_a + tr S_b - 2 tr(...)^(1/2); the
    usual matrix square root of the product S_a S_b is unstable where a covariance is singular.

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
    root_a, root_b = _root(covariance_a), _root(covariance_b)
    u, _, v_transposed = torch.linalg.svd(root_a.mT @ root_b)
    return float(shift @ shift + (root_a - root_b @ (v_transposed.mT @ u.mT)).square().sum())


def _root(covariance: Tensor) -> Tensor:
    """R with R R' = S; eigenvalues that rounding cannot tell from zero are zero, else their roots would be 1e-8."""
    s = covariance.to(torch.float64)
    values, vectors = torch.linalg.eigh((s + s.mT) / 2)
    rounding = len(s) * torch.finfo(torch.float64).eps * float(values.abs().max())
    # The caller's covariance may itself be rounded, to float32 at worst.
    if float(values.min()) < -1e-5 * float(values.abs().max()):
        raise ValueError(f"a covariance has the eigenvalue {float(values.min()):g}; covariances have none below zero")
    return vectors * values.where(values > rounding, 0.0).sqrt()


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


class FrechetDistance(Metric):
    """Frechet distance of samples to real data over any features, in squared feature units; lower is better.

    Args:
        features: The feature function.
        reference: The real data; its features' moments are computed here, once.
        batch_size: How many reference examples to push through the features at once.

    Raises:
        ValueError: The reference has a single example.

    Reference: Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017.
    """

    name = "Frechet distance"

    def __init__(self, features: Features, reference: Reference, *, batch_size: int = 256):
        if len(reference) < 2:
            raise ValueError("a covariance needs at least two reference examples; this reference has one")
        super().__init__(reference, features)
        self._real = Moments()
        for batch in reference.batches(batch_size):
            self._real.update(feature_rows(features, batch))

    def settings(self) -> Mapping[str, Any]:
        """Nothing but the number of features, which the feature function decides."""
        return {"features": len(self._real.mean)}

    def compute(self) -> Value:
        """The distance; flagged "singular" where samples or reference are too few for their covariance.

        Raises:
            ValueError: Fewer than two samples were seen.
        """
        self._need(2)
        seen, real = self._seen, self._real
        size = len(real.mean)
        warnings = tuple(
            f"only {m.count} {what} for {size} features: their covariance is singular (rank at most {m.count - 1}) and"
            f" the distance mostly measures N; use more than {size}, or features of lower dimension"
            for what, m in (("samples", seen), ("reference examples", real))
            if m.count <= size
        )
        number = frechet_distance(seen.mean, seen.covariance, real.mean, real.covariance)
        shift = float((seen.mean - real.mean).square().sum())
        return Value(
            number,
            unit="squared feature units",
            better="lower",
            status="singular" if warnings else "ok",
            warnings=warnings,
            details={"mean term": shift, "covariance term": number - shift},
        )

    def _clear(self) -> None:
        self._seen = Moments()

    def _accumulate(self, x: Tensor) -> None:
        self._seen.update(feature_rows(self.features, x))

    def _tensors(self) -> dict[str, Tensor]:
        return {"mean": self._seen.mean, "scatter": self._seen.scatter}

    def _absorb(self, tensors: Mapping[str, Tensor], count: int) -> None:
        self._seen.merge(count, tensors["mean"], tensors["scatter"])
