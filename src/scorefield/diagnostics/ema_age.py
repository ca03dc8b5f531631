"""How old an average of weights is: how much of the initial weights it still holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.diagnostics.findings import Finding
from scorefield.diagnostics.statistics import Size, ratio_of
from scorefield.inverse.calibration import Estimate
from scorefield.models.checkpoint_folder import latest_checkpoint
from scorefield.models.experiment import Experiment
from scorefield.models.model import Model
from scorefield.models.networks import build_network
from scorefield.models.weights import ema_name, load_tensors, trained
from scorefield.training.ema import share_of_start

HELD, LAGS, STALE = 0.05, 0.3, 0.9
"""Shares of the way back to the initial weights: expected, from which an average is suspect; measured, from which it is
suspect (it also lags behind the last steps), and from which it was never updated."""


@record(tag="DoctorAverage")
class AverageAge:
    """An average of weights beside the raw ones.

    Args:
        name: Name of the average.
        updates: Number of updates, as far as the files record it.
        expected: Share of the initial weights that it should still hold after that; None where it is not known.
        measured: Share that it holds, <average - raw, initial - raw> / |initial - raw|^2, over tensors; None without
            raw weights.
        apart: |average - raw| / |raw|; None without raw weights.
    """

    name: str
    updates: int | None
    expected: float | None
    measured: Size | None
    apart: float | None

    def finding(self) -> Finding:
        """The age as a sentence."""
        measured = None if self.measured is None else self.measured.value
        parts = []
        if self.expected is not None:
            parts.append(f"still holds {self.expected:.2g} of the initial weights after {self.updates} updates")
        if self.measured is not None:
            parts.append(f"lies {self.measured} of the way from the raw weights to the initial ones")
        if self.apart is not None:
            parts.append(f"is {self.apart:.2g} of their length from the raw ones")
        says = f"the average {self.name} " + (", ".join(parts) or "is of an age that no file tells")
        if measured is not None and measured > STALE:
            advice = "it was never updated: use --weights raw, and look that the average follows every step"
            return Finding("EMA never updated", "faulty", says, advice, self.measured)
        if (self.expected or 0.0) > HELD or (measured or 0.0) > LAGS:
            advice = "train longer, shorten the decay or warm it up; --weights raw until then"
            return Finding("EMA age", "suspect", says, advice, self.measured)
        return Finding("EMA age", "healthy", says, "", self.measured)


def average_age(model: Model) -> AverageAge | None:
    """The age of the average that a model uses; None for raw weights, and for models without a folder."""
    decay = next((d for d in model.experiment.averaging.decays if ema_name(d) == model.weights), None)
    if model.folder is None or decay is None:
        return None
    path, updates = _file(model.folder), _updates(model)
    expected = None if updates is None else share_of_start(model.experiment.averaging, decay, updates)
    sets, _ = load_tensors(path)
    if "raw" not in sets or model.weights not in sets:
        return AverageAge(model.weights, updates, expected, None, None)
    start = {name: p.detach() for name, p in trained(_initial(model.experiment)).items()}
    average, raw = sets[model.weights], sets["raw"]
    moved = sum(float((start[n] - raw[n]).double().square().sum()) for n in raw if n in start)
    measured = Size.of(_held(average, raw, start)) if moved > 0.0 else None
    apart = sum(float((average[n] - raw[n]).double().square().sum()) for n in raw)
    length = sum(float(v.double().square().sum()) for v in raw.values())
    return AverageAge(model.weights, updates, expected, measured, (apart / max(length, 1e-300)) ** 0.5)


def _held(average: dict[str, Tensor], raw: dict[str, Tensor], start: dict[str, Tensor]) -> Estimate:
    """The share with its error, tensor by tensor."""
    names = [n for n in raw if n in start]
    away = [(start[n] - raw[n]).double() for n in names]
    above = [float(((average[n] - raw[n]).double() * a).sum()) for n, a in zip(names, away, strict=True)]
    below = [float(a.square().sum()) for a in away]
    if len(names) < 2:
        return Estimate(above[0] / below[0], 0.0)
    return ratio_of(torch.tensor(above, dtype=torch.float64), torch.tensor(below, dtype=torch.float64))


def _initial(experiment: Experiment) -> torch.nn.Module:
    """The network as training drew it: the weights of this seed and this version of torch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.training.seed)
        return build_network(experiment)


def _file(folder: Path) -> Path:
    """Where the weights are that `load` takes."""
    path, newest = folder / "model.safetensors", latest_checkpoint(folder)
    return path if path.is_file() or newest is None else newest / "score.safetensors"


def _updates(model: Model) -> int | None:
    """How often the average was updated: as the checkpoint of the same step says, else once a step."""
    assert model.folder is not None
    newest = latest_checkpoint(model.folder)
    if newest is not None and model.step in (None, int(newest.name.removeprefix("step_"))):
        _, metadata = load_tensors(newest / "score.safetensors")
        return int(metadata["updates"])
    return model.step
