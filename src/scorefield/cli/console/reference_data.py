"""Real data that commands compare with, and the sections of their reports."""

from __future__ import annotations

from dataclasses import replace

import torch

from scorefield.data import Data, DataError, DataSource, open_data
from scorefield.data_spec import DataSpec
from scorefield.evaluation import Comparison
from scorefield.reports.report import Section, nearest_neighbours


def real_data(source: DataSource, path: str | None, spec: DataSpec) -> Data:
    """The data of a model, or all of other data read in the same way.

    Raises:
        DataError: They are of another shape, range or unit than the model's.
    """
    if path is not None:
        source = replace(source, path=path, kind="auto", held_out=0)
    if source.path is None:
        raise DataError("the model does not say where its data are; give them with --reference or --data PATH")
    data = open_data(source) if path is None else _read_alike(source, spec)
    if data.spec.shape != spec.shape:
        raise DataError(
            f"{data.name} has examples of shape {data.spec.shape}, the model was trained on {spec.shape}; give data"
            f" of its shape"
            " (the fields size, crop and channels of its data source apply)"
        )
    there, here = ((s.low, s.high, s.levels, s.units) for s in (data.spec, spec))
    if there != here:
        raise DataError(
            f"{data.name} has low, high, levels, units = {there}, the model's data {here}; nothing can be compared"
            f" across units. Arrays of floats, which state no range, are taken to be in the model's units"
        )
    return data


def _read_alike(source: DataSource, spec: DataSpec) -> Data:
    """Other data than the model's own, read in the same way; floats that state no range in the model's units."""
    plain = source if source.low is not None else replace(source, model_range=DataSource().model_range)
    data = open_data(plain)
    if data.spec.bounded or not spec.bounded:
        return data
    stated = open_data(replace(source, low=spec.low, high=spec.high, levels=spec.levels, units=spec.units))
    between = f"{spec.low} to {spec.high}{f' {spec.units}' if spec.units else ''}"
    print(f"{data.name} states no range: its values are taken to be in the model's units, {between}")
    return stated


def neighbour_sections(found: Comparison, x: torch.Tensor, spec: DataSpec, shown: int = 10) -> list[Section]:
    """The nearest training examples of the first samples, where the training data are known."""
    if found.neighbours is None or found.train is None:
        return []
    nearest, rows = found.neighbours.neighbours(), slice(0, shown)
    block = nearest_neighbours(x[rows], found.train[nearest.index[rows]].to(x.dtype), nearest.distance[rows], spec)
    return [Section("Nearest training examples", [block])]
