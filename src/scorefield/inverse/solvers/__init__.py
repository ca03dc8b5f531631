"""Posterior solvers: samples of x given y = A(x) + noise from a score."""

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
