"""The parameters of the U-Nets under the names, in the order and in the layout of the published networks.

The releases store the modules of a U-Net in one list, `all_modules`, and name a parameter by the index of its module.
Published averages of weights have no names: they are lists of the trainable tensors in the order in which the modules
were created. The modules here register their parameters in the same order, so that tensor k of such a list belongs to
parameter k; only the 1x1 maps, which the releases store as (in, out), are transposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from scorefield.nets.layers import ChannelMix
from scorefield.nets.network import Network
from scorefield.nets.unets.ncsnpp import DownLevel, Head, UNet, UpLevel

Kind = Literal["fourier", "dense", "conv", "norm", "block", "attention", "combine", "down", "up"]


class PublishedModule(NamedTuple):
    """One module of a published U-Net.

    Attributes:
        kind: Kind of the module.
        name: Name of the corresponding module of `UNet`.
        listed: Whether it is in `all_modules`; the resampling modules of an image pyramid, which have no parameters,
            are not.
    """

    kind: Kind
    name: str
    listed: bool = True


class PublishedTensor(NamedTuple):
    """One parameter of a `UNet`, and how the releases store it.

    Attributes:
        name: Name of the parameter in `UNet`.
        parameter: The parameter.
        transposed: Whether the release's tensor is the transpose of the parameter.
        trainable: False for the Fourier frequencies, which published lists of averages omit.
        release: Name in the release, such as "all_modules.4.GroupNorm_0.weight".
    """

    name: str
    parameter: nn.Parameter
    transposed: bool
    trainable: bool
    release: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the release's tensor."""
        return tuple(self.parameter.shape[::-1] if self.transposed else self.parameter.shape)


