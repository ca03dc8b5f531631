"""Examples from measurements: y = A(x) + noise, x with the law of a score.

operators    A: masks, matrices, convolutions, sums, anything linear with its adjoint, any function
spectrum     singular values of A, by its structure where it has one
noise        laws of y given A(x)
observation  all three, in the units of the measurement
"""

from __future__ import annotations

from scorefield.inference.inverse.noise import GaussianNoise, MeasurementNoise
from scorefield.inference.inverse.observation import Observation
from scorefield.inference.inverse.operators import Function, Linear, LinearOperator, Operator
from scorefield.inference.inverse.solver import PosteriorRun, Solver
from scorefield.inference.inverse.spectrum import Spectrum

__all__ = [
    "Function",
    "GaussianNoise",
    "Linear",
    "LinearOperator",
    "MeasurementNoise",
    "Observation",
    "Operator",
    "PosteriorRun",
    "Solver",
    "Spectrum",
]
