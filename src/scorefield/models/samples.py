"""Results of sampling; checks of counts, samplers by name, and the joining of batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scorefield.data import Split
from scorefield.data_spec import DataSpec
from scorefield.likelihood.log_prob import LogProb
from scorefield.models.experiment import Experiment
from scorefield.plot.pictures import html_of, value_range
from scorefield.sampling.adaptive import AdaptiveFlow
from scorefield.sampling.named import named, with_steps
from scorefield.sampling.sampler import Sampler


@dataclass(frozen=True)
class Samples:
    """Result of `Model.sample`.

    Args:
        x: Samples in data units, (n, *shape), not clipped.
        raw: The samples before the final denoising.
        nfe: Network evaluations per sample, (n,).
        seconds: Wall time.
        status: 0, or a code of `sampling.adaptive.STATUS`, (n,).
        sampler: The sampler with all settings.
        log_prob: Log density of x, where it was requested.
        seed: Seed of the noise.
        start: Index of the first sample.
        spec: What the samples are, for plots.
    """

    x: Tensor
    raw: Tensor
    nfe: Tensor
    seconds: float
    status: Tensor
    sampler: Sampler
    log_prob: LogProb | None
    seed: int
    start: int
    spec: DataSpec | None = None

    def __repr__(self) -> str:
        """Two lines: what the samples are, and how they were made."""
        units = f" {self.spec.units}" if self.spec is not None and self.spec.units else ""
        failed = int((self.status != 0).sum())
        return (
            f"Samples: {len(self.x)} of shape {tuple(self.x.shape[1:])}, {value_range(self.x)}{units},"
            f" {failed} failed\n"
            f"  {self.sampler.step}, {float(self.nfe.double().mean()):.4g} network evaluations each, seed {self.seed},"
            f" indices {self.start} to {self.start + len(self.x) - 1}, {self.seconds:.3g} s"
        )

    def _repr_html_(self) -> str:
        """The first samples as a picture, for notebooks."""
        return html_of(self.x, self.spec, repr(self))


def join(parts: Sequence[Any]) -> Any:
    """Concatenate results along their examples; times add up, what is equal in all stays."""
    first, values = parts[0], {}
    for name in first.__dataclass_fields__:
        entries = [getattr(part, name) for part in parts]
        if isinstance(entries[0], Tensor):
            values[name] = torch.cat(entries)
        elif name == "seconds":
            values[name] = sum(entries)
        elif isinstance(entries[0], LogProb):
            values[name] = join(entries)
        else:
            values[name] = entries[0]
    return type(first)(**values)


def check_counts(seed: int, start: int, batch_size: int | None) -> None:
    """Check seed, start and batch size.

    Raises:
        ValueError: A negative seed or start, or no example in a batch.
    """
    if start < 0 or seed < 0:
        raise ValueError(f"seed and start must not be negative; got seed={seed}, start={start}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")


def grid_sampler(experiment: Experiment) -> Sampler:
    """The experiment's own sampler, in the number of steps that its grids of samples are drawn with."""
    sampler, steps = experiment.sampler, experiment.training.sample_steps
    if steps is not None and hasattr(sampler.grid, "steps") and sampler.step.calls_per_step() is not None:
        return with_steps(sampler, steps)
    return sampler


def grid_conditions(spec: DataSpec, train: Split, n: int) -> dict[str, Tensor]:
    """Conditions of the n examples of a grid: every class in turn, and the first values of whatever else there is."""
    _, condition = train.batch([i % len(train) for i in range(n)])
    return condition | {c.name: torch.arange(n) % c.size for c in spec.conditions if c.kind == "class"}


def sampler_by_name(name: str, experiment: Experiment, steps: int | None) -> Sampler:
    """A sampler by name for the network of an experiment: on the ladder it was trained on, if on one."""
    levels = experiment.levels
    found = named(name, experiment.process if name == "ode" else levels or experiment.process, steps)  # type: ignore[arg-type]
    if levels is None or isinstance(found.step, AdaptiveFlow):
        return found
    # Steps go along the ladder the network was trained on; some need rates, which a ladder of jumps has not.
    return replace(found, process=replace(levels, between="linear"))
