"""Identities that an exact score satisfies at one noise level, and the deviation of a given score.

At x = alpha x_0 + sigma z write h = -sigma score(x, t) for the noise that the score sees in x, D for the posterior mean
of x_0 that it gives (Tweedie), and w = z - h; x_0 - D = -(sigma / alpha) w. An exact score is the regression of z on x,
so E[w phi(x)] = 0 for every function phi, and Stein's identity gives its second moment:

    bias            E[x_0 - D] = 0 along the mean of x_0 - D of one half of the examples, looked at in the other half
    slope of x_0    the regression of x_0 on D has slope 1
    slope of z      the regression of z on h has slope 1
    calibration     1 + sigma^2 E div score / d = E|w|^2 / d: the loss that the score predicts over the one that it has

with d values an example. Each is the mean of one number an example, tested two-sided.

Two more need no data besides x. They are sizes, not tests: rounding and finite differences break them in exact scores
too, and no network has them exactly.

    asymmetry       |J - J'| / |J| of the Jacobian J of the score, 0 for a gradient: E|J v - J' v|^2 = |J - J'|^2 and
                    E|J v|^2 = |J|^2 for probes v of random signs
    Fokker-Planck   d score / dt = grad(g^2 (div score + |score|^2) / 2 - f x . score) (Lai et al. 2023, eq. 9), by a
                    central difference in t. Its size is the mean product of two residuals with probes of their own,
                    which is unbiased, over E|d score / dt|^2; up to 8 values the divergence is exact
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._math import sum_event
from scorefield.diagnostics.levels import Examined, Level, times, twice_differentiable
from scorefield.diagnostics.statistics import mean_of, ratio_of, root_of, two_sided, upper_tail
from scorefield.inverse.calibration import Estimate
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import BoundScore

PROBES = 2
"""Probes of the Jacobian."""

LITTLE = 0.05
"""Loss, in variances of the noise, of which shares are taken where the loss itself is less.

