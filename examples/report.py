"""What every example prints and draws: error, coverage and the residual test of posterior samples; rows of pictures."""

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
    """The flags that every example has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--fast", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the figure")
    return parser


def report(task: str, truth: Tensor, found: Posterior, observation: Observation, units: str = "") -> None:
    """Prints how far the mean is off, whether truths lie in the intervals as often as they say, and whether y fits.

    Args:
        task: What was asked.
        truth: The examples that were measured, data units, (P, *event).
        found: n samples for each, (P, n, *event).
        observation: The measurements.
        units: Of the data.
    """
    error, spread = (found.mean - truth).square().mean().sqrt(), found.std.square().mean().sqrt()
    print(f"{task}: {found.solver.name} ({found.why})")
    print(f"  root mean square error of the mean {error:.3g} {units}, deviation of the samples {spread:.3g} {units}")
    # Of random weighted sums of all entries: single pixels of an image are often certain, and tell nothing.
    weights = torch.randn(16, truth[0].numel(), generator=torch.Generator().manual_seed(0))
    asked = [(truth.flatten(1) @ w, found.x.flatten(2) @ w) for w in weights]
    u = torch.stack([ranks(values, seed=k) for k, values in enumerate(asked)], dim=1)
    for level in (0.5, 0.9):
        held = coverage(u, level)
        known = f"95% sure: {held.low:.0%} to {held.high:.0%}"
        print(f"  {level:.0%} intervals hold {held.share:.0%} of the truths ({known})")
    p = found.residual.combined
    if p is not None:
        noise = float(observation.noise.variance(torch.zeros(1, 1))) ** 0.5
        print(
            f"  y - A(x) has root mean square {float(found.residual.rms.nanmean()):.3g}, the noise {noise:.3g};"
            f" residual test p = {of_several(p.reshape(-1).tolist()):.2g}"
        )
    calls, seconds = float(found.nfe.double().mean()), found.seconds / len(truth)
    print(f"  {calls:.0f} network calls, {seconds:.1f} s a measurement")
    if lost := found.failures():
        print(f"  warning: {len(lost)} samples are left out: {lost[0]}, ...")


def pictures(columns: Sequence[tuple[str, Tensor]], path: Path, ranges: Sequence[tuple[float, float] | None]) -> None:
    """A row for each example, a column for each thing shown of it, as a PNG.

    Args:
        columns: Title and images (rows, H, W), of any sizes.
        path: Where.
        ranges: Of each column's colours; None for its own, with its numbers beside it.
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
    """Writes a figure and says where, and after how long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"{path} ({time.monotonic() - START:.0f} s, of processors {time.process_time():.0f} s)")
