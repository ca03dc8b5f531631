"""Our parameters in the order and layout of the published networks.

Published averages of weights are lists without names: the trainable tensors in the order in which the release's modules
were made. Our modules register theirs in the same order, so that the k-th tensor of the list is our k-th parameter;
only the 1x1 maps that the releases store as (in, out) are transposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scorefield.nets.layers import ChannelMix
from scorefield.nets.network import Network


class PublishedTensor(NamedTuple):
    """One of our parameters as the releases store it.

    Attributes:
        name: Our parameter's name.
        parameter: Our parameter.
        transposed: Whether the release's tensor is the transpose of ours.
        trainable: False for the Fourier frequencies, which published lists of averages leave out.
    """

    name: str
    parameter: nn.Parameter
    transposed: bool
    trainable: bool


def published_order(net: Network) -> list[PublishedTensor]:
    """The network's parameters, except those of conditions, in the order of the release's `all_modules`."""
    found = []
    for name, parameter in net.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if name.startswith("conditioning."):
            continue
        transposed = leaf == "weight" and isinstance(net.get_submodule(owner), ChannelMix)
        found.append(PublishedTensor(name, parameter, transposed, parameter.requires_grad))
    return found


def load_published(net: Network, tensors: Sequence[Tensor], frozen: Sequence[Tensor] = ()) -> None:
    """Copy a release's tensors into the network.

    Args:
        net: A network of the published architecture.
        tensors: The release's trainable tensors in order (`shadow_params`), or all of its parameters (the state
            dictionary without `sigmas`).
        frozen: With the former, the tensors that are not trained: the Fourier frequencies, where the network has them.

    Raises:
        ValueError: Another number of tensors or another shape; the message names the first parameter that differs.
    """
    order = published_order(net)
    trainable = [p for p in order if p.trainable]
    if len(tensors) == len(order) and not frozen:
        pairs = list(zip(order, tensors, strict=True))
    elif len(tensors) == len(trainable) and len(frozen) == len(order) - len(trainable):
        pairs = list(zip(trainable, tensors, strict=True))
        pairs += zip((p for p in order if not p.trainable), frozen, strict=True)
    else:
        raise ValueError(
            f"the network has {len(trainable)} trainable and {len(order) - len(trainable)} frozen tensors;"
            f" got {len(tensors)} and {len(frozen)}. The checkpoint belongs to another configuration, or frozen="
            " (the Fourier frequencies W) is missing"
        )
    for index, (ours, theirs) in enumerate(pairs):
        shape = tuple(ours.parameter.shape[::-1] if ours.transposed else ours.parameter.shape)
        if tuple(theirs.shape) != shape:
            raise ValueError(
                f"tensor {index} has shape {tuple(theirs.shape)}; {ours.name} of this network needs {shape}: the"
                " checkpoint belongs to another configuration"
            )
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.parameter.copy_(theirs.T if ours.transposed else theirs)
