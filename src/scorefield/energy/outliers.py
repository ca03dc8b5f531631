"""Outliers: scores that are larger the more unusual an example is, and what they mean against held-out data.

An energy is trained on noisy examples alone, so its value on clean ones is an extrapolation; every score here is taken
at x + sigma z and averaged over draws (Li et al. 2019). With E the energy, s the score and D the posterior mean,

    energy               E(x + sigma z)
    gradient norm        |s(x + sigma z)| sigma: of an energy |grad E| up to a constant
    denoising residual   |x - D(x + sigma z)|
    typicality           |E - median of E over the data|, of -log p where there is no energy
    noise levels         distance of (log |s(x + sigma_l z)| sigma_l)_l from its mean over the data, in their covariance
                         (Mahmood et al. 2021)
    likelihood           -log p(x) by the probability flow, which the caller computes

Such scores, like other deep likelihoods, mostly follow how complicated an example is (Serra et al. 2020). So the
complexity baselines below, which know no model, belong beside every one of them.

With the scores of n examples the model has not seen, p = (1 + #{s_i >= s}) / (n + 1) is a valid p-value of any score:
an example of the same law has P(p <= a) <= a (Vovk et al. 2005).
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from scorefield._math import norm_event
from scorefield._random import IndexedNoise, StepNoise
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.process.tabulated import Tabulated
from scorefield.score.energy import EnergyScore
from scorefield.score.score import Score

LEVELS = 10
"""Noise levels of the score over noise levels."""

RIDGE = 1e-3
"""Of the variance of every level, added to the covariance over noise levels."""


@dataclass(frozen=True)
class Statistics:
    """What is measured of every example, before anything is compared with data.

    Args:
        values: Name -> (n,), larger is more outlying.
        norms: log(|s| sigma) at the noise levels, (n, L).
        missing: Name of a score -> why this model has none.
    """

    values: Mapping[str, Tensor]
    norms: Tensor
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Reference:
    """The data as the scores see them, from examples that are not used for calibration.

    Args:
        median: Of the score whose typicality is taken, and its name.
        of: That name; None where there is none.
        mean: Of the norms over noise levels, (L,).
        precision: Inverse of their covariance, (L, L).
    """

    median: float
    of: str | None
    mean: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, found: Statistics) -> Reference:
        """From the statistics of examples of the data.

        Raises:
            ValueError: Too few for a covariance.
        """
        n, levels = found.norms.shape
        if n < 2 * levels:
            raise ValueError(
                f"{n} examples do not determine a covariance of {levels} noise levels; give at least {2 * levels}"
            )
        of = next((name for name in ("energy", "likelihood") if name in found.values), None)
        median = float(found.values[of].median()) if of is not None else 0.0
        covariance = torch.cov(found.norms.double().T)
        covariance = covariance + RIDGE * torch.diag(covariance.diagonal() + torch.finfo(torch.float32).eps)
        return cls(median, of, found.norms.double().mean(0), torch.linalg.inv(covariance))

    def scores(self, found: Statistics) -> dict[str, Tensor]:
        """All scores of examples, name -> (n,) float64, larger is more outlying."""
        out = {name: value.double() for name, value in found.values.items()}
        if self.of is not None:
            out["typicality"] = (out[self.of] - self.median).abs()
        off = found.norms.double() - self.mean
        out["noise levels"] = torch.einsum("nl,lk,nk->n", off, self.precision, off).clamp_min(0.0).sqrt()
        return out


def statistics(
    score: Score,
    x: Tensor,
    *,
    indices: Sequence[int],
    sigma: float,
    draws: int = 4,
    seed: int = 0,
    condition: Condition | None = None,
    ladder: Tabulated | None = None,
) -> Statistics:
    """Measure examples; each depends on its index, the seed and itself alone.

    Args:
        score: Any score; an energy has more to say.
        x: Examples in model units, (B, *event).
        indices: Their numbers, which decide their noise.
        sigma: Noise level at which they are looked at, model units, in the ratio sigma / alpha.
        draws: Draws of noise to average over.
        seed: Of the noise.
        condition: What is known of each.
        ladder: Levels a network was trained on, the only times it is then asked at; that of the process by default.

    Raises:
        ValueError: A noise level outside the process, or no draw.
        TypeError: An energy that is not one number per example.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} of noise average nothing; take 1 or more")
    process = score.process
    ladder = ladder or (process if isinstance(process, Tabulated) else None)
    t, levels = time_of_noise(score, sigma), torch.linspace(process.t_min.sampling, 1.0, LEVELS, dtype=torch.float64)
    if ladder is not None:
        levels = ladder.time((levels * (ladder.levels - 1)).round().unique())
        # An energy knows no level; a network of integer labels knows no other.
        t = t if isinstance(score, EnergyScore) else ladder.time(ladder.position(t).round())
    t = t.expand(len(x))
    rows = {name: torch.zeros(len(x), dtype=torch.float64) for name in ("gradient norm", "denoising residual")}
    energies, norms = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), len(levels), dtype=torch.float64)
    noise = IndexedNoise(seed, indices)
    with torch.no_grad():
        for draw in range(draws):
            z = StepNoise(noise, draw)
            seen = process.perturb(x, t, z(x))
            rows["denoising residual"] += norm_event(score.denoised(seen, t, condition) - x).cpu().double() / draws
            rows["gradient norm"] += _scaled_norm(score, seen, t, condition) / draws
            if isinstance(score, EnergyScore):
                energies += _energy(score, seen, t, condition) / draws
            for k, level in enumerate(levels):
                at = level.expand(len(x))
                norms[:, k] += _scaled_norm(score, process.perturb(x, at, z(x)), at, condition).log() / draws
    if isinstance(score, EnergyScore):
        return Statistics({"energy": energies, **rows}, norms, {})
    return Statistics(rows, norms, {"energy": f"{type(score).__name__} is a gradient and has no energy"})


