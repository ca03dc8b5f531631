"""Examples from measurements: y = A(x) + noise, x with the law of a score.

operators    A: anything linear with its adjoint, any function, one after another
pixels       masks, matrices, mixtures of channels, block means, sums
fourier      convolutions, measured frequencies
projections  sums of images along parallel rays
spectrum     singular values of A, by its structure where it has one
noise        laws of y given A(x)
observation  all three, in the units of the measurement
solver       what a posterior sampler is, and what it asks of score, sampler and observation
table        every solver with what it needs; the choice of one; refusals that name what works
posterior    samples of x given y with mean, deviation, residual test, cost and failures
residual     whether samples explain y as well as its noise says they should
"""

from __future__ import annotations

from scorefield.inference.inverse.fourier import Convolution, FourierMask
from scorefield.inference.inverse.noise import (
    GaussianNoise,
    LaplaceNoise,
    MeasurementNoise,
    PoissonNoise,
    StudentNoise,
)
from scorefield.inference.inverse.observation import Observation
from scorefield.inference.inverse.operators import Function, Linear, LinearOperator, Operator
from scorefield.inference.inverse.pixels import DECOUPLING, Channels, Downsample, Mask, Matrix, Sums
from scorefield.inference.inverse.posterior import Posterior, posterior
from scorefield.inference.inverse.projections import Projections
from scorefield.inference.inverse.residual import ResidualTest, residual_test
from scorefield.inference.inverse.solver import PosteriorRun, Solver
from scorefield.inference.inverse.spectrum import Spectrum
from scorefield.inference.inverse.table import Choice, choose, solver_named, solvers

__all__ = [
    "DECOUPLING",
    "Channels",
    "Convolution",
    "Downsample",
    "FourierMask",
    "Choice",
    "Function",
    "GaussianNoise",
    "LaplaceNoise",
    "Linear",
    "LinearOperator",
    "Mask",
    "Matrix",
    "MeasurementNoise",
    "Observation",
    "Operator",
    "PoissonNoise",
    "Posterior",
    "PosteriorRun",
    "Projections",
    "ResidualTest",
    "Solver",
    "Spectrum",
    "StudentNoise",
    "Sums",
    "choose",
    "posterior",
    "residual_test",
    "solver_named",
    "solvers",
]
