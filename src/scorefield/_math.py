"""Tensor operations shared by all packages: broadcasting over event axes, sums per example, divergences."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LOG_2PI = math.log(2.0 * math.pi)


def over_event(per_example: Tensor, x: Tensor) -> Tensor:
    """Give a tensor of shape (B,) the device, dtype and trailing axes with which it multiplies x of shape (B, *event).

    Functions of time are computed in float64 on the CPU and cast only here, so that differences of neighbouring noise
    levels keep their digits on every device. One number for all examples, shape (1,), stays on the CPU as a scalar:
    accelerators take it as an argument of the operation, while copying it would make the host wait.
    """
    if per_example.numel() == 1 and per_example.device.type == "cpu":
        return per_example.to(x.dtype).reshape(())
    per_example = per_example.to(device=x.device, dtype=x.dtype)
    return per_example.reshape(per_example.shape + (1,) * (x.ndim - per_example.ndim))


def unexpanded(t: Tensor) -> Tensor:
    """Times as shape (1,) if they were expanded from one time for all examples, else unchanged, shape (B,).

    Functions of time are then computed once for the whole batch.
    """
    return t[:1] if len(t) and t.stride(0) == 0 else t


def plus_scaled(x: Tensor, coefficient: Tensor, y: Tensor) -> Tensor:
    """x + c y in one pass over the memory, for c of shape (B,), or (1,) where all examples share it."""
    if coefficient.numel() == 1 and coefficient.device.type == "cpu" and not coefficient.requires_grad:
        return torch.add(x, y, alpha=coefficient.item())
    return torch.addcmul(x, y, over_event(coefficient, x))


def _rows(x: Tensor) -> Tensor:
    """(B, *event) -> (B, D); unlike reshape(B, -1), it accepts an empty batch."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def sum_event(x: Tensor) -> Tensor:
    """Sum over every axis but the first: (B, *event) -> (B,)."""
    return _rows(x).sum(dim=1)


def mean_event(x: Tensor) -> Tensor:
    """Mean over every axis but the first: (B, *event) -> (B,)."""
    return _rows(x).mean(dim=1)


def norm_event(x: Tensor) -> Tensor:
    """Euclidean norm over every axis but the first: (B, *event) -> (B,)."""
    return _rows(x).norm(dim=1)


def normal_log_prob(x: Tensor, variance: Tensor | float) -> Tensor:
    """Log density of N(0, variance I) at x, in nats: (B, *event) -> (B,)."""
    dimension = math.prod(x.shape[1:])
    variance = torch.as_tensor(variance, dtype=x.dtype, device=x.device)
    return -0.5 * (dimension * (LOG_2PI + variance.log()) + sum_event(x * x) / variance)


def value_and_divergence(field: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """The value of a vector field and its divergence, from one forward pass.

    With probes v of shape (P, B, *event) the divergence is Hutchinson's estimate, the mean over probes of
    v' (df/dx) v (Skilling 1989; Hutchinson 1990); with None it is the exact trace, from D vector-Jacobian products.
    Neither result carries a gradient.

    Args:
        field: Maps (B, *event) to the same shape; example i of the value depends on example i of the input alone.
        x: Where to evaluate, shape (B, *event).
        probes: Noise with identity second moment, or None for the exact divergence.

    Returns:
        The detached value, shape of x, and the divergence, shape (B,).
    """
    value, pull = value_and_pullback(field, x)
    if probes is not None:
        total = x.new_zeros(x.shape[0])
        for k, v in enumerate(probes):
            total = total + sum_event(pull(v, k + 1 == len(probes)) * v.to(x))
        return value, total / len(probes)
    return value, trace(pull, x)


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A function with one value per example, and its gradient in x.

    Where gradients are enabled, both can be differentiated again; otherwise both are detached.

    Args:
        function: Maps (B, *event) to (B,); value i depends on example i alone.
        x: Where to evaluate, shape (B, *event).

    Returns:
        The values, shape (B,), and the gradient, shape of x; it is zero where a value does not depend on x.
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_(True)
        value = function(point)
        if not value.requires_grad:
            return value, torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(
            value.sum(), point, create_graph=differentiable, allow_unused=True, materialize_grads=True
        )
    return value if differentiable else value.detach(), gradient


Pullback = Callable[[Tensor, bool], Tensor]
"""The vector-Jacobian products of a field, as `value_and_pullback` returns them."""


def value_and_pullback(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
    """The value of a vector field and its vector-Jacobian products, from one forward pass.

    Args:
        field: Maps (B, *event) to the same shape; example i of the value depends on example i of the input alone.
        x: Where to evaluate, shape (B, *event).

    Returns:
        The detached value, and a function of (w, last) that returns w' (df/dx), shape of x. `last` is True in the last
        call, which frees the graph. The products are zero where the value does not depend on x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = field(x)

    def pull(weight: Tensor, last: bool) -> Tensor:
        if not value.requires_grad:  # a constant field
            return torch.zeros_like(x)
        weight = weight.to(value)
        return torch.autograd.grad(value, x, weight, retain_graph=not last, allow_unused=True, materialize_grads=True)[
            0
        ]

    return value.detach(), pull


def trace(pull: Pullback, x: Tensor) -> Tensor:
    """The exact divergence at x, (B,), from D vector-Jacobian products of `value_and_pullback`; it frees the graph."""
    total = x.new_zeros(x.shape[0])
    basis = torch.eye(math.prod(x.shape[1:]), dtype=x.dtype, device=x.device)
    for d, row in enumerate(basis):
        weight = row.reshape(1, *x.shape[1:]).expand(x.shape)
        total = total + _rows(pull(weight, d + 1 == len(basis)))[:, d]
    return total
