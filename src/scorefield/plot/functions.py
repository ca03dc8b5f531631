"""The public plots. Each takes the axes to draw on, or makes a figure, and returns the axes.

Figures made here are matplotlib's own objects, shown by a notebook and saved by `ax.figure.savefig(path)`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.plot.curves import draw_lines, loss_lines
from scorefield.plot.pictures import (
    PAPER,
    caption_of,
    coordinate_names,
    draw_points,
    draw_signal,
    image_grid,
    kind,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Limits = tuple[float, float]


def samples(x: Any, spec: DataSpec | None = None, *, ax: Axes | None = None, n: int = 64) -> Axes:
    """Draw examples: images as a grid, signals as lines, vectors as points of their first two coordinates.

    Args:
        x: `Samples` of a model, a `Posterior`, or examples in data units, (N, *shape).
        spec: What the examples are, for example `model.data`; `Samples` know it. Without one, vectors and signals get
            the limits of their values, and images need it.
        ax: Axes to draw on.
        n: Largest number of images or signals; of vectors all are drawn.

    Raises:
        ValueError: There are no examples, or images without a spec.
    """
    x, spec = _examples(x, spec)
    what = kind(spec)
    ax = ax or _new_axes(what in ("vector", "signal"))
    if what == "vector":
        names = coordinate_names(spec)
        draw_points(ax, x, spec, PAPER)
        ax.set_xlabel(_with_units(names[0], spec))
        ax.set_ylabel("count" if len(names) == 1 else _with_units(names[1], spec))
    elif what == "signal":
        for one in x[:n]:
            draw_signal(ax, one, spec, PAPER)
        ax.set_xlabel("position")
        ax.set_ylabel(_with_units("value", spec))
    else:
        ax.imshow(np.asarray(image_grid(x[:n], spec)), interpolation="nearest")
        ax.set_axis_off()
        ax.set_title(caption_of(spec), fontsize=8, color=PAPER.muted, wrap=True)
    return ax


def score_field(
    score: Any, t: float = 0.5, *, ax: Axes | None = None, limits: Limits = (-3.0, 3.0), points: int = 20
) -> Axes:
    """Draw grad log p_t(x) in the plane as arrows, in model units.

    Args:
        score: A model, an oracle or any other `Score` of vectors of two numbers.
        t: Time in [0, 1].
        ax: Axes to draw on.
        limits: Ends of both axes, model units.
        points: Arrows along each axis.

    Raises:
        ValueError: The score is not of the plane.
    """
    grid = _plane(score, limits, points)
    times = torch.full((len(grid),), float(t), dtype=torch.float64)
    with torch.no_grad():
        arrows = (score.score if hasattr(score, "score") else score)(grid, times)
    ax = ax or _new_axes()
    u, v = arrows.detach().cpu().double().T.numpy()
    x, y = grid.double().T.numpy()
    ax.quiver(x, y, u, v, np.hypot(u, v), angles="xy", cmap="viridis", width=0.004)
    sigma = float(score.process.sigma(times[:1]))
    ax.set_title(f"score at t = {t:g} (noise level sigma = {sigma:.3g})", fontsize=9)
    ax.set_xlabel("coordinate 0 (model units)")
    ax.set_ylabel("coordinate 1 (model units)")
    ax.set_aspect("equal")
    return ax


def trajectories(
    model: Any, n: int = 16, *, ax: Axes | None = None, sampler: Any = None, steps: int | None = None, seed: int = 0
) -> Axes:
    """Draw the paths of samples from noise to data: in the plane of two coordinates, or one value against the step.

    Args:
        model: A model that samples vectors; or the states themselves, (K, N, D) for K times, in data units.
        n: Number of paths.
        ax: Axes to draw on.
        sampler: As for `model.sample`.
        steps: As for `model.sample`.
        seed: As for `model.sample`.

    Raises:
        ValueError: The states are not vectors.
    """
    paths = _states(model, n, sampler, steps, seed)
    if paths.ndim != 3:
        raise ValueError(f"trajectories are drawn of vectors, states (K, N, D); got an array of shape {paths.shape}")
    ax = ax or _new_axes()
    if paths.shape[2] == 1:
        ax.plot(paths[:, :, 0], color=PAPER.series[0], linewidth=0.8, alpha=0.7)
        ax.set_xlabel("step")
        ax.set_ylabel("value (data units)")
        return ax
    for k in range(paths.shape[1]):
        ax.plot(paths[:, k, 0], paths[:, k, 1], color=PAPER.series[0], linewidth=0.6, alpha=0.6)
    ax.scatter(*paths[0, :, :2].T, s=10, color=PAPER.muted, label="after the first step", zorder=3)
    ax.scatter(*paths[-1, :, :2].T, s=14, color=PAPER.series[1], label="end (samples)", zorder=3)
    ax.legend(fontsize=8, frameon=False)
    ax.set_xlabel("coordinate 0 (data units)")
    ax.set_ylabel("coordinate 1 (data units)")
    return ax


def log_density(
    model: Any, t: float | None = None, *, ax: Axes | None = None, limits: Limits = (-3.0, 3.0), points: int = 40
) -> Axes:
    """Draw log p in the plane as a heat map.

    Args:
        model: A model, whose log density in data units is found by the probability flow (one for each point); or an
            oracle, whose exact log p_t is drawn in model units.
        t: Time of an oracle; None is its smallest. A model has the density of its own data.
        ax: Axes to draw on.
        limits: Ends of both axes, in the units of the density.
        points: Points along each axis.

    Raises:
        ValueError: The model is not of the plane.
    """
    grid = _plane(model, limits, points)
    if hasattr(model, "data"):
        values, units = model.log_prob(grid.float(), dequantise="none").nats, "data units"
    else:
        time = model.process.t_min.smallest if t is None else t
        values, units = model.log_prob(grid, torch.full((len(grid),), float(time), dtype=torch.float64)), "model units"
    ax = ax or _new_axes()
    image = values.detach().cpu().double().reshape(points, points).numpy()
    drawn = ax.imshow(image, origin="lower", extent=(*limits, *limits), cmap="magma", vmin=float(np.nanmax(image)) - 15)
    ax.figure.colorbar(drawn, ax=ax, label="log density (nats)", extend="min")
    ax.set_xlabel(f"coordinate 0 ({units})")
    ax.set_ylabel(f"coordinate 1 ({units})")
    return ax


def noise_levels(process: Any, *, ax: Axes | None = None) -> Axes:
    """Draw alpha(t) and sigma(t) of a process; the levels of a ladder are dots.

    Args:
        process: A process, or a model, whose process it is.
        ax: Axes to draw on.
    """
    process = getattr(process, "process", process)
    ax = ax or _new_axes()
    ladder = getattr(process, "levels", None)
    levels = torch.arange(ladder, dtype=torch.float64) if isinstance(ladder, int) else None
    t = torch.linspace(0.0, 1.0, 200, dtype=torch.float64)[1:] if levels is None else process.time(levels)
    mark = None if levels is None else "o"
    for k, name in enumerate(("alpha", "sigma")):
        values = getattr(process, name)(t).double().numpy()
        line = "-" if levels is None else ""
        ax.plot(t.numpy(), values, line, color=PAPER.series[k], marker=mark, markersize=3, label=f"{name}(t)")
    sigma = process.sigma(t)
    if float(sigma.max()) > 20:
        ax.set_yscale("log")
    ax.set_xlabel("t")
    ax.set_ylabel("model units")
    ax.legend(fontsize=8, frameon=False)
    return ax


def training(run: str | Path, *, ax: Axes | None = None) -> Axes:
    """Draw training and validation loss against the step.

    Args:
        run: A run folder; or a model that was loaded from one.
        ax: Axes to draw on.

    Raises:
        FileNotFoundError: The folder has no metrics.jsonl.
        ValueError: The file holds no losses yet.
    """
    folder = Path(getattr(run, "folder", None) or run)  # type: ignore[arg-type]
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no metrics.jsonl; give a folder that `sf.train` or `sf.fit` wrote")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    lines = loss_lines(rows, PAPER)
    if not lines:
        raise ValueError(f"{path} holds no losses yet")
    ax = ax or _new_axes()
    draw_lines(ax, lines, PAPER)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.legend(fontsize=8, frameon=False)
    return ax


# ---------------------------------------------------------------------------------------------------- parts


def _new_axes(framed: bool = True) -> Axes:
    """Axes of a new figure, which notebooks show."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(4.6, 4.0) if framed else (5.0, 5.4), layout="constrained")
    if framed:
        style_axes(ax, PAPER)
    return ax


