"""The noise-conditional score network (Song and Ermon 2019)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

from torch import nn

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import Activation, activation
from scorefield.nets.network import NetworkConfig, refuse_conditions
from scorefield.nets.refinenets.blocks import RefineStyle, mean_pool
from scorefield.nets.refinenets.instance_norm import (
    ConditionalInstanceNorm,
    ConditionalInstanceNormPlus,
    InstanceNormPlus,
)
from scorefield.nets.refinenets.refinenet import BASE, DEEPER, RefineNet


@record
class NCSN(NetworkConfig):
    """Configuration of the conditional RefineNet of NCSN; its output is the score itself.

    The published ones: CIFAR-10 and CelebA are the default, MNIST has channels=64; the baseline with a single noise
    level has levels=None. The deeper networks of the two releases, for larger images, are deeper=True with
    norm="instance" (2019) and with norm="instance++" (2020).

    Args:
        channels: Width of the first stage, ngf.
        levels: Number of noise levels L: c is the label of one, an integer 0..L-1 with 0 the most noise. None: the
            normalisations are not conditional and c is not read.
        deeper: Five stages and two halvings, instead of four and one.
        norm: "instance++", or "instance" without the means of the channels.
        activation: Pointwise function.
        centered: Whether x is in [-1, 1] already (or in logits); otherwise the network maps its noisy input to 2 x - 1.

    Raises:
        ValueError: A field is out of its range, or two contradict each other.
    """

    channels: int = 128
    levels: int | None = 10
    deeper: bool = False
    norm: Literal["instance++", "instance"] = "instance++"
    activation: Activation = "elu"
    centered: bool = False

    def __post_init__(self) -> None:
        if self.channels < 2:
            raise ValueError(f"channels must be at least 2, for InstanceNorm++ compares channels; got {self.channels}")
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"levels must be positive, or None for one noise level without labels; got {self.levels}")
        if self.levels is None and self.norm == "instance":
            raise ValueError(
                'levels=None has unconditional InstanceNorm++; norm="instance" is conditional and needs levels, for'
                " example 10"
            )

    def build(self, data: DataSpec) -> RefineNet:
        """The network for images (C, H, W), sizes padded to multiples of 2 (deeper: 4).

        Raises:
            ValueError: The data are no images, or have conditions.
        """
        refuse_conditions("NCSN", data)
        style = RefineStyle(self._norm(), True, activation(self.activation), mean_pool)
        stages = DEEPER if self.deeper else BASE
        return RefineNet(data, stages, self.channels, style, levels=self.levels, centered=self.centered)

    def _norm(self) -> Callable[[int], nn.Module]:
        if self.levels is None:
            return InstanceNormPlus
        made = ConditionalInstanceNormPlus if self.norm == "instance++" else ConditionalInstanceNorm
        return functools.partial(made, levels=self.levels)
