"""Interfaces of networks and of their configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from scorefield._typing import Condition
from scorefield.data_spec import DataSpec


class Network(nn.Module, ABC):
    """A score network F(x, c, condition) with the shape of x; x is a noisy example, c a number for its noise level.

    A network does not depend on the process: the parametrisation around it scales x, computes c and converts the output
    into a score. The one exception to the output's shape is an `EnergyNetwork`.

    Args:
        data: Shape of one example and the conditions that come with it.
        multiple: Each spatial size must be a multiple of this number.

    Attributes:
        data: The `DataSpec` given.
        multiple: One number per spatial axis. The caller pads x and image conditions to sizes that are multiples of it,
            and crops the output.
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
            c: Numbers that state the noise level, (B,).
            condition: Conditions by name. A condition that is missing or None is unknown for the whole batch.

        Returns:
            The raw output, same shape and dtype as x.

        Raises:
            ValueError: x, c or a condition does not have the shape the network was built for.
        """

    def check(self, x: Tensor, c: Tensor) -> None:
        """Refuse arguments of another shape than the network was built for.

        Raises:
            ValueError: x has another rank or channel count, or a spatial size that is not a multiple of `multiple`; or
                c does not hold one number per example.
        """
        shape, spatial = self.data.shape, tuple(x.shape[2:])
        if x.ndim != len(shape) + 1 or x.shape[1] != shape[0]:
            raise ValueError(
                f"the network was built for examples of shape {shape}; got a batch of shape {tuple(x.shape)}. Give a"
                f" batch of shape (B, {', '.join(map(str, shape))})"
            )
        if c.shape != x.shape[:1]:
            raise ValueError(f"c must have shape ({x.shape[0]},), one number per example; got {tuple(c.shape)}")
        if any(n % m for n, m in zip(spatial, self.multiple, strict=True)):
            padded = padded_shape(spatial, self.multiple)
            raise ValueError(
                f"the network halves its input and needs spatial sizes that are multiples of {self.multiple}; got"
                f" {spatial}. Pad to {padded} and crop the output, as the parametrised score does"
            )


class EnergyNetwork(Network):
    """A network that gives one energy per example: net(x, c, condition) -> (B,), lower = more likely.

    The density is proportional to exp(-E / T), and -dE/dx takes the place of an output of the shape of x. An energy is
    defined up to one additive constant. It must be twice differentiable, because the loss of denoising score matching
    contains dE/dx and is differentiated once more (LeCun et al. 2006, "A tutorial on energy-based learning", section
    1.3; Saremi et al. 2018).
    """

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """Evaluate the energy.

        Args:
            x: Examples, (B, *data.shape). An energy pads them itself where its architecture needs other sizes, because
                there is no output to crop.
            c: Numbers that state the noise level, (B,); an energy for all noise levels ignores them.
            condition: Conditions by name, as in `Network.forward`.

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
            f"{network} cannot be conditioned, and the data have the conditions {names}. Build it for data without"
            " conditions, dataclasses.replace(data, conditions=()), or use NCSNpp, DDPM or MLP, which take conditions"
        )


def refuse_condition(condition: Condition | None) -> None:
    """Refuse a condition given to a network without conditions.

    Raises:
        ValueError: A condition is given and is not None.
    """
    if condition and (known := [name for name, value in condition.items() if value is not None]):
        raise ValueError(
            f"the network takes no condition {known[0]!r}: it was built for data without conditions, so its output"
            " would not depend on the condition. Call it with condition=None"
        )


def require_images(network: str, data: DataSpec, alternative: str) -> None:
    """Refuse data that are not images (C, H, W).

    Args:
        network: Name of the configuration, for the message.
        data: The data that the network is to be built for.
        alternative: Sentence that names the networks for data of other shapes.

    Raises:
        ValueError: The event shape does not have three axes.
    """
    if len(data.shape) != 3:
        raise ValueError(f"{network} takes images (C, H, W); got data of shape {data.shape}. {alternative}")


def spatial_axes(network: str, data: DataSpec, alternative: str) -> int:
    """The number of spatial axes, 1 for signals (C, L) and 2 for images (C, H, W).

    Args:
        network: Name of the configuration, for the message.
        data: The data that the network is to be built for.
        alternative: Sentence that names the networks for data of other shapes.

    Raises:
        ValueError: The data are neither signals nor images.
    """
    if len(data.shape) not in (2, 3):
        raise ValueError(
            f"{network} takes signals (C, L) and images (C, H, W); got data of shape {data.shape}. {alternative}"
        )
    return len(data.shape) - 1


def padded_shape(spatial: tuple[int, ...], multiple: tuple[int, ...]) -> tuple[int, ...]:
    """Each spatial size rounded up to the next multiple of its number in `multiple`."""
    return tuple(-(-n // m) * m for n, m in zip(spatial, multiple, strict=True))


def check_dropout(p: float) -> None:
    """Refuse a dropout probability outside [0, 1).

    Raises:
        ValueError: The probability is negative, or 1 or more.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout is a probability, at least 0 and below 1; got {p}")


class NetworkConfig(ABC):
    """Configuration of a network; `build` makes the network for the shape and conditions of the data."""

    @abstractmethod
    def build(self, data: DataSpec) -> Network:
        """Make the network with freshly drawn weights (torch's global generator).

        Args:
            data: Event shape, which determines channels and sizes, and the conditions.

        Raises:
            ValueError: The network cannot take data of this shape, or with these conditions.
        """
