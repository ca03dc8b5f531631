"""Likelihood: log densities by the probability flow with an error budget, and the variational bound.

The probability flow dx/dt = f x - g^2 score(x, t) / 2 has the same marginals p_t as the forward process. It is an
invertible map between data x and latents z at t = 1, and by the change of variables along it

    log p_s(x) = log p_1(z) + int_s^1 div(f x_t - g^2 score(x_t, t) / 2) dt,        x_s = x.

This is a density at the small time s = t_min, that of data with the noise sigma(s), because without noise there is no
score. p_1 is not known and is replaced by the prior; for VE the difference is that between the data blurred by
sigma_max and N(0, sigma_max^2 I). The divergence is computed exactly or estimated with random probes. A result
therefore has four sources of error, each of which is estimated: the truncation at t_min, the prior mismatch, the probes
and the solver. They are combined into an interval of 90 percent coverage.

The flow gives the density in model units. The density in data units differs from it by the log-Jacobian of the map
between the units (`DataSpec`). Bits per dimension are defined for grey levels only: noise inside their bins
(dequantisation) turns the density into a lower bound on their probability.

A model on a ladder of levels, which has no flow, has a variational bound instead (Ho et al. 2020).

    module            contents
    probability_flow  the flow as a map between data and latents, and its density in model units
    divergence        exact, Hutchinson and Hutch++ traces, with the variance of their estimates
    error_budget      truncation, prior mismatch, and the interval
    dequantisation    uniform and fitted noise inside the bins of grey levels, and the gap of the bound
    log_prob          log densities in data units and bits per dimension, with the error budget
    bound             the variational bound of a model on a ladder
    latents           paths between latents, temperature, and agreement of the encodings of two models
"""

from __future__ import annotations

from scorefield.likelihood import (
    bound,
    dequantisation,
    divergence,
    error_budget,
    latents,
    log_prob,
    probability_flow,
)
from scorefield.likelihood.bound import VariationalBound, variational_bound
from scorefield.likelihood.error_budget import Moments
from scorefield.likelihood.latents import Agreement, agreement, interpolate, tempered
from scorefield.likelihood.log_prob import LogProb, difference, flow_log_prob, flow_samples
from scorefield.likelihood.probability_flow import (
    FlowDensity,
    FlowSettings,
    decoded_density,
    log_density,
    require_flow,
    transport,
)

__all__ = [
    "Agreement",
    "FlowDensity",
    "FlowSettings",
    "LogProb",
    "Moments",
    "VariationalBound",
    "agreement",
    "bound",
    "decoded_density",
    "dequantisation",
    "difference",
    "divergence",
    "error_budget",
    "flow_log_prob",
    "flow_samples",
    "interpolate",
    "latents",
    "log_density",
    "log_prob",
    "probability_flow",
    "require_flow",
    "tempered",
    "transport",
    "variational_bound",
]
