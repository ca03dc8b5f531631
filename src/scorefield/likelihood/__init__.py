"""Likelihood: log densities by the probability flow, with an error budget.

The probability flow dx/dt = f x - g^2 score(x, t) / 2 carries p_t along, so it is an invertible map between data and
latents, and

    log p_s(x) = log p_1(x_1) + int_s^1 div(f x_t - g^2 score(x_t, t) / 2) dt,        x_s = x,

is the density it assigns to x at the small time s = t_min: that of data with the noise sigma(s), without which there
is no score. p_1 is not known and the prior stands for it; for VE the difference is that of N(0, sigma_max^2 I) and the
data blurred by sigma_max.

The density is of model units. A density in data units differs by the log-Jacobian of the map between them, and bits
per dimension exist only for grey levels, whose bins turn a density into a probability (`DataSpec`).

    probability_flow   the flow as a map, and its density in model units
    divergence         exact, Hutchinson and Hutch++ traces, with the variance of an estimate
    error_budget       truncation, prior mismatch, and the interval
    dequantisation     noise inside the bins of grey levels, and the gap of its bound
    log_prob           log densities in data units, bits per dimension, with an error budget
    bound              the variational bound of a model on a ladder
    latents            paths between latents, temperature, agreement of two models' encodings
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
