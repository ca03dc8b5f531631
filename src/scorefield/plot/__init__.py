"""Plots: samples, score fields, trajectories, densities, noise levels and training curves.

    ax = sf.plot.samples(model.sample(64))
    ax = sf.plot.score_field(model, t=0.3)

Each function takes `ax`, the matplotlib axes to draw on, or makes a figure, and returns the axes. matplotlib is
imported when something is drawn. Reports draw with the same parts.

functions   the public plots
pictures    examples as PNG images and figures: what an example looks like follows from its shape
tables      rows of examples with named columns
curves      training curves from the rows of metrics.jsonl
"""

from __future__ import annotations

from scorefield.plot import curves, functions, pictures, tables
from scorefield.plot.functions import log_density, noise_levels, samples, score_field, training, trajectories

__all__ = [
    "curves",
    "functions",
    "log_density",
    "noise_levels",
    "pictures",
    "samples",
    "score_field",
    "tables",
    "training",
    "trajectories",
]
