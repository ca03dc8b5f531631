"""The few collective operations that training and sampling need, no-ops on one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def start() -> tuple[int, int]:
    """(rank, world) under torchrun, joining the other processes on the CPU; (0, 1) otherwise."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return dist.get_rank(), world


def leave() -> None:
    """Leave the process group; a process that ends without this may be aborted by the threads of its connections."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def gather(value: T, join: Callable[[Sequence[T]], T]) -> T | None:
    """The values of all processes joined, on the first; None on the others."""
    if not active():
        return value
    rank, world = dist.get_rank(), dist.get_world_size()
    parts: list[T | None] = [None] * world
    dist.gather_object(value, parts if rank == 0 else None)
    return join([p for p in parts if p is not None]) if rank == 0 else None


def rank() -> int:
    """Rank of this process, 0 outside torchrun."""
    return int(os.environ.get("RANK", "0"))


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
