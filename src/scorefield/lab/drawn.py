"""What drawing samples returns, and how the results of batches become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.inference.likelihood import LogProb
from scorefield.sampling.sampler import Sampler


@dataclass(frozen=True)
class Samples:
    """What `Model.sample` returns.

    Args:
        x: Samples in data units, (n, *shape), not clipped.
        raw: The same before the final denoising.
        nfe: Network evaluations per sample, (n,).
        seconds: Wall time.
        status: 0, or a code of `sampling.adaptive.STATUS`, (n,).
        sampler: What made them, with all settings.
        log_prob: Of x, where asked for.
        seed: Of the noise.
        start: Index of the first sample.
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
