"""Interfaces of discriminators D(x) and of their configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scorefield.data_spec import DataSpec
from scorefield.nets.network import refuse_conditions


class Critic(nn.Module, ABC):
    """A function D(x) of a batch of examples, one number for each.

    Args:
        data: Shape of one example; kept as an attribute.
    """

    def __init__(self, data: DataSpec):
        super().__init__()
        self.data = data

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Judge examples.

        Args:
            x: Clean or denoised examples, (B, *data.shape).

        Returns:
            D(x), (B,), in the dtype of x; a logit for the losses that are likelihoods.

        Raises:
            ValueError: x does not have the shape the critic was built for.
        """

    def check(self, x: Tensor) -> None:
        """Refuse a batch of another shape than the critic was built for.

        Raises:
            ValueError: The shape of one example differs.
        """
        if tuple(x.shape[1:]) != self.data.shape:
            raise ValueError(
                f"the critic was built for examples of shape {self.data.shape}; got a batch of shape {tuple(x.shape)}."
                " Give it examples of that shape, one per row, or build a critic for these"
            )


class CriticConfig(ABC):
    """A frozen description of a critic; it becomes one when it meets the data."""

    @abstractmethod
    def build(self, data: DataSpec) -> Critic:
        """Make the critic with freshly drawn weights (torch's global generator).

        Args:
            data: Event shape, which fixes channels and sizes.

        Raises:
            ValueError: The critic cannot judge data of this shape, or with conditions.
        """


def _check_image(name: str, data: DataSpec) -> None:
    """Refuse data that are no plain images.

    Raises:
        ValueError: Not (C, H, W), or conditions.
    """
    refuse_conditions(name, data)
    if len(data.shape) != 3:
        raise ValueError(f"{name} judges images (C, H, W); got data of shape {data.shape}")