# Name of a part of a block or of an attention layer here -> its name in the releases.
_BLOCK = {"norm_0": "GroupNorm_0", "conv_0": "Conv_0", "dense": "Dense_0", "norm_1": "GroupNorm_1", "conv_1": "Conv_1"}
_ATTENTION = {"norm": "GroupNorm_0", "query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "project": "NIN_3"}


def published_modules(net: UNet) -> Iterator[PublishedModule]:
    """The modules of a U-Net in the order in which the releases create and call them.

    An unconditional network of the releases still has Fourier frequencies, which are never used. `UNet` has none in
    that case, and the name "time.fourier" then belongs to no module.
    """
    config, last = net.config, len(net.down) - 1
    if config.embedding == "fourier":
        yield PublishedModule("fourier", "time.fourier")
    if net.time is not None:
        yield PublishedModule("dense", "time.first")
        yield PublishedModule("dense", "time.second")
    yield PublishedModule("conv", "conv_in")
    for i, level in enumerate(net.down):
        assert isinstance(level, DownLevel)
        for j in range(len(level.stages)):
            yield from _stage(net, f"down.{i}.stages.{j}")
        if i < last:
            yield _sampler(net, "down", f"down.{i}.resample")
        if i < last and config.progressive_input == "input_skip":
            yield PublishedModule("down", "pyramid_down", listed=False)
            yield PublishedModule("combine", f"down.{i}.pyramid")
        elif i < last and config.progressive_input == "residual":
            yield PublishedModule("down", f"down.{i}.pyramid")
    for j in range(len(net.middle)):
        yield from _stage(net, f"middle.{j}")
    for i, level in enumerate(net.up):
        assert isinstance(level, UpLevel)
        yield from _up_level(net, level, f"up.{i}", lowest=i == 0, highest=i == last)
    if net.head is not None:
        yield from _head("head")


def _up_level(net: UNet, level: UpLevel, name: str, *, lowest: bool, highest: bool) -> Iterator[PublishedModule]:
    for j in range(len(level.blocks)):
        yield PublishedModule("block", f"{name}.blocks.{j}")
    if level.attention is not None:
        yield PublishedModule("attention", f"{name}.attention")
    if isinstance(level.pyramid, Head):
        if not lowest:
            yield PublishedModule("up", "pyramid_up", listed=False)
        yield from _head(f"{name}.pyramid")
    elif level.pyramid is not None:
        yield PublishedModule("up", f"{name}.pyramid")
    if not highest:
        yield _sampler(net, "up", f"{name}.resample")


def _stage(net: UNet, name: str) -> Iterator[PublishedModule]:
    yield PublishedModule("block", f"{name}.block")
    if getattr(net.get_submodule(name), "attention", None) is not None:
        yield PublishedModule("attention", f"{name}.attention")


def _sampler(net: UNet, kind: Literal["down", "up"], name: str) -> PublishedModule:
    return PublishedModule("block" if net.style.biggan else kind, name)


def _head(name: str) -> Iterator[PublishedModule]:
    yield PublishedModule("norm", f"{name}.norm")
    yield PublishedModule("conv", f"{name}.conv")


def published_parts(net: UNet, module: PublishedModule) -> dict[str, str]:
    """The possible parts of a module that have parameters: name in `UNet` -> name inside the release's module.

    A module without parts has one entry, with the name "".
    """
    match module.kind:
        case "block":
            inside = _BLOCK | {"shortcut": "Conv_2" if net.style.biggan else "NIN_0"}
        case "attention":
            inside = _ATTENTION
        case "combine":
            inside = {"conv": "Conv_0"}
        case "down" | "up":
            inside = {"conv": "Conv_0" if net.style.taps is None else "Conv2d_0"}
        case _:
            return {module.name: ""}
    return {f"{module.name}.{ours}": theirs for ours, theirs in inside.items()}


def published_order(net: Network) -> list[PublishedTensor]:
    """The network's parameters, except those of conditions, in the order of the release's `all_modules`.

    Raises:
        TypeError: The network is not one of the U-Nets NCSN++, DDPM++ and DDPM.
    """
    if not isinstance(net, UNet):
        raise TypeError(
            f"{type(net).__name__} is not one of the U-Nets that have a published order of their parameters; build it"
            " from NCSNpp or DDPM"
        )
    parameters = dict(net.named_parameters())
    found = []
    for index, module in enumerate(m for m in published_modules(net) if m.listed):
        for part, inside in published_parts(net, module).items():
            is_channel_mix = f"{part}.weight" in parameters and isinstance(net.get_submodule(part), ChannelMix)
            for leaf in ("W", "weight", "bias"):
                if (parameter := parameters.get(f"{part}.{leaf}")) is None:
                    continue
                release_leaf = {"weight": "W", "bias": "b"}[leaf] if is_channel_mix else leaf
                release = ".".join(["all_modules", str(index), *filter(None, [inside]), release_leaf])
                transposed = is_channel_mix and leaf == "weight"
                found.append(PublishedTensor(f"{part}.{leaf}", parameter, transposed, parameter.requires_grad, release))
    return found


def load_published(net: Network, tensors: Sequence[Tensor], frozen: Sequence[Tensor] = ()) -> None:
    """Copy the tensors of a release into a network.

    Args:
        net: A network of the published architecture.
        tensors: The trainable tensors of the release in their order (`shadow_params`), or all of its parameters (the
            state dictionary without `sigmas`).
        frozen: The tensors of the release that are not trained, where `tensors` holds the trainable ones: the Fourier
            frequencies, if the network has them.

    Raises:
        TypeError: The network is not one of the U-Nets.
        ValueError: The number of tensors or a shape differs; the message names the first parameter that differs.
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
            f" got {len(tensors)} and {len(frozen)}. The checkpoint belongs to another configuration, or the argument"
            " frozen, with the Fourier frequencies W, is missing"
        )
    for index, (ours, theirs) in enumerate(pairs):
        if tuple(theirs.shape) != ours.shape:
            raise ValueError(
                f"tensor {index} has shape {tuple(theirs.shape)}; {ours.name} of this network, {ours.release} of the"
                f" release, needs {ours.shape}: the checkpoint belongs to another configuration"
            )
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.parameter.copy_(theirs.T if ours.transposed else theirs)
