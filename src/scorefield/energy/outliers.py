"""Outlier detection: scores that increase with how unusual an example is, and their calibration on held-out data.

An energy is trained on noisy examples only, so its value at clean ones is an extrapolation. Every score is therefore
evaluated at x + sigma z and averaged over draws of z (Li et al. 2019). With E the energy, s the score function and D
the posterior mean, the outlier scores are

    energy               E(x + sigma z)
    gradient norm        |s(x + sigma z)| sigma, which is |grad E| up to a constant for an energy
    denoising residual   |x - D(x + sigma z)|
    typicality           |E - median of E over the data|, with -log p instead of E where there is no energy
    noise levels         Mahalanobis distance of (log |s(x + sigma_l z)| sigma_l)_l from its mean over the data
                         (Mahmood et al. 2021)
    likelihood           -log p(x) by the probability flow, which the caller computes

Such scores, like other deep likelihoods, mostly measure how complex an example is (Serra et al. 2020). Complexity
baselines, which use no model, are therefore computed beside them.

With the scores s_i of n held-out examples, p = (1 + #{s_i >= s}) / (n + 1) is a valid p-value for any score: an example
of the same distribution has P(p <= a) <= a (Vovk et al. 2005).
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
"""Number of noise levels of the outlier score "noise levels"."""

RIDGE = 1e-3
"""Fraction of the variance of each level that is added to the diagonal of the covariance over noise levels."""


@dataclass(frozen=True)
class Statistics:
    """Measurements of examples, before they are compared with data.

    Args:
        values: Name of an outlier score -> its values, (n,); larger is more unusual.
        norms: log(|s| sigma) at the noise levels, (n, L).
        missing: Name of an outlier score -> the reason why this model does not have it.
    """

    values: Mapping[str, Tensor]
    norms: Tensor
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Reference:
    """Statistics of the data that some scores are relative to, from examples that are not used for calibration.

    Args:
        median: Median of the score whose typicality is computed; 0 where there is none.
        of: Name of that score, "energy" or "likelihood"; None where the model has neither.
        mean: Mean of the norms at the noise levels, (L,).
        precision: Inverse of their covariance, (L, L).
    """

    median: float
    of: str | None
    mean: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, found: Statistics) -> Reference:
        """Compute the reference from the measurements of examples of the data.

        Raises:
            ValueError: There are too few examples for a covariance.
        """
        n, levels = found.norms.shape
        if n < 2 * levels:
            raise ValueError(
                f"{n} examples do not determine the covariance of {levels} noise levels; give at least {2 * levels}"
                " examples"
            )
        of = next((name for name in ("energy", "likelihood") if name in found.values), None)
        median = float(found.values[of].median()) if of is not None else 0.0
        covariance = torch.cov(found.norms.double().T)
        covariance = covariance + RIDGE * torch.diag(covariance.diagonal() + torch.finfo(torch.float32).eps)
        return cls(median, of, found.norms.double().mean(0), torch.linalg.inv(covariance))

    def scores(self, found: Statistics) -> dict[str, Tensor]:
        """All outlier scores of examples, name -> (n,) float64; larger is more unusual."""
        out = {name: value.double() for name, value in found.values.items()}
        if self.of is not None:
            out["typicality"] = (out[self.of] - self.median).abs()
        deviation = found.norms.double() - self.mean
        squared = torch.einsum("nl,lk,nk->n", deviation, self.precision, deviation)
        out["noise levels"] = squared.clamp_min(0.0).sqrt()
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
    """Measure examples; the values of an example depend only on the example, its index and the seed.

    Args:
        score: Any score; an energy provides the outlier score "energy" too.
        x: Examples in model units, (B, *event).
        indices: Indices of the examples, which determine their noise.
        sigma: Noise level sigma / alpha at which the examples are evaluated, model units.
        draws: Number of draws of the noise that are averaged.
        seed: Seed of every random draw.
        condition: The variables that the score is conditioned on, by name, one row per example.
        ladder: The levels on which the network was trained; it is evaluated at these only. By default the process, if
            it is a ladder.

    Raises:
        ValueError: The noise level is outside the range of the process, or `draws` is below 1.
        TypeError: The energy is not one number per example.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} is the number of noise draws that are averaged and must be at least 1")
    process = score.process
    ladder = ladder or (process if isinstance(process, Tabulated) else None)
    t, levels = time_of_noise(score, sigma), torch.linspace(process.t_min.sampling, 1.0, LEVELS, dtype=torch.float64)
    if ladder is not None:
        levels = ladder.time((levels * (ladder.levels - 1)).round().unique())
        # An energy is not conditioned on the level, so any time will do. A network may be defined at its levels only.
        t = t if isinstance(score, EnergyScore) else ladder.time(ladder.position(t).round())
    t = t.expand(len(x))
    rows = {name: torch.zeros(len(x), dtype=torch.float64) for name in ("gradient norm", "denoising residual")}
    energies, norms = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), len(levels), dtype=torch.float64)
    noise = IndexedNoise(seed, indices)
    with torch.no_grad():
        for draw in range(draws):
            z = StepNoise(noise, draw)
            x_t = process.perturb(x, t, z(x))
            rows["denoising residual"] += norm_event(score.denoised(x_t, t, condition) - x).cpu().double() / draws
            rows["gradient norm"] += _scaled_norm(score, x_t, t, condition) / draws
            if isinstance(score, EnergyScore):
                energies += _energy(score, x_t, t, condition) / draws
            for k, level in enumerate(levels):
                at = level.expand(len(x))
                norms[:, k] += _scaled_norm(score, process.perturb(x, at, z(x)), at, condition).log() / draws
    if isinstance(score, EnergyScore):
        return Statistics({"energy": energies, **rows}, norms, {})
    return Statistics(rows, norms, {"energy": f"{type(score).__name__} is a gradient and has no energy"})