Under much noise the noise is nearly known, the loss is tiny, and what a score makes of it matters little: to the
Kullback-Leibler divergence of samples an excess of the loss adds as much at every e-fold of sigma / alpha.
"""

EARLIEST, LATEST, APART = 0.01, 0.99, 1e-3
"""Largest number of times at which the Fokker-Planck equation is tested, and half of the difference in t."""

OTHERS = 4
"""Examples at which the Jacobian is taken for the rotation at one."""

EXACT_UP_TO = 8
"""Numbers of an example up to which the divergence in the Fokker-Planck equation is exact."""

FEW = 64
"""Examples of the Fokker-Planck equation, whose residual needs third derivatives."""


@dataclass(frozen=True)
class Identity:
    """An identity at a level.

    Attributes:
        name: Name of the identity.
        holds: Its value where it holds.
        estimate: What was found.
        p_value: p-value of the hypothesis that the identity holds.
        costs: Share of the loss, or of `LITTLE`, that restoring it takes; of calibration, what is predicted wrongly.
    """

    name: str
    holds: float
    estimate: Estimate
    p_value: float
    costs: float


def of_the_mean(level: Level, h: Tensor) -> tuple[Identity, ...]:
    """Bias and both slopes.

    Args:
        level: The examples at one noise level.
        h: The noise that the score sees, (n, d).
    """
    z = level.z.flatten(1)
    w, d = z - h, z.shape[1]
    scale = max(float(w.square().mean()), LITTLE) * d
    half = len(w) // 2
    direction = w[:half].mean(dim=0)
    length = float(direction.norm())
    along = w[half:] @ (direction / length) if length > 0.0 else torch.zeros_like(w[half:, 0])
    found, unit = mean_of(along), level.sigma / level.alpha / d**0.5
    estimate = Estimate(-found.value * unit, found.error * unit)
    out = [Identity("bias", 0.0, estimate, upper_tail(along), found.value**2 / scale)]
    D = level.denoised(h)
    for name, seen, factor in (("slope of x0", D, -level.sigma / level.alpha), ("slope of z", h, 1.0)):
        y = seen - seen.mean(dim=0)
        cross, power = (w * y).sum(dim=1), y.square().sum(dim=1)
        slope = ratio_of(factor * cross, power)
        costs = float(cross.mean()) ** 2 / max(float(power.mean()), 1e-300) / scale
        estimate = Estimate(1.0 + slope.value, slope.error)
        out.append(Identity(name, 1.0, estimate, two_sided(cross), costs))
    return tuple(out)


def calibration(level: Level, h: Tensor, divergence: Tensor) -> Identity:
    """The loss that the score predicts, over the one that it has.

    Args:
        level: The examples at one noise level.
        h: The noise that the score sees, (n, d).
        divergence: Divergence of the score, estimated without bias, (n,).
    """
    loss = (level.z.flatten(1) - h).square().mean(dim=1)
    predicted = 1.0 + level.sigma**2 * divergence / h.shape[1]
    costs = abs(float((predicted - loss).mean())) / max(float(loss.mean()), LITTLE)
    return Identity("calibration", 1.0, ratio_of(predicted, loss), two_sided(predicted - loss), costs)


@dataclass(frozen=True)
class Probed:
    """Statistics of the Jacobian J of the score at a level, from products with random vectors.

    Attributes:
        asymmetry: |J - J'| / |J|.
        divergence: Divergence of the score, estimated without bias, (n,).
        turned: (J - J') (x - mean) / 2 with J - J' the mean over `OTHERS` others, (n, d): the rotation of a score
            that has a linear one; what is not linear in that of a network is averaged out.
    """

    asymmetry: Estimate
    divergence: Tensor
    turned: Tensor


def probed(examined: Examined, level: Level) -> Probed | None:
    """Statistics of the Jacobian from random signs and x itself; None without second derivatives."""
    signs = [examined.signs(level, k) for k in range(PROBES)]
    y = level.x - level.x.mean(dim=0)
    found = examined.products(level, [*signs, *(y.roll(k + 1, 0) for k in range(OTHERS))])
    if found is None:
        return None
    random, shifted = found[:PROBES], found[PROBES:]
    divergence = torch.stack([(r * v.flatten(1)).sum(dim=1) for (r, _), v in zip(random, signs, strict=True)])
    apart = torch.stack([(r - left).square().sum(dim=1) for r, left in random]).mean(dim=0)
    power = torch.stack([r.square().sum(dim=1) for r, _ in random]).mean(dim=0)
    turned = torch.stack([0.5 * (r - left).roll(-k - 1, 0) for k, (r, left) in enumerate(shifted)]).mean(dim=0)
    return Probed(root_of(ratio_of(apart, power)), divergence.mean(dim=0), turned)


def fokker_planck(examined: Examined, level: Level) -> Estimate | None:
    """E|residual|^2 / E|d score / dt|^2 of the Fokker-Planck equation; None where it is not defined.

    That is under a ladder, which has no times between its levels, and for scores without third derivatives.

    Args:
        examined: Score and data.
        level: Near whose time, in [0.01, 0.99].
    """
    if isinstance(examined.process, Tabulated):
        return None
    time = min(max(level.time, EARLIEST), LATEST)
    apart = min(APART, 0.02 * time)
    t = torch.tensor([time], dtype=torch.float64)
    f, squared = (float(c(t)) for c in (examined.process.log_alpha_rate, examined.process.diffusion_squared))
    probes, parts = _divergence_probes(examined, level), []
    for rows in examined.batches(FEW):
        bound = examined.score.rows(rows)
        with torch.no_grad():
            x = examined.process.perturb(examined.x0[rows], t, level.z[rows])
            late, early = (bound(x, times(time + e, rows)) for e in (apart, -apart))
        rate = (late - early) / (2.0 * apart)
        try:
            first, second = (
                rate - _potential_gradient(bound, x, times(time, rows), [v[rows] for v in probe], f, squared)
                for probe in probes
            )
        except RuntimeError:  # a network whose second derivatives are not written
            return None
        parts.append(torch.stack([sum_event(first * second), sum_event(rate * rate)]))
    above, below = torch.cat(parts, dim=1)
    return ratio_of(above, below)


def _divergence_probes(examined: Examined, level: Level) -> list[list[Tensor]]:
    """Twice the vectors v whose mean of v' J v is the divergence: a random one each, or all axes, without error."""
    x0 = examined.x0
    d = x0[0].numel()
    if d > EXACT_UP_TO:
        return [[examined.signs(level, PROBES + k)] for k in range(2)]
    axes = d**0.5 * torch.eye(d).to(x0).reshape(d, 1, *x0.shape[1:])
    return [list(axes.expand(d, *x0.shape))] * 2


def _potential_gradient(
    bound: BoundScore, x: Tensor, t: Tensor, probes: Sequence[Tensor], f: float, squared: float
) -> Tensor:
    """grad(g^2 (mean of v' J v + |score|^2) / 2 - f x . score) at x."""
    with torch.enable_grad(), twice_differentiable():
        x = x.detach().requires_grad_(True)
        s = bound(x, t)
        if not s.requires_grad:
            return torch.zeros_like(x)
        divergence = torch.zeros((), dtype=x.dtype, device=x.device)
        for v in probes:
            (pulled,) = torch.autograd.grad(
                (s * v).sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
            )
            divergence = divergence + (pulled * v).sum() / len(probes)
        potential = 0.5 * squared * (divergence + (s * s).sum()) - f * (x * s).sum()
        if not potential.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(potential, x, allow_unused=True, materialize_grads=True)
        return found.detach()
