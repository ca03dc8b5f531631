"""Noise inside the bins of grey levels, uniform or fitted, and the gap of the bound that it gives.

A level k has the probability P(k) = int_0^1 p(k + u) du, with p the density per quantisation step, and for any q on the
unit cube log P(k) >= E_q[log p(k + u) - log q(u)] (Theis et al. 2016; Ho et al. 2019). With K draws of q the mean is
that bound, log mean exp a tighter one (Burda et al. 2016), and what lies between them is the gap's estimate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield._random import Noise
from scorefield.data_spec import DataSpec
from scorefield.likelihood.error_budget import DEVIATIONS, Term
from scorefield.score.score import BoundScore

DEQUANTISE_STEP = 2**61 + 1
"""The step number of dequantisation noise."""

FIT_STEP = 2**61 + 3
"""The step number of the noise with which a dequantiser is fitted: never that with which it is evaluated."""

FIT_STEPS = 40
"""Ascents, one evaluation of the score each."""

EDGE = 1e-6
"""Draws keep so far from the edges of a bin, in bins: float32 noise may be 0."""


class Kumaraswamy:
    """q(u) = prod_i a b u^(a-1) (1 - u^a)^(b-1), with a, b of each number of each example; a = b = 1 is uniform.

    A draw is u = (1 - (1 - v)^(1/b))^(1/a) of a uniform v (Kumaraswamy 1980).

    Args:
        log_a: (B, *event) float64.
        log_b: The same.
    """

    def __init__(self, log_a: Tensor, log_b: Tensor):
        self.log_a, self.log_b = log_a, log_b

    def draw(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """u, shape of v, and log q(u), (B,), from uniform v."""
        a, b = self.log_a.exp(), self.log_b.exp()
        v = v.clamp(EDGE, 1.0 - EDGE)
        log_rest = torch.log1p(-v) / b  # log(1 - u^a)
        log_u = torch.log(-torch.expm1(log_rest)) / a
        log_q = self.log_a + self.log_b + (a - 1.0) * log_u + (b - 1.0) * log_rest
        return log_u.exp(), log_q.flatten(1).sum(dim=1)

    @classmethod
    def fitted(
        cls, score: BoundScore, x: Tensor, data: DataSpec, noise: Noise, time: float, dtype: torch.dtype
    ) -> Kumaraswamy:
        """The best for each example by stochastic ascent on the bound, from the uniform one.

        The gradient of log p(k + u) in u is the score at the time of the density, so no flow is solved: each ascent is
        one evaluation of the score (Adam, steps from 0.1 down to 0). Whatever is found, the bound evaluated with fresh
        noise holds.

        Args:
            score: The bound score.
            x: Grey values in data units, (B, *shape).
            data: Their spec.
            noise: Where draws come from.
            time: Of the density.
            dtype: In which the score is evaluated.
        """
        assert data.levels is not None
        width = (data.model_range[1] - data.model_range[0]) / data.levels
        t = torch.full((len(x),), time, dtype=torch.float64)
        with torch.inference_mode(False), torch.enable_grad():
            q = cls(*(torch.zeros(x.shape, dtype=torch.float64, device=x.device).requires_grad_() for _ in range(2)))
            ascent = torch.optim.Adam([q.log_a, q.log_b], lr=0.1)
            for k in range(FIT_STEPS):
                ascent.param_groups[0]["lr"] = 0.1 * (1.0 - k / FIT_STEPS)
                v = noise.uniform(x.to(torch.float32), FIT_STEP, k).double()
                u, log_q = q.draw(v)
                with torch.no_grad():
                    slope = width * score(data.dequantise(x, u.detach()).to(dtype), t).to(torch.float64)
                ascent.zero_grad()
                (log_q - (slope * u).flatten(1).sum(dim=1)).sum().backward()
                ascent.step()
        return cls(q.log_a.detach(), q.log_b.detach())


def gap(nats: Tensor) -> Term:
    """log P(k) - E_q[nats] from K >= 2 draws, (K, B): the importance-weighted bound over the mean.

    The uncertainty is of the mean over draws, and, as log mean exp of few draws is still below log P, of what a normal
    law of the same variance s^2 would have for a gap, s^2 / 2.
    """
    K = len(nats)
    value = nats.logsumexp(dim=0) - math.log(K) - nats.mean(dim=0)
    variance = nats.var(dim=0)
    left = (0.5 * variance - value).clamp_min(0.0)
    return Term(value, ((DEVIATIONS**2) * variance / K + left.square()).sqrt())
