"""Operators A of a measurement y = A(x) + noise.

operator     anything linear with its adjoint, any function, one after another
pixels       masks, matrices, mixtures of channels, block means, sums
fourier      convolutions, measured frequencies
projections  sums of images along parallel rays
spectrum     singular values of A, by its structure where it has one
by_name      operators by name; from_files, with the files they name
"""

from __future__ import annotations

from scorefield.inverse.operators import (
    by_name,
    fourier,
    from_files,
    operator,
    pixels,
    projections,
    spectrum,
)
from scorefield.inverse.operators.by_name import OPERATORS, operator_named
from scorefield.inverse.operators.fourier import Convolution, FourierMask
from scorefield.inverse.operators.operator import Function, Linear, LinearOperator, Operator
from scorefield.inverse.operators.pixels import DECOUPLING, Channels, Downsample, Mask, Matrix, Sums
from scorefield.inverse.operators.projections import Projections
from scorefield.inverse.operators.spectrum import Spectrum

__all__ = [
    "Channels",
    "Convolution",
    "DECOUPLING",
    "Downsample",
    "FourierMask",
    "Function",
    "Linear",
    "LinearOperator",
    "Mask",
    "Matrix",
    "OPERATORS",
    "Operator",
    "Projections",
    "Spectrum",
    "Sums",
    "by_name",
    "fourier",
    "from_files",
    "operator",
    "operator_named",
    "pixels",
    "projections",
    "spectrum",
]
