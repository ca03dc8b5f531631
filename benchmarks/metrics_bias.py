"""Bias of metrics and coverage of their 95 % intervals, on Gaussians whose distances are known in closed form.

    python benchmarks/metrics_bias.py               # tables on the screen, benchmarks/results/metrics_bias.json
    python benchmarks/metrics_bias.py --counts 1000 2000 --repeats 50
    python benchmarks/metrics_bias.py --only time   # one Frechet distance of 10,000 x 2048

Real examples are drawn from N(0, I) in 64 dimensions. Samples are drawn from the same distribution, or from
N(0.1, diag(s^2)) with s from 0.8 to 1.2, whose Frechet distance is 1.5. N of each are drawn anew in every repeat.

The Frechet distance of N examples is biased, and its interval is stated for the expectation of the distance at that N;
its coverage is therefore that of the mean over repeats. The extrapolated Frechet distance, the kernel distances and the
energy distance estimate the distance of the distributions, so that their coverage is that of the closed form. For all
other metrics only the expectation at N is known, by the mean over repeats. With 100 repeats a coverage of 95 % has a
standard error of 2.2 points.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.metrics import (
    Coverage,
    Density,
    EnergyDistance,
    FrechetDistance,
    FrechetInfinity,
    GaussianDiscrepancy,
    KernelDistance,
    Metric,
    Precision,
    RawFeatures,
    Recall,
    Reference,
    SlicedWasserstein,
    VendiScore,
    measure_all,
)

HERE = Path(__file__).parent
F = 64
F64 = torch.float64
SHIFT = torch.full((F,), 0.1, dtype=F64)
SCALE = torch.linspace(0.8, 1.2, F, dtype=F64)
BANDWIDTH = 8.0
DISTRIBUTIONS = {"same law": (torch.zeros(F, dtype=F64), torch.ones(F, dtype=F64)), "apart": (SHIFT, SCALE)}
"""Name -> mean and standard deviations of the samples; the real examples have those of "same law"."""
Makers = dict[str, Callable[[Reference, int], Metric]]

FRECHET: Makers = {
    "Frechet distance": lambda r, _: FrechetDistance(RawFeatures(), r),
    "Frechet, N to infinity": lambda r, _: FrechetInfinity(RawFeatures(), r),
}
OTHERS: Makers = {
    "kernel distance": lambda r, _: KernelDistance(RawFeatures(), r),
    "Gaussian MMD": lambda r, _: GaussianDiscrepancy(r, bandwidth=BANDWIDTH),
    "energy distance": lambda r, _: EnergyDistance(r),
    "sliced Wasserstein": lambda r, seed: SlicedWasserstein(r, seed=seed),
    "precision": lambda r, _: Precision(RawFeatures(), r),
    "recall": lambda r, _: Recall(RawFeatures(), r),
    "density": lambda r, _: Density(RawFeatures(), r),
    "coverage": lambda r, _: Coverage(RawFeatures(), r),
    "Vendi score": lambda r, _: VendiScore(RawFeatures(), r),
}


# ------------------------------------------------------------------------------------------------ closed forms


def exact_frechet(mean: Tensor, scale: Tensor) -> float:
    """Return the Frechet distance to N(0, I), |m|^2 + sum (s - 1)^2."""
    return float(mean.square().sum() + (scale - 1).square().sum())


def mean_cubic_kernel(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Return E (x.y / F + 1)^3 for x ~ N(m_a, diag s_a^2) and y ~ N(m_b, diag s_b^2), by the cumulants of x.y."""
    (m, s), (n, t) = ((mean, scale.square()) for mean, scale in (a, b))
    # Cumulants of a sum of independent products x_j y_j.
    k1 = m * n
    k2 = s * t + s * n.square() + t * m.square()
    k3 = 6 * s * t * m * n
    first, second, third = (float(k.sum()) / F**power for k, power in ((k1, 1), (k2, 2), (k3, 3)))
    u = first + 1.0
    return u**3 + 3 * u * second + third


