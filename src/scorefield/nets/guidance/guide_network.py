"""Interfaces of guidance networks and of their configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scorefield._math import over_event
from scorefield.data_spec import DataSpec


class GuideNetwork(nn.Module, ABC):
    """A function of a noisy example and a number that says how noisy: net(x, c) -> (B, outputs).

    Args:
        data: Shape of one example; kept as an attribute.
        outputs: Number of outputs for each example; kept as an attribute.

    Raises:
        ValueError: No output.
    """

    def __init__(self, data: DataSpec, outputs: int):
        super().__init__()
        if outputs < 1:
            raise ValueError(f"a guidance network has one output or more; got outputs={outputs}")
        self.data, self.outputs = data, outputs

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy examples in the scale of the data, x_t / alpha in model units, (B, *data.shape).
            c: ln(sigma / alpha) of each, (B,).

        Returns:
            (B, outputs), in the dtype of x; row i depends on example i alone.

        Raises:
            ValueError: x or c does not have the shape the network was built for.
        """

    def check(self, x: Tensor, c: Tensor) -> None:
        """Refuse arguments of another shape than the network was built for.

        Raises:
            ValueError: The shape of one example differs, or there is not one c for each.
        """
        if tuple(x.shape[1:]) != self.data.shape:
            raise ValueError(
                f"the guidance network was built for examples of shape {self.data.shape}; got a batch of shape"
                f" {tuple(x.shape)}. Give it examples of that shape, one per row, or build one for these"
            )
        if c.shape != x.shape[:1]:
            raise ValueError(f"c must have shape ({x.shape[0]},), one number per example; got {tuple(c.shape)}")


class GuideConfig(ABC):
    """Configuration of a guidance network, built for the shape of the data."""

    @abstractmethod
    def build(self, data: DataSpec, outputs: int) -> GuideNetwork:
        """Make the network with freshly drawn weights (torch's global generator).

        Args:
            data: Event shape; conditions that come with the data, such as a class, play no role.
            outputs: Numbers wanted of each example.

        Raises:
            ValueError: The network cannot take data of this shape.
        """


def _order_one(x: Tensor, c: Tensor) -> Tensor:
    """x / sqrt(1 + e^(2 c)): of order one at every noise level for data of order one."""
    return over_event(torch.rsqrt(1.0 + (2.0 * c).exp()), x) * x
