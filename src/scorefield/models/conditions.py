"""Conditions given by users, converted to the tensors that a network takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scorefield._codec import near
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec

ConditionLike = Mapping[str, Any]
"""name -> one value for all examples, or one per example along the leading axis."""


def as_condition(
    given: ConditionLike | None, n: int, spec: DataSpec, model: str, device: torch.device
) -> Condition | None:
    """Conditions as tensors with leading axis n on a device.

    Args:
        given: Conditions given by the user.
        n: Number of examples.
        spec: What the data are; it lists the conditions.
        model: Name of the model, for messages.
        device: Device of the network.

    Raises:
        ValueError: An unknown name, a class outside the classes, or a shape that fits neither one value nor n.
    """
    if not given:
        return None
    conditions = {c.name: c for c in spec.conditions}
    out = {}
    for name, value in given.items():
        if name not in conditions:
            known = near(name, conditions) if conditions else " It takes no conditions."
            raise ValueError(f"{model} was not trained with a condition {name!r}.{known}")
        kind, size = conditions[name].kind, conditions[name].size
        tensor = torch.as_tensor(value)
        event = {"class": (), "vector": (size,), "image": (size, *spec.shape[1:])}[kind]
        if tuple(tensor.shape) == event:
            tensor = tensor.expand(n, *event)
        if tuple(tensor.shape) != (n, *event):
            raise ValueError(
                f"condition {name!r} has shape {tuple(tensor.shape)}; give {event} for all or {(n, *event)}"
            )
        if kind == "class":
            if tensor.is_floating_point():
                raise ValueError(f"condition {name!r} is a class and must be a whole number; got {value}")
            tensor = tensor.long()
            if bool(((tensor < -1) | (tensor >= size)).any()):
                raise ValueError(f"condition {name!r} must be one of 0..{size - 1} (or -1, unknown); got {value}")
        out[name] = tensor.to(device)
    return out


def require_known(given: ConditionLike | None, spec: DataSpec, model: str) -> None:
    """Refuse to leave out the conditions of a model that was never trained without them.

    Raises:
        ValueError: Nothing is given, and there are conditions.
    """
    if spec.conditions and not given:
        names = ", ".join(f"{c.name}=..." for c in spec.conditions)
        raise ValueError(
            f"{model} was trained with every condition known, so it has no unconditional samples; give condition"
            f" {names} (or train with training.condition_dropout above 0)"
        )
