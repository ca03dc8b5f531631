"""Interfaces of guidance networks and of their configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scorefield._math import over_event
from scorefield.data_spec import DataSpec


class GuideNetwork(nn.Module, ABC):
    """A network net(x, c) -> (B, outputs) of noisy examples x, conditioned on a number c for the noise level.

    Args:
        data: Shape of one example; stored as an attribute.
        outputs: Number of outputs per example; stored as an attribute.

    Raises:
        ValueError: The number of outputs is below 1.
    """

    def __init__(self, data: DataSpec, outputs: int):
        super().__init__()
        if outputs < 1:
            raise ValueError(f"a guidance network needs one output or more; got outputs={outputs}")
        self.data, self.outputs = data, outputs

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy examples in the scale of the data, x_t / alpha in model units, (B, *data.shape).
            c: ln(sigma / alpha) of each example, (B,).

        Returns:
            (B, outputs), in the dtype of x; row i depends on example i alone.

        Raises:
            ValueError: x or c does not have the shape the network was built for.
        """

    def check(self, x: Tensor, c: Tensor) -> None:
        """Refuse arguments that do not have the shapes that the network was built for.

        Raises:
            ValueError: The shape of one example differs, or c does not hold one number per example.
        """
        if tuple(x.shape[1:]) != self.data.shape:
            raise ValueError(
                f"the guidance network was built for examples of shape {self.data.shape}; got a batch of shape"
                f" {tuple(x.shape)}. Give a batch of examples of that shape, or build a network for the other shape"
            )
        if c.shape != x.shape[:1]:
            raise ValueError(f"c must have shape ({x.shape[0]},), one number per example; got {tuple(c.shape)}")


class GuideConfig(ABC):
    """Configuration of a guidance network; `build` makes the network for the shape of the data."""

    @abstractmethod
    def build(self, data: DataSpec, outputs: int) -> GuideNetwork:
        """Make the network with freshly drawn weights (torch's global generator).

        Args:
            data: Event shape; conditions of the data are ignored.
            outputs: Number of outputs per example.

        Raises:
            ValueError: The network cannot take data of this shape.
        """


def scale_to_unit(x: Tensor, c: Tensor) -> Tensor:
    """x / sqrt(1 + e^(2 c)), which is of order one at every noise level if the data are of order one."""
    return over_event(torch.rsqrt(1.0 + (2.0 * c).exp()), x) * x