def _with_units(name: str, spec: DataSpec) -> str:
    return f"{name} ({spec.units})" if spec.units else name


def _examples(x: Any, spec: DataSpec | None) -> tuple[Tensor, DataSpec]:
    """Examples (N, *shape) and what they are."""
    spec = spec if spec is not None else getattr(x, "spec", None)
    values = torch.as_tensor(np.asarray(x) if not isinstance(inner := getattr(x, "x", x), Tensor) else inner)
    if spec is not None and values.ndim > len(spec.shape) + 1:  # one posterior for each of several observations
        values = values.flatten(0, values.ndim - len(spec.shape) - 1)
    if not len(values):
        raise ValueError("there are no examples to draw; give at least one")
    if spec is not None:
        return values, spec
    if values.ndim > 3 or values.ndim < 2:
        raise ValueError(
            f"examples of shape {tuple(values.shape[1:])} need a spec that says how values become colours:"
            " plot.samples(x, model.data)"
        )
    flat = values.double().transpose(0, 1).flatten(1)
    scale = ((flat.amax(1) - flat.amin(1)) / 6).clamp_min(1e-12)
    middle = (flat.amax(1) + flat.amin(1)) / 2
    return values, DataSpec(tuple(values.shape[1:]), offset=tuple(middle.tolist()), scale=tuple(scale.tolist()))


def _plane(score: Any, limits: Limits, points: int) -> Tensor:
    """A grid of the plane, (points^2, 2), for a score or model of vectors of two numbers."""
    shape = tuple(score.data.shape) if hasattr(score, "data") else tuple(getattr(score, "shape", (2,)))
    if shape != (2,):
        raise ValueError(f"a plane is drawn for examples of shape (2,); these have shape {shape}")
    if points < 2 or not limits[0] < limits[1]:
        raise ValueError(f"limits={limits} and points={points}: give two increasing ends and at least 2 points")
    line = torch.linspace(*limits, points, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(-1, 2)
    return grid.float() if hasattr(score, "network") else grid


def _states(model: Any, n: int, sampler: Any, steps: int | None, seed: int) -> np.ndarray:
    """States of a sampling run in data units, (K, N, D)."""
    if not hasattr(model, "sample"):
        return np.asarray(model, dtype=np.float64)
    states: list[Tensor] = []

    def keep(progress: Any) -> None:
        states.append(model.data.to_data(progress.x.cpu().clone()))

    drawn = model.sample(n, sampler=sampler, steps=steps, seed=seed, batch_size=n, callbacks=(keep,))
    return torch.stack([*states, drawn.x]).double().numpy()
