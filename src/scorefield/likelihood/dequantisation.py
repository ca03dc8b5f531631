"""Dequantisation: noise inside the bins of grey levels, uniform or fitted, and the gap of the resulting bound.

A vector of levels k has the probability P(k) = int p(k + u) du over the unit cube, with p the density per quantisation
step. For any distribution q on the unit cube, log P(k) >= E_q[log p(k + u) - log q(u)] (Theis et al. 2016; Ho et al.
2019). With K draws of q the mean estimates that bound, log mean exp estimates a tighter one (Burda et al. 2016), and
their difference estimates the gap.
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
"""Step number of the dequantisation noise."""

FIT_STEP = 2**61 + 3
"""Step number of the noise with which a dequantiser is fitted; other noise is used to evaluate it."""

FIT_STEPS = 40
"""Number of optimiser steps, each with one score evaluation."""

EDGE = 1e-6
"""Smallest distance of a draw from the edges of its bin, in bins, because float32 noise may be exactly 0."""


class Kumaraswamy:
    """The Kumaraswamy distribution q(u) = prod_i a_i b_i u_i^(a_i - 1) (1 - u_i^a_i)^(b_i - 1) on the unit cube.

    Every number of every example has its own a and b; a = b = 1 is the uniform distribution. A draw is
    u = (1 - (1 - v)^(1/b))^(1/a) for a uniform v (Kumaraswamy 1980).

    Args:
        log_a: ln a, (B, *event) float64.
        log_b: ln b, shape of `log_a`.
    """

    def __init__(self, log_a: Tensor, log_b: Tensor):
        self.log_a, self.log_b = log_a, log_b

    def draw(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Transform uniform v, (B, *event), into u of that shape and log q(u), (B,)."""
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
        """Fit q to each example by stochastic gradient ascent on the bound, starting from the uniform distribution.

        The gradient of log p(k + u) in u is the score at the time of the density, so no flow is integrated and each
        optimiser step takes one score evaluation (Adam with a learning rate decreasing from 0.1 to 0). The bound,
        evaluated with fresh noise, holds for any fitted q.

        Args:
            score: The bound score.
            x: Grey values in data units, (B, *shape).
            data: The spec of the data.
            noise: Source of the draws.
            time: The time of the density.
            dtype: Dtype in which the score is evaluated.
        """
        assert data.levels is not None
        width = (data.model_range[1] - data.model_range[0]) / data.levels
        t = torch.full((len(x),), time, dtype=torch.float64)
        with torch.inference_mode(False), torch.enable_grad():
            q = cls(*(torch.zeros(x.shape, dtype=torch.float64, device=x.device).requires_grad_() for _ in range(2)))
            optimiser = torch.optim.Adam([q.log_a, q.log_b], lr=0.1)
            for k in range(FIT_STEPS):
                optimiser.param_groups[0]["lr"] = 0.1 * (1.0 - k / FIT_STEPS)
                v = noise.uniform(x.to(torch.float32), FIT_STEP, k).double()
                u, log_q = q.draw(v)
                with torch.no_grad():
                    slope = width * score(data.dequantise(x, u.detach()).to(dtype), t).to(torch.float64)
                optimiser.zero_grad()
                (log_q - (slope * u).flatten(1).sum(dim=1)).sum().backward()
                optimiser.step()
        return cls(q.log_a.detach(), q.log_b.detach())


def gap(nats: Tensor) -> Term:
    """The gap log P(k) - E_q[nats] of the bound, estimated by the importance-weighted bound minus the mean.

    The uncertainty contains the standard error of the mean, and the part of the gap that is left, because log mean exp
    of few draws is still below log P: for nats with a normal distribution of variance s^2 the gap is s^2 / 2.

    Args:
        nats: log p(k + u) - log q(u) of K >= 2 draws, (K, B).
    """
    K = len(nats)
    value = nats.logsumexp(dim=0) - math.log(K) - nats.mean(dim=0)
    variance = nats.var(dim=0)
    remaining = (0.5 * variance - value).clamp_min(0.0)
    return Term(value, ((DEVIATIONS**2) * variance / K + remaining.square()).sqrt())
