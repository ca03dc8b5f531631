"""Statistics of examples at a noise level, batch by batch: what `energy score` and `energy outliers` share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from scorefield.cli.console.batches import in_batches
from scorefield.energy.outliers import Statistics, statistics, time_of_noise
from scorefield.models.model import Model
from scorefield.process.tabulated import Tabulated
from scorefield.score.energy import NetworkEnergy


def noise_level(model: Model, asked: float | None) -> float:
    """The noise level at which examples are looked at, model units.

    Args:
        model: An energy has its reference level.
        asked: What the user said.
    """
    score = model.as_score()
    if asked is None and isinstance(score, NetworkEnergy):
        asked = score.form.sigma_0
        low = float(score.process.sigma(torch.tensor([score.process.t_min.smallest])))
        return max(asked, low)
    if asked is None:
        low, high = model.data.model_range if model.data.bounded else (0.0, 1.0)
        asked = 0.1 * (high - low)
    time_of_noise(score, asked)  # refuses what the process does not reach
    return asked


def ladder_of(model: Model) -> Tabulated | None:
    """The levels at which the network may be asked, where it was trained on levels."""
    ladder = model.experiment.levels or model.process
    return ladder if isinstance(ladder, Tabulated) else None


def measured(
    model: Model,
    x: Tensor,
    known: dict[str, Tensor] | None,
    *,
    sigma: float,
    draws: int,
    seed: int,
    size: int,
    folder: Path,
    name: str,
    first: int = 0,
) -> Statistics:
    """Statistics of examples in data units, batch by batch; example i has the noise of index first + i."""
    missing: dict[str, str] = {}

    def compute(rows: slice) -> dict[str, Tensor]:
        found = statistics(
            model.as_score(),
            model.data.to_model(x[rows].to(model.device)),
            indices=range(first + rows.start, first + rows.stop),
            sigma=sigma,
            draws=draws,
            seed=seed,
            condition=model.condition(None if known is None else {k: v[rows] for k, v in known.items()}, len(x[rows])),
            ladder=ladder_of(model),
        )
        missing.update(found.missing)
        return {**found.values, "norms": found.norms}

    identity = {
        "weights": model.hash,
        "data": hashlib.sha256(x.contiguous().cpu().numpy().tobytes()).hexdigest(),
        "count": len(x),
        "first": first,
        "noise": sigma,
        "draws": draws,
        "seed": seed,
        "batch size": size,
    }
    arrays = in_batches(compute, len(x), size, folder, name, identity)
    norms = arrays.pop("norms")
    if "energy" not in arrays:
        missing["energy"] = f"{model.name} is a score network: a gradient, without an energy"
    return Statistics(arrays, norms, missing)


# ------------------------------------------------------------------------------------- actions
