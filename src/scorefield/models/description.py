"""Description of an experiment: every field as a tree, the number of parameters and the memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from scorefield.models.experiment import Experiment
from scorefield.models.networks import build_critic, meta_network


def describe_experiment(experiment: Experiment) -> list[str]:
    """Lines: the resolved object tree, then parameters and memory of the network, and of a critic beside it.

    The network is built without memory (on the meta device), for the experiment's own data spec; where the data
    decide the shape and have not been opened, that is said.
    """
    lines = list(_tree(experiment, experiment.name, 0))
    spec = experiment.spec
    if spec is None:
        lines.append("network: its size follows from the data; give --data to `train --dry-run`")
        return lines
    count, trained = _counts(meta_network(experiment, spec))
    averages = len(experiment.averaging.decays)
    # Weights, gradient and Adam's two moments, and one copy per average, float32.
    state = 4 * trained * (4 + averages) / 2**20
    lines.append(f"network: {count:,} parameters ({trained:,} trained) for examples of shape {spec.shape}")
    if (adversary := experiment.adversary) is not None:
        with torch.device("meta"):
            judges, trained = _counts(build_critic(experiment, spec))
        state += 4 * trained * 4 / 2**20
        updates = f"{adversary.steps} update{'s' * (adversary.steps != 1)}"
        lines.append(f"critic: {judges:,} parameters ({trained:,} trained), {updates} for one of the network")
    lines.append(
        f"state in training: {state:,.1f} MiB (weights, gradients, Adam, {averages} average{'s' * (averages != 1)}),"
        f" before activations"
    )
    return lines


def _counts(network: nn.Module) -> tuple[int, int]:
    """(parameters, trained ones)."""
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _tree(value: Any, name: str, depth: int) -> list[str]:
    indent = "  " * depth
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        lines = [f"{indent}{name}: {type(value).__name__}"]
        for field in dataclasses.fields(value):
            lines += _tree(getattr(value, field.name), field.name, depth + 1)
        return lines
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        lines = [f"{indent}{name}:"]
        for i, item in enumerate(value):
            lines += _tree(item, str(i), depth + 1)
        return lines
    if callable(value) and hasattr(value, "__qualname__"):
        value = f"{value.__module__}:{value.__qualname__}"
    return [f"{indent}{name} = {value}"]
