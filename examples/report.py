"""Report of posterior samples for all examples: error, coverage and residual test as text, and rows of pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from scorefield.inverse import Observation, Posterior
from scorefield.inverse.calibration import coverage, of_several, ranks

START = time.monotonic()


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags that every example has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--fast", action="store_true", help="run only a few steps, to test the example")
    parser.add_argument("--out", type=Path, default=Path("."), help="output folder of the figure")
    return parser


def report(task: str, truth: Tensor, found: Posterior, observation: Observation, units: str = "") -> None:
    """Print the error of the posterior mean, the coverage of posterior intervals, and the residual test of y - A(x).

    Args:
        task: Name of the task.
        truth: The examples that were measured, data units, (P, *event).
        found: n posterior samples for each, (P, n, *event).
        observation: The measurements.
        units: Units of the data.
    """
    error, spread = (found.mean - truth).square().mean().sqrt(), found.std.square().mean().sqrt()
    print(f"{task}: {found.solver.name} ({found.why})")
    print(f"  root mean square error of the mean {error:.3g} {units}, deviation of the samples {spread:.3g} {units}")
    # Coverage is measured on random weighted sums of all entries, because single pixels are often certain.
    weights = torch.randn(16, truth[0].numel(), generator=torch.Generator().manual_seed(0))
    projections = [(truth.flatten(1) @ w, found.x.flatten(2) @ w) for w in weights]
    u = torch.stack([ranks(values, seed=k) for k, values in enumerate(projections)], dim=1)
    for level in (0.5, 0.9):
        covered = coverage(u, level)
        interval = f"95% interval {covered.low:.0%} to {covered.high:.0%}"
        print(f"  {level:.0%} intervals hold {covered.share:.0%} of the truths ({interval})")
    p = found.residual.combined
    if p is not None:
        noise = float(observation.noise.variance(torch.zeros(1, 1))) ** 0.5
        print(
            f"  y - A(x) has root mean square {float(found.residual.rms.nanmean()):.3g}, the noise {noise:.3g};"
            f" residual test p = {of_several(p.reshape(-1).tolist()):.2g}"
        )
    calls, seconds = float(found.nfe.double().mean()), found.seconds / len(truth)
    print(f"  {calls:.0f} network evaluations per sample, {seconds:.1f} s per measurement")
    if failures := found.failures():
        print(f"  warning: {len(failures)} samples failed and are left out: {failures[0]}, ...")


def pictures(columns: Sequence[tuple[str, Tensor]], path: Path, ranges: Sequence[tuple[float, float] | None]) -> None:
    """Write a PNG with a row for each example and a column for each quantity.

    Args:
        columns: Title and images, (rows, H, W), of each column.
        path: File to write.
        ranges: Range of the grey scale of each column; None for a colour map over the column's own range, which is
            then printed in the title.
    """
    rows = len(columns[0][1])
    height, width = columns[0][1].shape[1:]
    panel = 1.1 * width / max(height, width), 1.1 * height / max(height, width)
    figure = Figure(figsize=(len(columns) * (panel[0] + 0.1), rows * (panel[1] + 0.1) + 0.35), layout="constrained")
    for c, ((title, images), colours) in enumerate(zip(columns, ranges, strict=True)):
        low, high = colours or (float(images.min()), float(images.max()))
        for r in range(rows):
            ax = figure.add_subplot(rows, len(columns), r * len(columns) + c + 1)
            ax.imshow(images[r].numpy(), vmin=low, vmax=high, cmap="magma" if colours is None else "gray")
            ax.set_axis_off()
            if r == 0:
                ax.set_title(title if colours else f"{title}\n{low:.3g} to {high:.3g}", fontsize=7)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure and print its path, with the wall-clock and process time since the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"{path} ({time.monotonic() - START:.0f} s, {time.process_time():.0f} s of process time)")
