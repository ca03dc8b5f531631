"""Energy-based models: exact Markov chains, normalising constants and outlier detection.

An energy E defines the density p_T(x) = exp(-E(x) / T) / Z(T). It determines more than its score -grad E / T does: the
difference of two energies gives the acceptance probability of a move, so that Markov chains can leave p_T exactly
invariant at any step length. Whether the chains have mixed is a separate question, which R-hat and effective sample
sizes assess.

    module       contents
    transition   one Metropolis step, whose step length is tuned on pilot chains and then frozen
    chains       chains of p_T with their acceptance rates, energies, and proposals that were not finite
    convergence  split R-hat and effective sample sizes
    annealing    chains at decreasing temperatures, with every step exact at its own temperature
    posterior    the posterior of an energy under y = A(x) + noise, as an energy for the same chains

log Z is estimated by annealed importance sampling between p_T and a distribution whose normalising constant Z_0 is
known, in both directions. The work values w of forward and reverse chains have distributions with
p_F(w) / p_R(-w) = exp(w - log Z_1 / Z_0), which Bennett's acceptance ratio solves for log Z_1 / Z_0. The estimate comes
with an interval and a verdict, because its error bar is reliable only where the two sets of work values overlap.

    module                contents
    annealed_importance   forward and reverse chains along a schedule that pilot chains have set
    bridge_sampling       Bennett's acceptance ratio with its interval, the overlap and the verdict
    normalising_constant  log Z, the evidence, log densities and bits per dimension of energies

Outliers are detected by scores that are compared with those of held-out data. They are reported together with
complexity baselines, which use no model.

    module    contents
    outliers  outlier scores, conformal p-values, complexity baselines
"""

from __future__ import annotations

from scorefield.energy import (
    annealed_importance,
    annealing,
    bridge_sampling,
    chains,
    convergence,
    normalising_constant,
    outliers,
    posterior,
    transition,
)
from scorefield.energy.annealed_importance import AISSettings, BoxBase, GaussianBase, Schedule
from scorefield.energy.annealing import Annealed, Ladder, PublishedAnneal, anneal, tune_ladder
from scorefield.energy.chains import Chains, run_chains
from scorefield.energy.convergence import Diagnostics
from scorefield.energy.normalising_constant import (
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
from scorefield.energy.posterior import posterior_energy
from scorefield.energy.transition import Kernel, tune

__all__ = [
    "AISSettings",
    "Annealed",
    "BoxBase",
    "Chains",
    "Diagnostics",
    "EnergyLogProb",
    "GaussianBase",
    "Kernel",
    "Ladder",
    "LogZ",
    "ModeCheck",
    "PublishedAnneal",
    "Schedule",
    "anneal",
    "annealed_importance",
    "annealing",
    "bridge_sampling",
    "chains",
    "convergence",
    "energy_log_prob",
    "log_evidence",
    "log_z",
    "log_z_of_work",
    "normalising_constant",
    "outliers",
    "path_to",
    "posterior",
    "posterior_energy",
    "run_chains",
    "same_modes",
    "transition",
    "tune",
    "tune_ladder",
]
