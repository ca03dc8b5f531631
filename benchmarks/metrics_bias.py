"""Bias of metrics and coverage of their 95 % intervals, on Gaussians whose distances are known.

    python benchmarks/metrics_bias.py               # tables on the screen, benchmarks/results/metrics_bias.json
    python benchmarks/metrics_bias.py --counts 1000 2000 --repeats 50
    python benchmarks/metrics_bias.py --only time   # one Frechet distance of 10,000 x 2048

Real examples are N(0, I) in 64 dimensions. Samples are of the same law, or of N(0.1, diag(s^2)) with s from 0.8 to 1.2,
whose Frechet distance is known in closed form (1.5). Both are drawn anew, N of each, in every repeat.

A Frechet distance of N examples is biased, and its interval says so: it is of the distance's expectation at that N,
for which the mean over repeats stands. The extrapolated distance is of the laws, so its truth is the closed form, as
that of kernel and energy distances is. Other metrics have an expectation at N alone. Of 100 repeats, a coverage of 95 %
has a standard error of 2.2 points.
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
LAWS = {"same law": (torch.zeros(F, dtype=F64), torch.ones(F, dtype=F64)), "apart": (SHIFT, SCALE)}
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


# ------------------------------------------------------------------------------------------------ truths


def frechet_truth(mean: Tensor, scale: Tensor) -> float:
    """|m|^2 + sum (s - 1)^2."""
    return float(mean.square().sum() + (scale - 1).square().sum())


def cubic(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """E (x.y / F + 1)^3, x ~ N(m_a, diag s_a^2), y ~ N(m_b, diag s_b^2): cumulants of x.y, exact."""
    (m, s), (n, t) = ((mean, scale.square()) for mean, scale in (a, b))
    # Cumulants of a sum of independent products x_j y_j.
    k1 = m * n
    k2 = s * t + s * n.square() + t * m.square()
    k3 = 6 * s * t * m * n
    first, second, third = (float(k.sum()) / F**power for k, power in ((k1, 1), (k2, 2), (k3, 3)))
    u = first + 1.0
    return u**3 + 3 * u * second + third


def gaussian(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """E exp(-|x - y|^2 / (2 h^2))."""
    h = BANDWIDTH**2
    v = a[1].square() + b[1].square()
    return float(((h / (h + v)).sqrt() * (-(a[0] - b[0]).square() / (2 * (h + v))).exp()).prod())


def minus_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """-E |x - y|, by E Q^(1/2) = (4 pi)^(-1/2) int (1 - E exp(-t Q)) t^(-3/2) dt with t = e^u on a fine grid."""
    v, m = a[1].square() + b[1].square(), a[0] - b[0]
    u = torch.linspace(-60.0, 60.0, 240_001, dtype=F64)
    total = torch.zeros((), dtype=F64)
    for part in u.split(20_000):
        t = part.exp()[:, None]
        spread = 1 + 2 * t * v
        log = (-0.5 * spread.log() - t * m.square() / spread).sum(dim=1)
        total += (-torch.expm1(log) * (-0.5 * part).exp()).sum()
    return -float(total * (u[1] - u[0]) / math.sqrt(4 * math.pi))


def discrepancy(mean_of: Callable[..., float], law: tuple[Tensor, Tensor]) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y)."""
    real = LAWS["same law"]
    return mean_of(law, law) + mean_of(real, real) - 2 * mean_of(law, real)


def truths(law: tuple[Tensor, Tensor]) -> dict[str, float]:
    """What is known of each metric."""
    return {
        "Frechet, N to infinity": frechet_truth(*law),
        "kernel distance": discrepancy(cubic, law),
        "Gaussian MMD": discrepancy(gaussian, law),
        "energy distance": discrepancy(minus_distance, law),
    }


# ------------------------------------------------------------------------------------------------ repeats


