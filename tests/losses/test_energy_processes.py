"""The multi-scale loss of an energy in two processes: its double backward under DistributedDataParallel."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from scorefield.data_spec import DataSpec
from scorefield.losses import DenoisingScoreMatching
from scorefield.nets import EnergyResNet
from scorefield.process import LinearSigmas, Tabulated
from scorefield.score import EnergyForm, NetworkEnergy
from tolerance import FLOAT64

PROCESS = Tabulated(LinearSigmas(0.05, 1.2, 8))


def _work(rank: int, folder: str) -> None:
    """Three steps on this process's half of a batch; the first process compares with the whole batch on its own."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = EnergyResNet(channels=4, depth=6).build(DataSpec((1, 8, 8), 0, 255, 256)).double()
    alone, wrapped = copy.deepcopy(network), DistributedDataParallel(network, find_unused_parameters=True)
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(8, 1, 8, 8, generator=generator, dtype=torch.float64)
    objective = DenoisingScoreMatching(reduce="half_sum", stratified=True)
    rows = slice(4 * rank, 4 * rank + 4)
    for _ in range(3):  # the second forward pass is where a parameter without a gradient would be missed
        network.zero_grad()
        alone.zero_grad()
        draw = objective.draw(PROCESS, x0, generator)
        objective(NetworkEnergy(wrapped, PROCESS, EnergyForm(0.1)), x0[rows], draw.rows(rows)).mean().backward()
        objective(NetworkEnergy(alone, PROCESS, EnergyForm(0.1)), x0, draw).mean().backward()
        gradients = {n: p.grad for n, p in network.named_parameters()}
        assert [n for n, p in alone.named_parameters() if p.grad is None] == ["lq.bias"]
        for name, p in alone.named_parameters():
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(gradients[name], expected, rtol=FLOAT64, atol=FLOAT64)
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_work, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
