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
    """Configuration of the conditional RefineNet of NCSN; its output is the score.

    The defaults are the published network for CIFAR-10 and CelebA; that for MNIST has channels=64, and the baseline
    with a single noise level has levels=None. The deeper networks of the two releases, for larger images, have
    deeper=True with norm="instance" (2019) and with norm="instance++" (2020).

    Args:
        channels: Number of channels of the first stage, ngf.
        levels: Number of noise levels, L; c is then the label of a level, an integer in 0..L-1 with 0 the most noise.
            None makes the normalisations unconditional, and c is ignored.
        deeper: Whether there are five stages with two halvings instead of four stages with one.
        norm: "instance++", or "instance", which omits the term in the channel means.
        activation: Activation function.
        centered: Whether the data are in [-1, 1], or logits; otherwise the network maps its noisy input x to 2 x - 1.

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
            raise ValueError(
                f"channels must be at least 2, because InstanceNorm++ compares channels; got {self.channels}"
            )
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"levels must be positive, or None for one noise level without labels; got {self.levels}")
        if self.levels is None and self.norm == "instance":
            raise ValueError(
                'norm="instance" is conditional on the noise level and needs levels, for example levels=10; with'
                ' levels=None use norm="instance++"'
            )

    def build(self, data: DataSpec) -> RefineNet:
        """The network for images (C, H, W), whose sizes must be multiples of 2, or of 4 if `deeper`.

        Raises:
            ValueError: The data are not images, or have conditions.
        """
        refuse_conditions("NCSN", data)
        style = RefineStyle(self._norm(), True, activation(self.activation), mean_pool)
        stages = DEEPER if self.deeper else BASE
        return RefineNet(data, stages, self.channels, style, levels=self.levels, centered=self.centered)

    def _norm(self) -> Callable[[int], nn.Module]:
        """A function that makes the normalisation for a number of channels."""
        if self.levels is None:
            return InstanceNormPlus
        norm = ConditionalInstanceNormPlus if self.norm == "instance++" else ConditionalInstanceNorm
        return functools.partial(norm, levels=self.levels)
