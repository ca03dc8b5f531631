"""Interfaces of networks and of their configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scorefield._typing import Condition
from scorefield.data_spec import DataSpec


class Network(nn.Module, ABC):
    """A function of a noisy example and a number that says how noisy: net(x, c, condition) -> shape of x.

    A network knows no process: the parametrisation around it scales x, computes c and turns the output into a score.
    The one exception to the output's shape is an `EnergyNetwork`.

    Args:
        data: Shape of one example and the conditions that come with it.
        multiple: Each spatial size must be a multiple of this number.

    Attributes:
        data: The `DataSpec` given.
        multiple: One number per spatial axis; whoever calls the network pads x (and image conditions) to it and crops.
    """

    def __init__(self, data: DataSpec, multiple: int = 1):
        super().__init__()
        self.data = data
        self.multiple: tuple[int, ...] = (multiple,) * (len(data.shape) - 1)

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy examples, already scaled, (B, *data.shape) with spatial sizes padded to `multiple`.
            c: Conditioning numbers, (B,).
            condition: What is known of each example; a name that is missing, or None, is unknown for the whole batch.

        Returns:
            The raw output, same shape and dtype as x.

        Raises:
            ValueError: x, c or a condition does not have the shape the network was built for.
        """

    def check(self, x: Tensor, c: Tensor) -> None:
        """Refuse arguments of another shape than the network was built for.

        Raises:
            ValueError: Another rank or channel count, a spatial size that is no multiple, or not one c per example.
        """
        shape, spatial = self.data.shape, tuple(x.shape[2:])
        if x.ndim != len(shape) + 1 or x.shape[1] != shape[0]:
            raise ValueError(
                f"the network was built for examples of shape {shape}; got a batch of shape {tuple(x.shape)}, and"
                f" (B, {', '.join(map(str, shape))}) was expected"
            )
        if c.shape != x.shape[:1]:
            raise ValueError(f"c must have shape ({x.shape[0]},), one number per example; got {tuple(c.shape)}")
        if any(n % m for n, m in zip(spatial, self.multiple, strict=True)):
            padded = padded_shape(spatial, self.multiple)
            raise ValueError(
                f"the network halves its input and needs spatial sizes that are multiples of {self.multiple}; got"
                f" {spatial}. Pad to {padded} and crop the output (the parametrised score does this by itself)"
            )


class EnergyNetwork(Network):
    """A network that gives one energy per example: net(x, c, condition) -> (B,), lower = more likely.

    The density is proportional to exp(-E / T), and what stands for the output of shape x is the gradient -dE/dx. An
    energy is known up to one additive constant. Everything that asks for gradients of gradients works, as training by
    denoising score matching needs: the loss contains dE/dx and is differentiated once more (LeCun et al. 2006, "A
    tutorial on energy-based learning", section 1.3; Saremi et al. 2018).
    """

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """Evaluate the energy.

        Args:
            x: Examples, (B, *data.shape); an energy pads them itself where it must, as it has nothing to crop.
            c: Conditioning numbers, (B,); an energy that serves every noise level does not look at them.
            condition: Known conditions, as in `Network.forward`.

        Returns:
            One energy per example, (B,), in the dtype of x.

        Raises:
            ValueError: x, c or a condition does not have the shape the network was built for.
        """


def refuse_conditions(network: str, data: DataSpec) -> None:
    """Refuse data with conditions for a network that cannot be conditioned.

    Args:
        network: Name of the configuration, for the message.
        data: The data that the network is to be built for.

    Raises:
        ValueError: The data have conditions.
    """
    if data.conditions:
        names = ", ".join(repr(condition.name) for condition in data.conditions)
        raise ValueError(
            f"{network} cannot be conditioned, and the data have the conditions {names}. Build it for the data alone,"
            " dataclasses.replace(data, conditions=()); the networks with conditions are NCSNpp, DDPM and MLP"
        )


def refuse_condition(condition: Condition | None) -> None:
    """Refuse a condition given to a network without conditions.

    Raises:
        ValueError: A condition is known.
    """
    if condition and (known := [name for name, value in condition.items() if value is not None]):
        raise ValueError(
            f"the network knows no condition {known[0]!r}: it was built for data without conditions, and would give"
            " the same output whatever the condition says. Call it with condition=None"
        )


def padded_shape(spatial: tuple[int, ...], multiple: tuple[int, ...]) -> tuple[int, ...]:
    """The smallest sizes that are multiples and not below the given ones."""
    return tuple(-(-n // m) * m for n, m in zip(spatial, multiple, strict=True))


class NetworkConfig(ABC):
    """Configuration of a network, built for the shape and conditions of the data."""

    @abstractmethod
    def build(self, data: DataSpec) -> Network:
        """Make the network with freshly drawn weights (torch's global generator).

        Args:
            data: Event shape, which fixes channels and sizes, and the conditions.

        Raises:
            ValueError: The network cannot take data of this shape.
        """
