"""Reconstruction guidance: y is compared with A of the posterior mean, as if that were x_0 itself."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import norm_event, over_event, unexpanded
from scorefield.inverse.noise import GaussianNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.solvers.tilted_score import Estimate, Tilted, TiltingSolver, require_scale
from scorefield.process.process import Process
from scorefield.sampling.named import ancestral
from scorefield.sampling.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.score.score import Score


@record
class DPS(TiltingSolver):
    """Diffusion posterior sampling: p~(y | x) = p(y | D(x)) for any differentiable A (Chung et al. 2023).

    Rule "likelihood" adds scale grad_x log p(y | D(x)), whatever the noise of y. It ignores how far x_0 may be from D:
    the pull is too strong at high noise levels, samples too narrow and biased, and no number of steps changes that.
    Its curvature is up to |A dD/dx|^2 / std^2 where steps have the length sigma^2 or so: with little noise it takes
    many steps or runs away, which the status of the samples says.

    Rule "norm" is the published step and does not ask for the noise. After each step of the reverse process

        x_s <- x_s - scale grad_x |y - A(D(x_t))|,

    zeta_i = scale / |y - A(D)| times the gradient of the square, as the paper's section 4 writes it up to the factor 2
    of a square, and as its code does. A score g moves a reverse step from t to s by b^2 g / a, with the transition
    x_t = a x_s + b z; the guided score here is therefore that of the prior minus scale (a / b^2) grad |y - A(D)|, with
    a and b of the sampler's own steps. With `Ancestral` and 1000 steps it is the published sampler; the scale belongs
    to the number of steps, and the published ones lie between 0.3 and 1. It ends, as published, on the noise-free mean
    of the last step, for of no such displacement a posterior mean could be made.

    Args:
        scale: Scale of the guidance term towards y.
        rule: "likelihood" or "norm".

    Raises:
        ValueError: A scale that is not positive, or an unknown rule.

    Reference: Chung et al., "Diffusion posterior sampling for general noisy inverse problems", 2023, algorithm 1.
    """

    scale: float = 1.0
    rule: Literal["likelihood", "norm"] = "likelihood"

    name: ClassVar[str] = "dps"
    exact: ClassVar[str] = "no: x_0 given x_t is taken to be its mean"

    def __post_init__(self) -> None:
        require_scale(self.scale)
        if self.rule not in ("likelihood", "norm"):
            raise ValueError(f'rule={self.rule!r} must be "likelihood", the gradient of log p(y | D), or "norm"')

    def tilted(self, score: Score, sampler: Sampler, observation: Observation) -> Tilted:
        """The guided score."""
        if self.rule == "likelihood":
            return Reconstructed(score, observation, self.scale)
        return ByNorm(score, observation, self.scale, sampler)

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The guided score, and the sampler; by the norm it ends on the mean of its last step."""
        ending = replace(sampler, final="mean") if self.rule == "norm" and sampler.final == "denoise" else sampler
        return self.tilted(score, sampler, observation), ending

    def default_sampler(self, score: Score) -> Sampler:
        """Ancestral sampling, on every level of a ladder or in 1000 steps."""
        return ancestral(score.process)

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """As every solver's; the norm has no use for noise, and needs steps whose length it can know."""
        if self.rule == "likelihood":
            return super().refusals(score, sampler, observation)
        why = super().refusals(score, sampler, replace(observation, noise=GaussianNoise(1.0)))
        legal = (Ancestral, ReverseDiffusion, EulerMaruyama)
        if bad := [type(part).__name__ for part in sampler.step.parts() if not isinstance(part, legal)]:
            why.append(
                f"dps with rule='norm' is a displacement for each step, which {', '.join(bad)} would not take as it is;"
                " use Ancestral, ReverseDiffusion or EulerMaruyama, or rule='likelihood'"
            )
        return why


class Reconstructed(Tilted):
    """The score tilted by p(y | D(x))."""

    def likelihood(self, at: Estimate) -> tuple[Tensor, Tensor]:
        """(log p(y | D), its gradient), by automatic differentiation of A and of the distribution of the noise."""
        with torch.enable_grad():
            D = at.denoised.detach().requires_grad_(True)
            log_p = self.observation.log_likelihood(D, at.y)
            (w,) = torch.autograd.grad(log_p.sum(), D)
        return log_p.detach(), w


class ByNorm(Tilted):
    """The score minus scale (a / b^2) grad_x |y - A(D(x))|, for the steps of one sampler.

    Args:
        score: Score of x, the prior.
        observation: The observation, in model units.
        scale: zeta, the length of each step's displacement where dD/dx and A are orthogonal.
        sampler: The sampler of the steps.
    """

    def __init__(self, score: Score, observation: Observation, scale: float, sampler: Sampler):
        super().__init__(score, observation, scale)
        self._times = sampler.times(score.process)
        process: Process = sampler.process or score.process
        a, b = process.kernel(self._times[1:], self._times[:-1])
        self._per_step = a / b**2

    def likelihood(self, at: Estimate) -> tuple[Tensor, Tensor]:
        """(-|y - A(D)| a / b^2, its gradient); no density of y."""
        with torch.enable_grad():
            D = at.denoised.detach().requires_grad_(True)
            apart = norm_event(at.y - self.observation.operator(D))
            # Where y is met exactly there is no direction to go, and the norm no slope.
            (w,) = torch.autograd.grad((apart.clamp_min(torch.finfo(apart.dtype).tiny)).sum(), D)
        weight = self._weight(at.t)
        return -weight.to(apart) * apart.detach(), -over_event(weight, w) * w.nan_to_num(0.0)

    def _weight(self, t: Tensor) -> Tensor:
        """a / b^2 of the step that leaves from t, or that t lies within; of the last one at the end of the grid."""
        row = (self._times[:-1] >= unexpanded(t).cpu().to(self._times)[:, None] - 1e-12).sum(1) - 1
        return self._per_step[row.clamp_min(0)]