def time_of_noise(score: Score, sigma: float) -> Tensor:
    """The time at which the process has the noise level sigma / alpha, (1,).

    Raises:
        ValueError: The noise level is outside the range of the process.
    """
    process = score.process
    ends = torch.tensor([process.t_min.smallest, 1.0], dtype=torch.float64)
    low, high = (process.sigma(ends) / process.alpha(ends)).tolist()
    if not low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9):
        raise ValueError(
            f"this model was trained on the noise levels {low:.4g} to {high:.4g} (model units, sigma / alpha), and"
            f" {sigma:g} is not among them; give one in this range, for example --noise {math.sqrt(low * high):.3g}"
        )
    if low == high:
        return ends[1:]
    return process.time_at_log_snr(torch.tensor([-2.0 * math.log(min(max(sigma, low), high))], dtype=torch.float64))


def _scaled_norm(score: Score, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
    """|s| sigma, (B,) float64; about sqrt(D) for pure noise."""
    return norm_event(score(x, t, condition)).cpu().double() * score.process.sigma(t).cpu().double()


def _energy(score: EnergyScore, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
    """E(x), (B,) float64 on the CPU."""
    energy = score.energy(x, t, condition)
    if energy.shape != (len(x),):
        raise TypeError(
            f"an energy is one number per example, and for {len(x)} examples this network returns the shape"
            f" {tuple(energy.shape)}. A network of several outputs is a score or a classifier; return one output, or"
            " their log-sum-exp, as an energy of shape (B,)"
        )
    return energy.cpu().double()


# ------------------------------------------------------------------------------------- baselines


def complexity(x: Tensor, spec: DataSpec) -> dict[str, Tensor]:
    """Complexity baselines without a model: compressed length in bytes, variance, mean difference of neighbours.

    Values are quantised to bytes over the range of the data, or over five standard deviations to either side where the
    data are unbounded.

    Args:
        x: Examples in data units, (n, *event).
        spec: The spec of the data.

    Returns:
        Name of the baseline -> its values, (n,) float64.
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
    """Data units mapped so that the range of the data is [0, 1]."""
    m = spec.to_model(x)
    if not spec.bounded:
        return 0.5 + m / 10.0
    a, b = spec.model_range
    return (m - a) / (b - a)


def _compressed(example: Tensor) -> int:
    """Length in bytes as a PNG for images of one or three channels, else as a deflated stream."""
    array = example.cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3):
        stream = io.BytesIO()
        picture = Image.fromarray(array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0).copy())
        picture.save(stream, "PNG", optimize=True)
        return stream.tell()
    return len(zlib.compress(array.tobytes(), 9))


# ------------------------------------------------------------------------------------- calibration


def conformal(calibration: Tensor, scores: Tensor) -> Tensor:
    """Conformal p-values p = (1 + #{s_i >= s}) / (n + 1), (m,) float64.

    Args:
        calibration: Scores s_i of held-out examples of the data, used neither to train the model nor to fit the score,
            (n,).
        scores: Scores s of the tested examples, (m,).

    Raises:
        ValueError: There is no calibration example, or a score is NaN.
    """
    reference, tested = calibration.double().reshape(-1), scores.double().reshape(-1)
    if not len(reference):
        raise ValueError(
            "a p-value is a rank among calibration examples, and there are none; give at least one calibration score"
        )
    for name, values in (("calibration", reference), ("tested", tested)):
        if bad := int(values.isnan().sum()):
            raise ValueError(
                f"{bad} of {len(values)} {name} scores are NaN and have no rank; leave these examples out and report"
                " their number"
            )
    smaller = torch.searchsorted(reference.sort().values, tested, side="left")
    return (1.0 + len(reference) - smaller.double()) / (len(reference) + 1.0)


def uniformity(calibration: Tensor, scores: Tensor) -> float:
    """p-value of the hypothesis that both sets of scores have the same distribution.

    Under this hypothesis conformal p-values are uniform. They share one calibration set and are therefore dependent,
    which a one-sample test of uniformity would ignore. The test is the two-sample Kolmogorov-Smirnov test with its
    asymptotic distribution (Stephens 1970), which is conservative where scores are tied.

    Args:
        calibration: Scores of the calibration examples, (n,).
        scores: Scores of other examples of the data, (m,).
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
