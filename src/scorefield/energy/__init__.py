"""Energy-based models: exact chains, normalising constants and outliers.

An energy E says more than its score: p_T is exp(-E / T) / Z(T), and the difference of two energies decides whether a
move is accepted. Chains that do leave p_T exactly invariant at any step length; what they leave open is whether they
have mixed.

    transition           one Metropolis move, its step length tuned on a pilot and then frozen
    chains               draws of p_T with acceptance, energies, chains that are not finite
    convergence          split R-hat and effective sample sizes
    annealing            chains led through falling temperatures, every move exact at its own
    posterior            posteriors of an energy under y = A(x) + noise, for the same chains

log Z is found by annealing from a law whose normaliser is known and back; the two sets of work values have
p_F(w) / p_R(-w) = exp(w - log Z_1 / Z_0), so that they can be told apart only as far as log Z is known.

    annealed_importance  forward and reverse chains along a schedule that a pilot has frozen
    bridge_sampling      Bennett's acceptance ratio, its interval, overlap and verdict
    normalising_constant log Z, evidence, log densities and bits per dimension of energies

What a model finds unusual is a matter of scores that are compared with held-out data; complexity without a model
stands beside each of them.

    outliers             scores, conformal p-values, complexity baselines
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
