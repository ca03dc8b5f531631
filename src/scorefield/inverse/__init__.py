"""Examples from measurements: y = A(x) + noise, x with the distribution of a score.

operators    A: anything linear with its adjoint, any function, one after another
pixels       masks, matrices, mixtures of channels, block means, sums
fourier      convolutions, measured frequencies
projections  sums of images along parallel rays
spectrum     singular values of A, by its structure where it has one
noise        distributions of y given A(x)
observation  all three, in the units of the measurement
named        operators by name
solver       what a posterior sampler is, and what it asks of score, sampler and observation
replacement  what is known put in at the noise of every step; repaint, with steps back in between
spectral     DDRM: each singular direction by its own rule
proximal     DiffPIR: denoise, fit y, noise
table        every solver with what it needs; the choice of one; refusals that name what works
posterior    samples of x given y with mean, deviation, residual test, cost and failures
residual     whether samples explain y as well as its noise says they should

and the solvers. Guided ones follow a tilted score, that of p_t(x) p~(y | x), with any sampler:

tilted          the tilted score, by one evaluation and one vector-Jacobian product
reconstruction  DPS: p~ = p(y | D), y compared with A of the posterior mean
pseudo_inverse  PiGDM and moment matching: normal p~ with the uncertainty of x_0 at each level
langevin        annealed Langevin dynamics on p_t(x) p(y | x), without a Jacobian of the network
twisted         a particle filter with guided proposals and weights that make it exact
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