def mean_gaussian_kernel(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Return E exp(-|x - y|^2 / (2 h^2))."""
    h = BANDWIDTH**2
    v = a[1].square() + b[1].square()
    return float(((h / (h + v)).sqrt() * (-(a[0] - b[0]).square() / (2 * (h + v))).exp()).prod())


def minus_mean_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Return -E |x - y|, by E Q^(1/2) = (4 pi)^(-1/2) int (1 - E exp(-t Q)) t^(-3/2) dt with t = e^u on a fine grid."""
    v, m = a[1].square() + b[1].square(), a[0] - b[0]
    u = torch.linspace(-60.0, 60.0, 240_001, dtype=F64)
    total = torch.zeros((), dtype=F64)
    for part in u.split(20_000):
        t = part.exp()[:, None]
        spread = 1 + 2 * t * v
        log = (-0.5 * spread.log() - t * m.square() / spread).sum(dim=1)
        total += (-torch.expm1(log) * (-0.5 * part).exp()).sum()
    return -float(total * (u[1] - u[0]) / math.sqrt(4 * math.pi))


def discrepancy(mean_kernel: Callable[..., float], samples: tuple[Tensor, Tensor]) -> float:
    """Return E k(x, x') + E k(y, y') - 2 E k(x, y) for samples x and real examples y."""
    real = DISTRIBUTIONS["same law"]
    return mean_kernel(samples, samples) + mean_kernel(real, real) - 2 * mean_kernel(samples, real)


def exact_values(samples: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Return the exact values of the metrics that estimate a distance of distributions."""
    return {
        "Frechet, N to infinity": exact_frechet(*samples),
        "kernel distance": discrepancy(mean_cubic_kernel, samples),
        "Gaussian MMD": discrepancy(mean_gaussian_kernel, samples),
        "energy distance": discrepancy(minus_mean_distance, samples),
    }


# ------------------------------------------------------------------------------------------------ repeats


def repeat(makers: Makers, distribution: tuple[Tensor, Tensor], count: int, repeats: int) -> dict[str, Tensor]:
    """Return (number, low, high) of each metric in every repeat, (repeats, 3).

    Args:
        makers: Metrics by name.
        distribution: Mean and standard deviations of the samples.
        count: N.
        repeats: Number of repeats.
    """
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in makers}
    for seed in range(repeats):
        draw = torch.Generator().manual_seed(1000 * count + seed)
        reference = Reference(torch.randn(count, F, generator=draw), name="normal")
        samples = distribution[0].float() + distribution[1].float() * torch.randn(count, F, generator=draw)
        metrics = [make(reference, seed) for make in makers.values()]
        for name, result in zip(makers, measure_all(metrics, samples, batch_size=2000), strict=True):
            assert result.value.interval is not None
            found[name].append((result.value.number, *result.value.interval))
    return {name: torch.tensor(values, dtype=F64) for name, values in found.items()}


class Row(NamedTuple):
    """Statistics of a metric over repeats; the coverage is that of the exact value, or of the mean if there is none."""

    truth: float | None
    mean: float
    error_of_the_mean: float
    scatter: float
    half_width: float
    coverage: float


def row(values: Tensor, truth: float | None) -> Row:
    """Return the statistics of (number, low, high) in every repeat, (repeats, 3)."""
    number = values[:, 0]
    expected = float(number.mean()) if truth is None else truth
    inside = (values[:, 1] <= expected) & (expected <= values[:, 2])
    scatter = float(number.std())
    half = float((values[:, 2] - values[:, 1]).mean()) / 2
    return Row(truth, float(number.mean()), scatter / len(number) ** 0.5, scatter, half, float(inside.double().mean()))


def frechet_table(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    """Print and return bias and coverage of both Frechet distances."""
    rows: list[dict[str, Any]] = []
    print(f"{'':<10}{'N':>7}{'exact':>8} | {'FID':>8}{'bias':>9}{'coverage':>9}", end="")
    print(f" | {'FID-inf':>8}{'bias':>19}{'coverage':>9}")
    for name, distribution in DISTRIBUTIONS.items():
        exact = exact_frechet(*distribution)
        for count in counts:
            found = repeat(FRECHET, distribution, count, repeats)
            at_n = row(found["Frechet distance"], None)
            extrapolated = row(found["Frechet, N to infinity"], exact)
            for metric, r in zip(FRECHET, (at_n, extrapolated), strict=True):
                rows.append({"law": name, "N": count, "metric": metric, **r._asdict()})
            bias = f"{extrapolated.mean - exact:+.4f} +- {extrapolated.error_of_the_mean:.4f}"
            print(
                f"{name:<10}{count:>7}{exact:>8.3f} | {at_n.mean:>8.4f}{at_n.mean - exact:>+9.4f}"
                f"{100 * at_n.coverage:>8.0f}% | {extrapolated.mean:>8.4f}{bias:>19}"
                f"{100 * extrapolated.coverage:>8.0f}%",
                flush=True,
            )
    return rows


def other_table(count: int, repeats: int) -> list[dict[str, Any]]:
    """Print and return mean, exact value where it is known, and coverage of the other metrics."""
    rows: list[dict[str, Any]] = []
    print(f"\nN = {count}\n{'':<10}{'':<22}{'exact':>12}{'mean':>12}{'+-':>10}{'coverage':>10}")
    for name, distribution in DISTRIBUTIONS.items():
        known = exact_values(distribution)
        for metric, values in repeat(OTHERS, distribution, count, repeats).items():
            r = row(values, known.get(metric))
            rows.append({"law": name, "N": count, "metric": metric, **r._asdict()})
            exact = "at this N" if r.truth is None else f"{r.truth:.6f}"
            print(
                f"{name:<10}{metric:<22}{exact:>12}{r.mean:>12.6f}{r.error_of_the_mean:>10.6f}"
                f"{100 * r.coverage:>9.0f}%",
                flush=True,
            )
    return rows


def frechet_seconds() -> dict[str, float]:
    """Print and return wall-clock and process time of a Frechet distance with interval, 2 x 10,000 x 2048 features."""
    draw = torch.Generator().manual_seed(0)
    real, samples = (torch.randn(10_000, 2048, generator=draw).relu() for _ in range(2))
    wall, processor = time.perf_counter(), time.process_time()
    reference = Reference(real, name="rows")
    (result,) = measure_all([FrechetDistance(RawFeatures(), reference)], samples)
    seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    print(f"\nFrechet distance of 10,000 x 2048: {float(result):.4f} in {seconds['wall']:.0f} s", end="")
    print(f" ({seconds['processor']:.0f} s of the processor, {torch.get_num_threads()} thread(s))")
    return seconds


def main() -> None:
    """Print the tables and write them; parts that are not run keep their former results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1000, 2000, 5000, 10_000], help="examples for Frechet distances"
    )
    parser.add_argument("--others", type=int, default=500, help="examples for the other metrics")
    parser.add_argument("--repeats", type=int, default=100)
    parts = ["frechet", "others", "time"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "metrics_bias.json")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    if "frechet" in arguments.only:
        results["frechet"] = frechet_table(arguments.counts, arguments.repeats)
    if "others" in arguments.only:
        results["others"] = other_table(arguments.others, arguments.repeats)
    if "time" in arguments.only:
        results["time"] = frechet_seconds()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
