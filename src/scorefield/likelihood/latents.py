"""Operations on latents: paths between them, temperature, and agreement of the encodings of two models.

A latent is a point at t = 1, where the prior is N(0, prior_std^2 I); the probability flow maps data to latents and back
(`transport`). In high dimension the mass of the prior lies in a thin shell of radius prior_std sqrt(D). A straight line
between two latents leaves this shell, and an arc on the sphere stays in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Path = Literal["spherical", "linear"]


def interpolate(first: Tensor, second: Tensor, weights: Tensor, path: Path = "spherical") -> Tensor:
    """Points between pairs of latents.

    "spherical": z(a) = sin((1 - a) w) / sin w z_1 + sin(a w) / sin w z_2 with w the angle between the two (Shoemake
    1985, as used by Song et al. 2021, section D.4). "linear": z(a) = (1 - a) z_1 + a z_2. Norms may differ and are
    interpolated too; where the angle is 0 the arc is the line.

    Args:
        first: z_1, (B, *event).
        second: z_2, shape of `first`.
        weights: a, (K,); 0 is the first latent and 1 the second. Values outside [0, 1] extrapolate.
        path: "spherical" or "linear".

    Returns:
        Latents on the paths, (B, K, *event).

    Raises:
        ValueError: The shapes differ, the path has another name, or two latents point in opposite directions, between
            which there is no unique arc.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"the two sets of latents have shapes {tuple(first.shape)} and {tuple(second.shape)}, and interpolation"
            " pairs them up; give equally many latents of equal shape"
        )
    if path not in ("spherical", "linear"):
        raise ValueError(f"path={path!r} must be 'spherical' or 'linear'")
    batch = first.shape[0]
    a = weights.to(torch.float64).to(first.device)
    start, end = (z.reshape(batch, -1).to(torch.float64) for z in (first, second))
    if path == "linear":
        left, right = (1.0 - a).expand(batch, -1), a.expand(batch, -1)
    else:
        left, right = _arc_coefficients(start, end, a)
    between = left[:, :, None] * start[:, None, :] + right[:, :, None] * end[:, None, :]
    return between.to(first.dtype).reshape(batch, len(weights), *first.shape[1:])


def _arc_coefficients(start: Tensor, end: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients of z_1 and z_2 on the arc, (B, K) each."""
    norms = start.norm(dim=1) * end.norm(dim=1)
    cosine = torch.where(norms > 0, (start * end).sum(dim=1) / norms.clamp_min(1e-300), torch.ones_like(norms))
    if bool((cosine < -1.0 + 1e-9).any()):
        pair = int((cosine < -1.0 + 1e-9).nonzero()[0])
        raise ValueError(
            f"the latents of pair {pair} point in opposite directions, so every great circle joins them and the arc"
            " is not unique; use path='linear', or other latents"
        )
    w = torch.arccos(cosine.clamp(-1.0, 1.0))[:, None]
    near = w < 1e-6  # sin(a w) / sin w -> a
    sine = torch.where(near, torch.ones_like(w), torch.sin(w))
    left = torch.where(near, (1.0 - a).expand(len(w), -1), torch.sin((1.0 - a) * w) / sine)
    right = torch.where(near, a.expand(len(w), -1), torch.sin(a * w) / sine)
    return left, right


def tempered(z: Tensor, temperature: float) -> Tensor:
    """sqrt(temperature) z, which corresponds to a prior with `temperature` times the variance.

    With a temperature below 1 samples are more typical and less diverse (Song et al. 2021, appendix D.4, reduce the
    norm of the embedding); above 1 they are less typical and more diverse.

    Raises:
        ValueError: The temperature is not positive and finite.
    """
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be positive and finite; 1 leaves the latents unchanged")
    return math.sqrt(temperature) * z


@dataclass(frozen=True)
class Agreement:
    """Agreement of two models' encodings of the same data.

    Args:
        correlation: Correlation over the examples between the two encodings, for each dimension, (D,).
        mean: Mean of the correlation over dimensions.
        shuffled: Mean correlation where the examples of one encoding are shuffled: the baseline of unrelated latents.
        shuffled_deviation: Standard deviation of the baseline over the shuffles.
        difference: Root mean square of the difference of the two encodings, divided by that of the first.
        shuffled_difference: The same ratio for shuffled examples.
    """

    correlation: Tensor
    mean: float
    shuffled: float
    shuffled_deviation: float
    difference: float
    shuffled_difference: float

    @property
    def z_score(self) -> float:
        """Distance of the mean correlation from the shuffled baseline, in standard deviations of the baseline."""
        return (self.mean - self.shuffled) / max(self.shuffled_deviation, 1e-12)


def agreement(first: Tensor, second: Tensor, *, shuffles: int = 20, seed: int = 0) -> Agreement:
    """Compare two models' latents of the same examples: the test of identifiable encoding (Song et al. 2021, D.5).

    The probability flow of a process is determined by the data distribution alone, so two models that have both learned
    it encode the data in the same way.

    Args:
        first: Latents of one model, (B, *event), model units.
        second: Latents of the other model for the same examples, shape of `first`. If the priors differ, both must be
            divided by the standard deviation of their prior.
        shuffles: Number of permutations of the baseline, at least 2.
        seed: Seed of the permutations.

    Raises:
        ValueError: The shapes differ, or there are fewer than three examples or two shuffles.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"the encodings have shapes {tuple(first.shape)} and {tuple(second.shape)}, which must be equal; encode the"
            " same examples with both models"
        )
    if first.shape[0] < 3 or shuffles < 2:
        raise ValueError(
            f"a correlation cannot be estimated from {first.shape[0]} examples and {shuffles} shuffles; give at least 3"
            " examples and 2 shuffles, better 16 and 20"
        )
    x, y = (z.reshape(z.shape[0], -1).to(torch.float64).cpu() for z in (first, second))
    generator = torch.Generator().manual_seed(seed)
    correlation = _correlation(x, y)
    baseline, differences = [], []
    for _ in range(shuffles):
        other = y[_derangement(len(y), generator)]
        baseline.append(float(_correlation(x, other).mean()))
        differences.append(_difference(x, other))
    shuffled = torch.tensor(baseline, dtype=torch.float64)
    return Agreement(
        correlation,
        float(correlation.mean()),
        float(shuffled.mean()),
        float(shuffled.std()),
        _difference(x, y),
        sum(differences) / len(differences),
    )


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Correlation over the rows of each pair of columns, (D,); 0 where one of the two is constant."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    scale = x.norm(dim=0) * y.norm(dim=0)
    return torch.where(scale > 0, (x * y).sum(dim=0) / scale.clamp_min(1e-300), torch.zeros_like(scale))


def _difference(x: Tensor, y: Tensor) -> float:
    """|x - y| / |x|."""
    return float((x - y).norm() / x.norm())


def _derangement(n: int, generator: torch.Generator) -> Tensor:
    """A random permutation without fixed points (a cyclic shift of a random order), so no example keeps its place."""
    order = torch.randperm(n, generator=generator)
    image = torch.empty(n, dtype=torch.long)
    image[order] = order.roll(1)
    return image
