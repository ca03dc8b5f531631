"""RefineNets without noise conditioning: NCSNv2 (Song and Ermon 2020), and those of adversarial score matching."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

from torch import nn

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import Activation, activation
from scorefield.nets.network import NetworkConfig, padded_shape, refuse_conditions
from scorefield.nets.refinenets.blocks import RefineStyle, max_pool
from scorefield.nets.refinenets.instance_norm import InstanceNormPlus, NoNorm, VarianceNorm
from scorefield.nets.refinenets.refinenet import BASE, DEEPER, DEEPEST, RefineNet

_STAGES = {"base": BASE, "deeper": DEEPER, "deepest": DEEPEST}
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance++": InstanceNormPlus,
    "variance": VarianceNorm,
    "none": lambda channels: NoNorm(),
}


@record
class NCSNv2(NetworkConfig):
    """Configuration of the unconditional RefineNets; the output is f(x) = sigma times the score, and c is ignored.

    The release of NCSNv2 divides by sigma inside the network; here the parametrisation does (`ScaledScoreForm`). The
    published networks are "base" for CIFAR-10 and CelebA (64 pixels), "deeper" for LSUN (96 to 128 pixels) and
    "deepest" for FFHQ (256 pixels). Those of adversarial score matching (Jolicoeur-Martineau et al. 2021) are the same
    networks with other values of `norm`, `activation`, `dilation` and `spectral_norm`.

    Args:
        channels: Number of channels of the first stage, ngf.
        depth: "base", "deeper" or "deepest": four, five or six stages.
        norm: "instance++", "variance" (division by the standard deviation without subtraction of the mean) or "none".
        activation: Activation function.
        dilation: Whether the last two stages are dilated. Otherwise they are not, and halve the size like the others.
        spectral_norm: Whether the weight of every convolution is divided by its largest singular value.
        centered: Whether the data are in [-1, 1]; otherwise the network maps its noisy input x to 2 x - 1.

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 128
    depth: Literal["base", "deeper", "deepest"] = "base"
    norm: Literal["instance++", "variance", "none"] = "instance++"
    activation: Activation = "elu"
    dilation: bool = True
    spectral_norm: bool = False
    centered: bool = False

    def __post_init__(self) -> None:
        least = 2 if self.norm == "instance++" else 1
        if self.channels < least:
            raise ValueError(f"channels must be at least {least} with norm={self.norm!r}; got {self.channels}")

    def build(self, data: DataSpec) -> RefineNet:
        """The network for images (C, H, W), whose sizes must be multiples of 2, 4 or 8 (without dilation: 8, 16 or 32).

        Images of 28 pixels are an exception, as in the release: "base" without dilation halves 28, 14 and 7, and adds a
        row and a column of zeros at size 7.

        Raises:
            ValueError: The data are not images, or have conditions, or the images are too small for norm="variance".
        """
        refuse_conditions("NCSNv2", data)
        stages = _STAGES[self.depth]
        if not self.dilation:
            stages = tuple(dataclasses.replace(stage, dilation=1) for stage in stages)
            if self.depth == "base" and data.shape[1:] == (28, 28):
                stages = (*stages[:-1], dataclasses.replace(stages[-1], odd=True))
        style = RefineStyle(_NORMS[self.norm], False, activation(self.activation), max_pool, self.spectral_norm)
        net = RefineNet(data, stages, self.channels, style, levels=None, centered=self.centered)
        least = 2 * math.prod(net.multiple)
        if self.norm == "variance" and math.prod(padded_shape(data.shape[1:], net.multiple)) < least:
            raise ValueError(
                'norm="variance" needs at least two positions at the coarsest stage, where each side is divided by'
                f" {net.multiple[0]}, and therefore images of {least} pixels or more; got data of shape {data.shape}."
                ' Use norm="instance++", or a depth with fewer halvings'
            )
        return net
