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
    annealing        chains led through falling temperatures, every move exact at its own
    observed         posteriors of an energy under y = A(x) + noise, for the same chains

log Z is found by annealing from a law whose normaliser is known and back; the two sets of work values have
p_F(w) / p_R(-w) = exp(w - log Z_1 / Z_0), so that they can be told apart only as far as log Z is known.

    annealed_importance  forward and reverse chains along a schedule that a pilot has frozen
    bridge               Bennett's acceptance ratio, its interval, overlap and verdict
    normaliser           log Z, evidence, log densities and bits per dimension of energies

A measurement y = A(x) + noise turns p(x) into p(x | y), whose score at every noise level is that of p_t plus
grad log p_t(y | x_t). The last term is an integral over x_0 that no network knows; solvers differ in what they put in
its place, and in when that is exact.

    inverse          operators, observations, solvers, posterior samples with their residual test
    calibration      whether posterior samples are as wide as they should be: ranks, coverage, TARP

What a model finds unusual is a matter of scores that are compared with held-out data; complexity without a model
stands beside each of them.

    outliers         scores, conformal p-values, complexity baselines

Exact scores satisfy identities at every noise level, and a known fault has a remedy that the data ask for.

    doctor           what holds and what fails at each level, and the name of the fault
"""

from __future__ import annotations

from scorefield.inference import (
    annealed_importance,
    annealing,
    bound,
    bridge,
    budget,
    calibration,
    chains,
    dequantisation,
    diagnostics,
    divergence,
    doctor,
    flow,
    inverse,
    latents,
    likelihood,
    normaliser,
    observed,
    outliers,
    transition,
)
from scorefield.inference.annealed_importance import AISSettings, BoxBase, GaussianBase, Schedule
from scorefield.inference.annealing import Annealed, Ladder, PublishedAnneal, anneal, tune_ladder
from scorefield.inference.bound import VariationalBound, variational_bound
from scorefield.inference.budget import Moments
from scorefield.inference.chains import Chains, run_chains
from scorefield.inference.diagnostics import Diagnostics
from scorefield.inference.flow import FlowDensity, FlowSettings, decoded_density, log_density, require_flow, transport
from scorefield.inference.latents import Agreement, agreement, interpolate, tempered
from scorefield.inference.likelihood import LogProb, difference, flow_log_prob, flow_samples
from scorefield.inference.normaliser import (
    EnergyLogProb,
    LogZ,
    ModeCheck,
    energy_log_prob,
    log_evidence,
    log_z,
    log_z_of_work,
    path_to,
    same_modes,
)
from scorefield.inference.observed import posterior_energy
from scorefield.inference.transition import Kernel, tune

__all__ = [
    "AISSettings",
    "Agreement",
    "Annealed",
    "BoxBase",
    "Chains",
    "Diagnostics",
    "EnergyLogProb",
    "FlowDensity",
    "FlowSettings",
    "GaussianBase",
    "Kernel",
    "Ladder",
    "LogProb",
    "LogZ",
    "ModeCheck",
    "Moments",
    "PublishedAnneal",
    "Schedule",
    "VariationalBound",
    "agreement",
    "anneal",
    "annealed_importance",
    "annealing",
    "bound",
    "bridge",
    "budget",
    "calibration",
    "chains",
    "decoded_density",
    "dequantisation",
    "diagnostics",
    "difference",
    "divergence",
    "doctor",
    "energy_log_prob",
    "flow",
    "flow_log_prob",
    "flow_samples",
    "interpolate",
    "inverse",
    "latents",
    "likelihood",
    "log_density",
    "log_evidence",
    "log_z",
    "log_z_of_work",
    "normaliser",
    "observed",
    "outliers",
    "path_to",
    "posterior_energy",
    "require_flow",
    "run_chains",
    "same_modes",
    "tempered",
    "transition",
    "transport",
    "tune",
    "tune_ladder",
    "variational_bound",
]