def time_of_noise(score: Score, sigma: float) -> Tensor:
    """The time of a noise level sigma / alpha, (1,).

    Raises:
        ValueError: The process does not reach it.
    """
    process = score.process
    ends = torch.tensor([process.t_min.smallest, 1.0], dtype=torch.float64)
    low, high = (process.sigma(ends) / process.alpha(ends)).tolist()
    if not low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9):
        raise ValueError(
            f"this model was trained on the noise levels {low:.4g} to {high:.4g} (model units, sigma / alpha), and"
            f" {sigma:g} is not among them; give one that is, --noise {math.sqrt(low * high):.3g} for example"
        )
    if low == high:
        return ends[1:]
    return process.time_at_log_snr(torch.tensor([-2.0 * math.log(min(max(sigma, low), high))], dtype=torch.float64))


def _scaled_norm(score: Score, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
    """|s| sigma, (B,) float64; of pure noise about sqrt(D)."""
    return norm_event(score(x, t, condition)).cpu().double() * score.process.sigma(t).cpu().double()


def _energy(score: EnergyScore, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
    energy = score.energy(x, t, condition)
    if energy.shape != (len(x),):
        raise TypeError(
            f"an energy is one number per example; for {len(x)} examples this network returns {tuple(energy.shape)}. A"
            " network of several outputs is a score or a classifier: its energy would be one of them, or their"
            " log-sum-exp, returned as shape (B,)"
        )
    return energy.cpu().double()


# ------------------------------------------------------------------------------------- baselines


def complexity(x: Tensor, spec: DataSpec) -> dict[str, Tensor]:
    """What can be said without a model: compressed length in bytes, variance, mean difference of neighbours.

    Values are turned into bytes over the range of the data, or five standard deviations where they are unbounded.

    Args:
        x: Examples in data units, (n, *event).
        spec: Of the data.

    Returns:
        Name -> (n,) float64.
    """
    unit = _unit(x.to(torch.float32), spec)
    flat = unit.flatten(1).double()
    out = {"variance": flat.var(dim=1, correction=0) if flat.shape[1] > 1 else torch.zeros(len(x), dtype=torch.float64)}
    differences = [
        unit.diff(dim=axis).abs().flatten(1).double() for axis in range(2 if unit.ndim > 2 else 1, unit.ndim)
    ]
    parts = [d.mean(1) for d in differences if d.shape[1]]
    if parts:
        out["mean difference of neighbours"] = torch.stack(parts).mean(0)
    bytes_ = (255.0 * unit.clamp(0.0, 1.0)).round().to(torch.uint8)
    out["compressed length"] = torch.tensor([float(_compressed(example)) for example in bytes_], dtype=torch.float64)
    return out


def _unit(x: Tensor, spec: DataSpec) -> Tensor:
    m = spec.to_model(x)
    if not spec.bounded:
        return 0.5 + m / 10.0
    a, b = spec.model_range
    return (m - a) / (b - a)


def _compressed(example: Tensor) -> int:
    """Bytes of a PNG where the example is an image of one or three channels, else of a deflated stream."""
    array = example.cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3):
        stream = io.BytesIO()
        picture = Image.fromarray(array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0).copy())
        picture.save(stream, "PNG", optimize=True)
        return stream.tell()
    return len(zlib.compress(array.tobytes(), 9))


# ------------------------------------------------------------------------------------- calibration


def conformal(calibration: Tensor, scores: Tensor) -> Tensor:
    """p = (1 + #{s_i >= s}) / (n + 1), (m,) float64.

    Args:
        calibration: Scores of examples of the data that neither trained the model nor fitted the score, (n,).
        scores: Of the examples in question, (m,).

    Raises:
        ValueError: No calibration example, or a NaN.
    """
    held, asked = calibration.double().reshape(-1), scores.double().reshape(-1)
    if not len(held):
        raise ValueError("p-values are ranks among calibration examples; give at least one")
    for name, values in (("calibration", held), ("asked", asked)):
        if bad := int(values.isnan().sum()):
            raise ValueError(
                f"{bad} of {len(values)} {name} scores are NaN and have no rank; leave them out and say so"
            )
    smaller = torch.searchsorted(held.sort().values, asked, side="left")
    return (1.0 + len(held) - smaller.double()) / (len(held) + 1.0)


def uniformity(calibration: Tensor, scores: Tensor) -> float:
    """p-value of the hypothesis that both sets of scores have one law, so that conformal p-values are uniform.

    All p-values share their calibration set, which a one-sample test would not know of; they are uniform if and only if
    the two sets are exchangeable, and that is tested: two-sample Kolmogorov-Smirnov by its asymptotic law (Stephens
    1970), which ties make conservative.

    Args:
        calibration: (n,).
        scores: Of other examples of the data, (m,).
    """
    a, b = calibration.double().sort().values, scores.double().sort().values
    both = torch.cat([a, b])
    at_most = [torch.searchsorted(v, both, side="right").double() / len(v) for v in (a, b)]
    distance = float((at_most[0] - at_most[1]).abs().max())
    root = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    z = (root + 0.12 + 0.11 / root) * distance
    if z < 0.2:  # the series does not converge there, and its sum is 1 to ten digits
        return 1.0
    return min(1.0, max(0.0, 2.0 * sum((-1) ** (k - 1) * math.exp(-2.0 * (k * z) ** 2) for k in range(1, 101))))
