"""What can be done with latents: paths between them, temperature, and whether two models find the same ones.

A latent is a point at t = 1, where the prior is N(0, prior_std^2 I); the probability flow maps data to it and back
(`transport`). In high dimension the prior's mass lies on a thin shell of radius prior_std sqrt(D), which a straight
line between two latents leaves and an arc on the sphere does not.
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
    1985, as used by Song et al. 2021, section D.4); "linear": (1 - a) z_1 + a z_2. Norms that differ go along: where
    the angle is 0 the arc is the line. Opposite latents have no arc.

    Args:
        first: z_1, (B, *event).
        second: z_2, shape of `first`.
        weights: a, (K,); 0 is the first and 1 the second. Values outside [0, 1] extrapolate.
        path: Along the sphere or straight.

    Returns:
        (B, K, *event).

    Raises:
        ValueError: Shapes differ; a path of another name; or two latents point in opposite directions, between which
            there is no one arc.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"the two latents have shapes {tuple(first.shape)} and {tuple(second.shape)}; interpolation pairs them up,"
            " so give as many of one as of the other, of one model's shape"
        )
    if path not in ("spherical", "linear"):
        raise ValueError(f"path={path!r} is neither 'spherical' nor 'linear'")
    batch = first.shape[0]
    a = weights.to(torch.float64).to(first.device)
    start, end = (z.reshape(batch, -1).to(torch.float64) for z in (first, second))
    if path == "linear":
        left, right = (1.0 - a).expand(batch, -1), a.expand(batch, -1)
    else:
        left, right = _on_the_arc(start, end, a)
    between = left[:, :, None] * start[:, None, :] + right[:, :, None] * end[:, None, :]
    return between.to(first.dtype).reshape(batch, len(weights), *first.shape[1:])


def _on_the_arc(start: Tensor, end: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The two coefficients, (B, K) each."""
    norms = start.norm(dim=1) * end.norm(dim=1)
    cosine = torch.where(norms > 0, (start * end).sum(dim=1) / norms.clamp_min(1e-300), torch.ones_like(norms))
    if bool((cosine < -1.0 + 1e-9).any()):
        pair = int((cosine < -1.0 + 1e-9).nonzero()[0])
        raise ValueError(
            f"the latents of pair {pair} point in opposite directions, and every great circle joins them; use"
            " path='linear', or other latents"
        )
    w = torch.arccos(cosine.clamp(-1.0, 1.0))[:, None]
    near = w < 1e-6  # sin(a w) / sin w -> a
    sine = torch.where(near, torch.ones_like(w), torch.sin(w))
    left = torch.where(near, (1.0 - a).expand(len(w), -1), torch.sin((1.0 - a) * w) / sine)
    right = torch.where(near, a.expand(len(w), -1), torch.sin(a * w) / sine)
    return left, right


def tempered(z: Tensor, temperature: float) -> Tensor:
    """sqrt(temperature) z: the latent of a prior with `temperature` times the variance.

    Below 1 samples become more typical and less diverse (Song et al. 2021 reduce the norm of the embedding, appendix
    D.4); above 1 the opposite.

    Raises:
        ValueError: A temperature that is not positive.
    """
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be positive; 1 leaves the latent as it is")
    return math.sqrt(temperature) * z


@dataclass(frozen=True)
class Agreement:
    """How alike two models encode the same data.

    Args:
        correlation: Correlation over the examples of each dimension between the two encodings, (D,).
        mean: Its mean over dimensions.
        shuffled: The same mean where one encoding's examples are shuffled: what unrelated latents give.
        shuffled_deviation: Standard deviation of that over the shuffles.
        difference: Root mean square of the difference of the two encodings, over that of the first.
        shuffled_difference: The same for shuffled examples.
    """

    correlation: Tensor
    mean: float
    shuffled: float
    shuffled_deviation: float
    difference: float
    shuffled_difference: float

    @property
    def z_score(self) -> float:
        """How many deviations of the shuffled baseline the mean correlation lies above it."""
        return (self.mean - self.shuffled) / max(self.shuffled_deviation, 1e-12)


def agreement(first: Tensor, second: Tensor, *, shuffles: int = 20, seed: int = 0) -> Agreement:
    """Compare two models' latents of the same examples: the check of identifiable encoding (Song et al. 2021, D.5).

    The flow of a process is determined by the data's law alone, so two models that both learned it encode alike.

    Args:
        first: Latents of one model, (B, *event), model units.
        second: Latents of the other for the same examples, shape of `first`; both in units of their prior's deviation
            if the priors differ.
        shuffles: Permutations of the baseline.
        seed: Of the permutations.

    Raises:
        ValueError: Other shapes, or fewer than three examples, over which nothing correlates.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"the encodings have shapes {tuple(first.shape)} and {tuple(second.shape)}; encode the same examples with"
            " both models"
        )
    if first.shape[0] < 3 or shuffles < 2:
        raise ValueError(
            f"{first.shape[0]} examples and {shuffles} shuffles say nothing of a correlation; give at least 3 and 2,"
            " better 16 and 20"
        )
    x, y = (z.reshape(z.shape[0], -1).to(torch.float64).cpu() for z in (first, second))
    generator = torch.Generator().manual_seed(seed)
    own = _correlation(x, y)
    baseline, apart = [], []
    for _ in range(shuffles):
        other = y[_derangement(len(y), generator)]
        baseline.append(float(_correlation(x, other).mean()))
        apart.append(_difference(x, other))
    shuffled = torch.tensor(baseline, dtype=torch.float64)
    return Agreement(
        own,
        float(own.mean()),
        float(shuffled.mean()),
        float(shuffled.std()),
        _difference(x, y),
        sum(apart) / len(apart),
    )


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Of each column over the rows; 0 where one of the two is constant."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    scale = x.norm(dim=0) * y.norm(dim=0)
    return torch.where(scale > 0, (x * y).sum(dim=0) / scale.clamp_min(1e-300), torch.zeros_like(scale))


def _difference(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / x.norm())


def _derangement(n: int, generator: torch.Generator) -> Tensor:
    """A cyclic shift of a random order: no example is compared with itself."""
    order = torch.randperm(n, generator=generator)
    image = torch.empty(n, dtype=torch.long)
    image[order] = order.roll(1)
    return image
