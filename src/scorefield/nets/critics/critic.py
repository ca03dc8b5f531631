"""Interfaces of discriminators D(x) and of their configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scorefield.data_spec import DataSpec
from scorefield.nets.network import refuse_conditions, require_images


class Critic(nn.Module, ABC):
    """A discriminator D(x): one number per example, larger for clean data.

    Args:
        data: Shape of one example; stored as an attribute.
    """

    def __init__(self, data: DataSpec):
        super().__init__()
        self.data = data

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Evaluate D.

        Args:
            x: Clean or denoised examples, (B, *data.shape).

        Returns:
            D(x), (B,), in the dtype of x; the logit of "clean" for losses that are likelihoods.

        Raises:
            ValueError: x does not have the shape the critic was built for.
        """

    def check(self, x: Tensor) -> None:
        """Refuse a batch whose examples do not have the shape that the critic was built for.

        Raises:
            ValueError: The shape of one example differs.
        """
        if tuple(x.shape[1:]) != self.data.shape:
            raise ValueError(
                f"the critic was built for examples of shape {self.data.shape}; got a batch of shape {tuple(x.shape)}."
                " Give a batch of examples of that shape, or build a critic for the other shape"
            )


class CriticConfig(ABC):
    """Configuration of a critic; `build` makes the critic for the shape of the data."""

    @abstractmethod
    def build(self, data: DataSpec) -> Critic:
        """Make the critic with freshly drawn weights (torch's global generator).

        Args:
            data: Event shape, which determines channels and sizes.

        Raises:
            ValueError: The critic cannot take data of this shape, or data with conditions.
        """


def require_unconditional_images(critic: str, data: DataSpec) -> None:
    """Refuse data that are not images (C, H, W), or that have conditions.

    Raises:
        ValueError: The data have another number of axes, or conditions.
    """
    refuse_conditions(critic, data)
    require_images(critic, data, "MLPCritic takes examples of any shape")
