"""What a score is good for besides sampling.

The probability flow dx/dt = f x - g^2 score(x, t) / 2 carries p_t along, so it is an invertible map between data and
latents, and

    log p_s(x) = log p_1(x_1) + int_s^1 div(f x_t - g^2 score(x_t, t) / 2) dt,        x_s = x,

is the density it assigns to x at the small time s = t_min: that of data with the noise sigma(s), without which there
is no score. p_1 is not known and the prior stands for it; for VE the difference is that of N(0, sigma_max^2 I) and the
data blurred by sigma_max.

The density is of model units. A density in data units differs by the log-Jacobian of the map between them, and bits
per dimension exist only for grey levels, whose bins turn a density into a probability (`DataSpec`).

    flow             the flow as a map, and its density in model units
    divergence       exact, Hutchinson and Hutch++ traces, with the variance of an estimate
    budget           truncation, prior mismatch, and the interval
    dequantisation   noise inside the bins of grey levels, and the gap of its bound
    likelihood       log densities in data units, bits per dimension, with an error budget
    bound            the variational bound of a model on a ladder
    latents          paths between latents, temperature, agreement of two models' encodings

An energy E says more than its score: p_T is exp(-E / T) / Z(T), and the difference of two energies decides whether a
move is accepted. Chains that do leave p_T exactly invariant at any step length; what they leave open is whether they
have mixed.

    transition       one Metropolis move, its step length tuned on a pilot and then frozen
    chains           draws of p_T with acceptance, energies, chains that are not finite
    diagnostics      split R-hat and effective sample sizes
"""

from __future__ import annotations

from scorefield.inference import (
    bound,
    budget,
    chains,
    dequantisation,
    diagnostics,
    divergence,
    flow,
    latents,
    likelihood,
    transition,
)
from scorefield.inference.bound import VariationalBound, variational_bound
from scorefield.inference.budget import Moments
from scorefield.inference.chains import Chains, run_chains
from scorefield.inference.diagnostics import Diagnostics
from scorefield.inference.flow import FlowDensity, FlowSettings, decoded_density, log_density, require_flow, transport
from scorefield.inference.latents import Agreement, agreement, interpolate, tempered
from scorefield.inference.likelihood import LogProb, difference, flow_log_prob, flow_samples
from scorefield.inference.transition import Kernel, tune

__all__ = [
    "Agreement",
    "Chains",
    "Diagnostics",
    "FlowDensity",
    "FlowSettings",
    "Kernel",
    "LogProb",
    "Moments",
    "VariationalBound",
    "agreement",
    "bound",
    "budget",
    "chains",
    "dequantisation",
    "diagnostics",
    "difference",
    "divergence",
    "decoded_density",
    "flow",
    "flow_log_prob",
    "flow_samples",
    "interpolate",
    "latents",
    "likelihood",
    "log_density",
    "require_flow",
    "run_chains",
    "tempered",
    "transition",
    "transport",
    "tune",
    "variational_bound",
]
