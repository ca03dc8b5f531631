"""Fields of a release's configuration file, each checked for its type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from scorefield._codec import near
from scorefield.interop.import_result import CheckpointError

LARGEST = 2**31
"""No count in a configuration is larger."""


class Fields:
    """The fields of a configuration by their dotted path, for example "model.sigma_max".

    Each method takes the value of a field that is not there, or null; without that the field is needed.

    Args:
        config: The configuration that `read_config` returns; None, without fields, where there is no file.

    Raises:
        CheckpointError: From every method: the field is required and missing, or of another type.
    """

    def __init__(self, config: Mapping[str, Any] | None):
        self.given = config is not None
        self.config = config or {}

    def has(self, path: str) -> bool:
        """Whether there is such a field."""
        return self._find(path) is not None

    def number(self, path: str, *default: float) -> float:
        """A finite number."""
        value = self._value(path, default)
        if isinstance(value, str):  # YAML reads 1e-8 as text
            try:
                value = float(value)
            except ValueError:
                _refuse(path, value, "a number")
        if type(value) not in (int, float) or not math.isfinite(value):
            _refuse(path, value, "a number")
        return float(value)

    def whole(self, path: str, *default: int) -> int:
        """A whole number."""
        value = self.number(path, *default)
        return int(value) if value == int(value) and abs(value) < LARGEST else _refuse(path, value, "a whole number")

    def count(self, path: str, *default: int) -> int:
        """A whole number, at least 1."""
        value = self.whole(path, *default)
        return value if value > 0 else _refuse(path, value, "a positive number")

    def flag(self, path: str, *default: bool) -> bool:
        """True or false."""
        value = self._value(path, default)
        return value if isinstance(value, bool) else _refuse(path, value, "true or false")

    def word(self, path: str, choices: tuple[str, ...], *default: str) -> str:
        """One of some words, in any case."""
        value = self._value(path, default)
        known = {choice.lower(): choice for choice in choices}
        word = str(value).lower()
        if word not in known:
            raise CheckpointError(f"the configuration's {path} is {value!r}.{near(str(value), choices)}")
        return known[word]

    def text(self, path: str, *default: str) -> str:
        """Some text."""
        value = self._value(path, default)
        return value if isinstance(value, str) else _refuse(path, value, "text")

    def numbers(self, path: str, *default: tuple[float, ...]) -> tuple[float, ...]:
        """Some numbers."""
        value = self._value(path, default)
        if not isinstance(value, list | tuple) or not all(type(v) in (int, float) for v in value):
            _refuse(path, value, "a list of numbers")
        return tuple(float(v) for v in value)

    def _value(self, path: str, default: tuple[Any, ...]) -> Any:
        value = self._find(path)
        if value is not None or default:
            return default[0] if value is None else value
        raise CheckpointError(
            f"the configuration has no field {path}, which this layout needs. Is it that of another release?"
        )

    def _find(self, path: str) -> Any:
        value: Any = self.config
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return None
            value = value[name]
        return value


def _refuse(path: str, value: object, what: str) -> NoReturn:
    raise CheckpointError(f"the configuration's {path} must be {what}; it is {value!r}")
