"""Networks from outside the package: any `torch.nn.Module` as the network of an experiment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from scorefield._codec import record
from scorefield._plugins import find_module
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.network import Network, NetworkConfig


class PlainNetwork(Network):
    """A module with `forward(x, c)` or `forward(x, c, condition)` as a `Network`.

    Args:
        module: The module. Spatial sizes must be multiples of its attribute `multiple`, if it has one.
        data: Shape of one example and its conditions.

    Raises:
        ValueError: The module takes no condition and the data have some.
    """

    def __init__(self, module: nn.Module, data: DataSpec):
        super().__init__(data, int(getattr(module, "multiple", 1)))
        self.module = module
        self._takes_condition = len(_positional(module.forward)) > 2
        if data.conditions and not self._takes_condition:
            names = ", ".join(repr(condition.name) for condition in data.conditions)
            raise ValueError(
                f"{type(module).__name__}.forward(x, c) takes no condition, and the data have {names}; give it a third"
                " argument, forward(self, x, c, condition), a dictionary of tensors or None, or train without"
                " conditions (data.conditional=false)"
            )

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """The module's output; see `Network.forward`."""
        self.check(x, c)
        out = self.module(x, c, condition) if self._takes_condition else self.module(x, c)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"{type(self.module).__name__} returned {got} for examples of shape {tuple(x.shape)}; a score network"
                " returns a tensor of the shape of x (an energy derives from scorefield.nets.EnergyNetwork)"
            )
        return out


@record
class Module(NetworkConfig):
    """A module of one's own as the network of an experiment.

        Experiment(network=sf.Module("mypackage.nets:MyNet", width=64), ...)

    The module is a function of noisy examples x, (B, *shape), already scaled by the parametrisation, and of one number
    c per example, (B,), that says how noisy it is: `forward(x, c)` or `forward(x, c, condition)`, with the shape of x.
    It is made anew as `target(**settings)`; arguments called `data` (the `DataSpec`) and `shape` (the shape of one
    example) are filled in where they are not among the settings.

    Args:
        target: The class, or a function that makes the module, or its import path "module:name". An instance is taken
            as it is; it can be used and not saved.
        settings: Its arguments by keyword.
        more: Further arguments by keyword.

    Raises:
        ValueError: There is nothing at the import path.
        TypeError: The target is neither a module nor something that can be called.
    """

    target: Callable[..., nn.Module]
    settings: Mapping[str, Any]

    def __init__(
        self, target: str | Callable[..., nn.Module], settings: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        if isinstance(target, str):
            target = _imported(target)
        if not callable(target):
            raise TypeError(f"target={target!r} is neither a torch.nn.Module nor a class or function that makes one")
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "settings", {**(settings or {}), **more})
        if isinstance(target, nn.Module) and self.settings:
            raise ValueError(f"{type(target).__name__} is already made and takes no settings; give its class")

    def __hash__(self) -> int:
        return hash((self.target, tuple(sorted(self.settings))))

    def build(self, data: DataSpec) -> Network:
        """The module for these data; see `NetworkConfig.build`.

        Raises:
            ValueError: The constructor does not take the settings, or refuses the data.
            TypeError: What it makes is no module.
        """
        module = self.target if isinstance(self.target, nn.Module) else self._made(data)
        if not isinstance(module, nn.Module):
            raise TypeError(f"{self.target!r} made a {type(module).__name__}; a network is a torch.nn.Module")
        return module if isinstance(module, Network) else PlainNetwork(module, data)

    def _made(self, data: DataSpec) -> nn.Module:
        wanted = inspect.signature(self.target).parameters
        known = {name: value for name, value in {"data": data, "shape": data.shape}.items() if name in wanted}
        try:
            inspect.signature(self.target).bind(**{**known, **self.settings})
        except TypeError as error:
            name = getattr(self.target, "__name__", repr(self.target))
            raise ValueError(f"{name} cannot be made with {dict(self.settings)}: {error}") from None
        return self.target(**{**known, **self.settings})


def _imported(path: str) -> Callable[..., nn.Module]:
    """What an import path names; the user wrote it, so it is imported without further questions."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ValueError(f"target={path!r} is no import path; write it as 'mypackage.nets:MyNet'")
    try:
        found: Any = find_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"target={path!r} cannot be imported: {error}") from error
    return found


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that can be given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]
