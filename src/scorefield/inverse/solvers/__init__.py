"""Posterior solvers: samples of x given y = A(x) + noise from a score.

Guided solvers add an approximation of grad log p_t(y | x) to the score, and work with any sampler. The others are
steps of their own.

    solver                interface: a solver prepares a score and a sampler for one observation
    table                 the solvers by name, what each needs, the choice of one, and refusals that name what works
    tilted_score          the score of p_t(x) p~(y | x), by one network evaluation and one vector-Jacobian product
    reconstruction        DPS (Chung et al. 2023): p~ = p(y | x_0 = D), with the posterior mean D
    pseudo_inverse        PiGDM (Song et al. 2023) and moment matching: normal p~ with an estimated covariance of x_0
    langevin              annealed Langevin dynamics on p_t(x) p(y | x), without a Jacobian of the network
    twisted_particles     a particle filter with guided proposals, whose weights make it asymptotically exact
    replacement           the observed coordinates are replaced, with the noise of the level, in every step
    repaint               RePaint (Lugmayr et al. 2022): replacement with steps back to more noise in between
    spectral              DDRM (Kawar et al. 2022): one rule for each singular direction of A
    proximal              DiffPIR (Zhu et al. 2023): denoise, fit y, add noise
    diagonal_measurement  the observation in the basis in which a linear A is diagonal
"""

from __future__ import annotations

from scorefield.inverse.solvers import (
    diagonal_measurement,
    langevin,
    proximal,
    pseudo_inverse,
    reconstruction,
    repaint,
    replacement,
    solver,
    spectral,
    table,
    tilted_score,
    twisted_particles,
)
from scorefield.inverse.solvers.langevin import PosteriorLangevin
from scorefield.inverse.solvers.proximal import DiffPIR
from scorefield.inverse.solvers.pseudo_inverse import MomentMatched, PiGDM
from scorefield.inverse.solvers.reconstruction import DPS
from scorefield.inverse.solvers.repaint import RePaint
from scorefield.inverse.solvers.replacement import Replacement
from scorefield.inverse.solvers.solver import PosteriorRun, Solver
from scorefield.inverse.solvers.spectral import DDRM
from scorefield.inverse.solvers.table import Choice, all_solvers, choose, solver_named
from scorefield.inverse.solvers.twisted_particles import FilterRun, TwistedParticles

__all__ = [
    "Choice",
    "DDRM",
    "DPS",
    "DiffPIR",
    "FilterRun",
    "MomentMatched",
    "PiGDM",
    "PosteriorLangevin",
    "PosteriorRun",
    "RePaint",
    "Replacement",
    "Solver",
    "TwistedParticles",
    "choose",
    "diagonal_measurement",
    "langevin",
    "proximal",
    "pseudo_inverse",
    "reconstruction",
    "repaint",
    "replacement",
    "solver",
    "solver_named",
    "all_solvers",
    "spectral",
    "table",
    "tilted_score",
    "twisted_particles",
]
