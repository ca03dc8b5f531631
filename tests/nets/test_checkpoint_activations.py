"""Activations computed again in the backward pass: the same numbers, less memory between the two passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nets.small_nets import IMAGE, NCSNPP, batch, build
from scorefield.nets import UNet


def step(net: UNet) -> tuple[Tensor, list[Tensor], int]:
    """Output, gradients, and bytes kept from the forward to the backward pass; with dropout, from one seed."""
    x, c = batch(IMAGE, 2)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = net(x, c)
    parameters = [p for p in net.parameters() if p.requires_grad]
    return y.detach(), list(torch.autograd.grad((y**2).sum(), parameters)), sum(kept.values())


@pytest.mark.parametrize("name", NCSNPP)
def test_equal_gradients_from_less_memory(name: str) -> None:
    net = build(NCSNPP[name], IMAGE).train()
    assert isinstance(net, UNet)
    y, gradients, kept = step(net)
    net.checkpoint_activations = True
    again, others, less = step(net)
    assert torch.equal(y, again)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert less < 0.7 * kept


def test_without_gradients_nothing_changes() -> None:
    net = build(NCSNPP["ncsnpp"], IMAGE).eval()
    assert isinstance(net, UNet)
    x, c = batch(IMAGE, 2)
    with torch.no_grad():
        y = net(x, c)
        net.checkpoint_activations = True
        assert torch.equal(net(x, c), y)