def repeat(makers: Makers, law: tuple[Tensor, Tensor], count: int, repeats: int) -> dict[str, Tensor]:
    """(number, low, high) of each metric in every repeat, (repeats, 3)."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in makers}
    for seed in range(repeats):
        draw = torch.Generator().manual_seed(1000 * count + seed)
        reference = Reference(torch.randn(count, F, generator=draw), name="normal")
        samples = law[0].float() + law[1].float() * torch.randn(count, F, generator=draw)
        metrics = [make(reference, seed) for make in makers.values()]
        for name, result in zip(makers, measure_all(metrics, samples, batch_size=2000), strict=True):
            assert result.value.interval is not None
            found[name].append((result.value.number, *result.value.interval))
    return {name: torch.tensor(values, dtype=F64) for name, values in found.items()}


class Row(NamedTuple):
    """What repeats say of a metric; coverage of the truth, or of the mean where there is none."""

    truth: float | None
    mean: float
    error_of_the_mean: float
    scatter: float
    half_width: float
    coverage: float


def row(values: Tensor, truth: float | None) -> Row:
    """Of (number, low, high) in every repeat, (repeats, 3)."""
    number = values[:, 0]
    aim = float(number.mean()) if truth is None else truth
    inside = (values[:, 1] <= aim) & (aim <= values[:, 2])
    scatter = float(number.std())
    half = float((values[:, 2] - values[:, 1]).mean()) / 2
    return Row(truth, float(number.mean()), scatter / len(number) ** 0.5, scatter, half, float(inside.double().mean()))


def frechet_table(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    """Bias and coverage of both Frechet distances."""
    rows: list[dict[str, Any]] = []
    print(f"{'':<10}{'N':>7}{'truth':>8} | {'FID':>8}{'bias':>9}{'coverage':>9}", end="")
    print(f" | {'FID-inf':>8}{'bias':>19}{'coverage':>9}")
    for name, law in LAWS.items():
        truth = frechet_truth(*law)
        for count in counts:
            found = repeat(FRECHET, law, count, repeats)
            plain = row(found["Frechet distance"], None)
            free = row(found["Frechet, N to infinity"], truth)
            for what, r in zip(FRECHET, (plain, free), strict=True):
                rows.append({"law": name, "N": count, "metric": what, **r._asdict()})
            bias = f"{free.mean - truth:+.4f} +- {free.error_of_the_mean:.4f}"
            print(
                f"{name:<10}{count:>7}{truth:>8.3f} | {plain.mean:>8.4f}{plain.mean - truth:>+9.4f}"
                f"{100 * plain.coverage:>8.0f}% | {free.mean:>8.4f}{bias:>19}{100 * free.coverage:>8.0f}%",
                flush=True,
            )
    return rows


def other_table(count: int, repeats: int) -> list[dict[str, Any]]:
    """Mean, truth where it is known, and coverage of the others."""
    rows: list[dict[str, Any]] = []
    print(f"\nN = {count}\n{'':<10}{'':<22}{'truth':>12}{'mean':>12}{'+-':>10}{'coverage':>10}")
    for name, law in LAWS.items():
        known = truths(law)
        for what, values in repeat(OTHERS, law, count, repeats).items():
            r = row(values, known.get(what))
            rows.append({"law": name, "N": count, "metric": what, **r._asdict()})
            truth = "at this N" if r.truth is None else f"{r.truth:.6f}"
            print(
                f"{name:<10}{what:<22}{truth:>12}{r.mean:>12.6f}{r.error_of_the_mean:>10.6f}{100 * r.coverage:>9.0f}%",
                flush=True,
            )
    return rows


def timed() -> dict[str, float]:
    """Seconds of one Frechet distance with its interval, 10,000 x 2048 features on each side, of wall and processor."""
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
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1000, 2000, 5000, 10_000], help="of Frechet distances"
    )
    parser.add_argument("--others", type=int, default=500, help="examples for the other metrics")
    parser.add_argument("--repeats", type=int, default=100)
    parts = ["frechet", "others", "time"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "metrics_bias.json")
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    if "frechet" in arguments.only:
        known["frechet"] = frechet_table(arguments.counts, arguments.repeats)
    if "others" in arguments.only:
        known["others"] = other_table(arguments.others, arguments.repeats)
    if "time" in arguments.only:
        known["time"] = timed()
    arguments.out.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
