"""The few collective operations that training and sampling need, no-ops on one process."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def active() -> bool:
    """Whether several processes work together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_sum(values: Tensor) -> Tensor:
    """The sum over processes of a small CPU tensor, as a new tensor."""
    if not active():
        return values.clone()
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    total = values.to(device, copy=True)
    dist.all_reduce(total)
    return total.cpu()


def share(n: int, rank: int, world: int) -> range:
    """The contiguous part of 0..n-1 that belongs to one process."""
    return range(rank * n // world, (rank + 1) * n // world)
