"""Feature extractors of the metrics, with a name and a hash so that results of different ones are never compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from scorefield.metrics.receipt import module_hash


@runtime_checkable
class Features(Protocol):
    """A function of examples in data units that states what it is.

    Attributes:
        name: Its name in receipts.
        hash: Hash of all that its values depend on, None where that cannot be known.
    """

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str | None: ...

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *event) in data units -> (B, F)."""
        ...


class RawFeatures:
    """The values themselves, flattened: (B, *event) -> (B, D), in data units."""

    name = "raw values"
    hash = hashlib.sha256(b"raw values").hexdigest()

    def __call__(self, x: Tensor) -> Tensor:
        """Flatten every example."""
        return x.reshape(len(x), -1)


class ModuleFeatures:
    """Any module or callable as a feature function.

    Args:
        function: Maps (B, *event) in data units to (B, F), or to (B, ...) which is flattened. A module is put in
            evaluation mode and runs on the device of its parameters.
        name: Its name in receipts.
        hash: Identifier of the version of a callable that is no module. Modules are hashed here.

    Raises:
        TypeError: Not callable.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], *, name: str, hash: str | None = None):
        if not callable(function):
            raise TypeError(
                f"features {name!r} must be a module or a function of a batch, got {type(function).__name__}"
            )
        self.name = name
        self.hash = hash
        self._function = function
        self._device = torch.device("cpu")
        if isinstance(function, nn.Module):
            function.eval()
            self.hash = module_hash(function) if hash is None else hash
            self._device = next((p.device for p in function.parameters()), self._device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """(B, *event) in data units -> (B, F) on the CPU.

        Raises:
            ValueError: The function does not return one finite row per example.
        """
        value = self._function(x.to(self._device))
        if not isinstance(value, Tensor) or value.ndim < 2 or len(value) != len(x):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"features {self.name!r} returned {got} for a batch of {len(x)}; wanted a tensor (B, F)")
        return value.reshape(len(value), -1).cpu()


class Remembered:
    """Features that keep the rows of the batch they saw last, so that metrics fed the same batch run the network once.

    A batch is known by its values, so that one changed in place is a new one.

    Args:
        features: The feature function; name, hash and note are its own.
    """

    def __init__(self, features: Features):
        self.inner = features
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def name(self) -> str:
        """The feature function's name."""
        return self.inner.name

    @property
    def hash(self) -> str | None:
        """The feature function's hash."""
        return self.inner.hash

    @property
    def note(self) -> str | None:
        """The feature function's note."""
        return getattr(self.inner, "note", None)

    def __call__(self, x: Tensor) -> Tensor:
        """The rows of a batch, computed or remembered; not to be changed in place."""
        if self._last is not None:
            seen, rows = self._last
            if seen.dtype == x.dtype and seen.device == x.device and torch.equal(seen, x):
                return rows
        rows = self.inner(x)
        self._last = (x.detach().clone(), rows)
        return rows


class View:
    """A function of the rows of other features; views of one network run it once for each batch and each reference.

    Args:
        whole: The features that it is a view of.
        select: Maps their rows (B, G) to (B, F).
        name: Its name in receipts.
        hash: Hash of all that its values depend on, None where that of `whole` is None.
    """

    def __init__(self, whole: Remembered, select: Callable[[Tensor], Tensor], *, name: str, hash: str | None):
        self.whole = whole
        self.select = select
        self.name = name
        self.hash = hash

    @property
    def note(self) -> str | None:
        """The note of what it is a view of."""
        return self.whole.note

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *event) in data units -> (B, F)."""
        return self.select(self.whole(x))


def feature_rows(features: Features, x: Tensor) -> Tensor:
    """Features of a batch in float64 on the CPU, (B, F); refuses what is not one finite row per example."""
    rows = features(x)
    if rows.ndim != 2 or len(rows) != len(x):
        raise ValueError(
            f"features {features.name!r} returned shape {tuple(rows.shape)} for {len(x)} examples, not (B, F)"
        )
    rows = rows.detach().to("cpu").to(torch.float64)
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(
            f"features {features.name!r} returned NaN or infinity for finite samples; look at the samples' range"
            f" (these go from {float(x.min()):g} to {float(x.max()):g})"
        )
    return rows
