"""The rule that fills networks of NCSN, NCSNv2 and ACSM with reproducible weights, and the numbers of one output."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tolerance import EIGHT_DIGITS


def fill_with_sines(module: nn.Module) -> None:
    """u = sin(0.37 j + 1.3 k + 0.1), j the entry and k the rank of the name, times sqrt(2 / fan_in) or 0.5 + 0.5 u."""
    with torch.no_grad():
        for k, (name, parameter) in enumerate(sorted(module.named_parameters())):
            u = torch.sin(0.37 * torch.arange(parameter.numel(), dtype=torch.float64) + 1.3 * k + 0.1)
            if parameter.ndim >= 2 and "embed" not in name:
                value = math.sqrt(2 * parameter.shape[0] / parameter.numel()) * u
            else:
                value = 0.5 + 0.5 * u
            parameter.copy_(value.reshape(parameter.shape))


def sine_input(*shape: int) -> Tensor:
    """0.5 + 0.5 sin(0.11 t), t the entry."""
    return (0.5 + 0.5 * torch.sin(0.11 * torch.arange(math.prod(shape), dtype=torch.float64))).reshape(shape)


def numbers(output: Tensor) -> tuple[float, ...]:
    """Mean, standard deviation, largest size, and the first, middle and last entry."""
    flat = output.flatten()
    entries = flat[[0, flat.numel() // 2, -1]].tolist()
    return float(flat.mean()), float(flat.std()), float(flat.abs().max()), *entries


def agree(found: tuple[float, ...], printed: tuple[float, ...]) -> bool:
    """Whether numbers agree with printed ones to the last digit."""
    return len(found) == len(printed) and all(
        math.isclose(a, b, rel_tol=EIGHT_DIGITS) for a, b in zip(found, printed, strict=True)
    )
