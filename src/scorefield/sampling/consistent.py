"""Consistent annealed sampling: steps after which the state has exactly the noise of its level."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import plus_scaled, unexpanded
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.exponential import linear_combination
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore


@record
class Consistent(Step):
    """Move by the fraction eta towards the posterior mean, then add the noise that is missing at the next level.

    With y = x / alpha, r = sigma / alpha and D the posterior mean,

        y <- y + eta (D - y) + sqrt(r_s^2 - (1 - eta)^2 r_t^2) z,    x = alpha_s y.

    For alpha = 1 this is consistent annealed sampling (Jolicoeur-Martineau et al. 2021, algorithm 2), whose step size
    is epsilon = eta sigma_L^2 and whose factor of sigma_s z is beta = sqrt(1 - ((1 - eta) sigma_t / sigma_s)^2). If
    x_t = x_0 + sigma_t e with e of unit variance and score = -e / sigma_t, the state afterwards has exactly the noise
    sigma_s. In annealed Langevin dynamics the noise of the state instead lags behind that of the level. A step into a
    level without noise adds none, and the state keeps the noise (1 - eta) sigma_t; use `Sampler(final="expected")` to
    remove it.

    Args:
        eta: Fraction of the noise that is replaced, in (0, 2). A step is admissible if |1 - eta| <= r_s / r_t.

    Raises:
        ValueError: eta lies outside (0, 2).
    """

    eta: float

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "noise sigma_s exactly on a point mass; a Gaussian of variance v loses eta^2 r_t^2 v / (v + r_t^2) per step"
    )

    def __post_init__(self) -> None:
        if not 0.0 < self.eta < 2.0:
            raise ValueError(
                f"eta={self.eta} is the fraction of the noise that a step replaces and must lie in (0, 2); for a"
                " published step size epsilon pass eta = epsilon / sigma_end^2"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`.

        Raises:
            ValueError: A step from t to s is too long for eta: the state would keep more noise than level s has.
        """
        times, t, s = t, unexpanded(t), unexpanded(s)
        alpha_t, alpha_s = process.alpha(t), process.alpha(s)
        r_t, r_s = process.sigma(t) / alpha_t, process.sigma(s) / alpha_s
        clean = r_s == 0.0
        missing = r_s**2 - ((1.0 - self.eta) * r_t) ** 2
        if bool(((missing < 0.0) & ~clean).any()):
            raise ValueError(self._too_long(float((r_s / r_t)[~clean].min())))
        denoised = score.denoised(x, times)
        rows = torch.stack([(1.0 - self.eta) * alpha_s / alpha_t, self.eta * alpha_s], 1).tolist()
        mean = linear_combination(rows, [x, denoised])
        added = alpha_s * torch.where(clean, torch.zeros_like(missing), missing.clamp_min(0.0)).sqrt()
        return StepResult(plus_scaled(mean, added, noise(x)), mean, denoised=denoised)

    def _too_long(self, ratio: float) -> str:
        return (
            f"eta={self.eta:g} is not admissible on this grid: the smallest ratio of consecutive noise levels is"
            f" {ratio:.6g}, and |1 - eta| must not exceed it. Choose eta in [{1 - ratio:.6g}, {1 + ratio:.6g}], or a"
            " finer grid (EveryLevel(refine=...))"
        )
