"""Inverse problems: samples of p(x | y) for a measurement y = A(x) + noise, where the prior of x is given by a score.

At every noise level Bayes' rule gives the posterior score,

    grad log p_t(x | y) = grad log p_t(x) + grad log p_t(y | x),    p_t(y | x_t) = E[p(y | x_0) | x_t].

The first term is the score of the prior. The second has no closed form except for Gaussian data, and the solvers
differ in how they approximate it, or avoid it. `Observation` holds the operator A, the measured y and the noise, in
data units; `posterior` draws samples and returns them with mean, standard deviation, residual test, cost and failures.

    operators    A: masks, matrices, convolutions, Fourier samples, projections, any function; each by name
    solvers      the posterior solvers, and the table of what each needs
    noise        the distributions of y given A(x)
    observation  A, y and the noise in the units of the measurement
    posterior    posterior samples and their summary
    residual     a test of whether samples explain y as well as the noise allows
    calibration  statistics of posterior samples over many problems whose true examples are known
"""

from __future__ import annotations

from scorefield.inverse import calibration, operators, solvers
from scorefield.inverse.noise import GaussianNoise, LaplaceNoise, MeasurementNoise, PoissonNoise, StudentNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.operators.by_name import OPERATORS, operator_named
from scorefield.inverse.operators.fourier import Convolution, FourierMask
from scorefield.inverse.operators.operator import Function, Linear, LinearOperator, Operator
from scorefield.inverse.operators.pixels import DECOUPLING, Channels, Downsample, Mask, Matrix, Sums
from scorefield.inverse.operators.projections import Projections
from scorefield.inverse.operators.spectrum import Spectrum
from scorefield.inverse.posterior import Posterior, posterior
from scorefield.inverse.residual import ResidualTest, residual_test
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
    "DDRM",
    "DECOUPLING",
    "OPERATORS",
    "DPS",
    "Channels",
    "Convolution",
    "DiffPIR",
    "Downsample",
    "FourierMask",
    "Choice",
    "FilterRun",
    "Function",
    "GaussianNoise",
    "LaplaceNoise",
    "Linear",
    "LinearOperator",
    "Mask",
    "Matrix",
    "MeasurementNoise",
    "MomentMatched",
    "Observation",
    "Operator",
    "PiGDM",
    "PoissonNoise",
    "Posterior",
    "PosteriorLangevin",
    "PosteriorRun",
    "Projections",
    "RePaint",
    "Replacement",
    "ResidualTest",
    "Solver",
    "Spectrum",
    "StudentNoise",
    "Sums",
    "TwistedParticles",
    "all_solvers",
    "calibration",
    "choose",
    "operator_named",
    "operators",
    "posterior",
    "residual_test",
    "solver_named",
    "solvers",
]
