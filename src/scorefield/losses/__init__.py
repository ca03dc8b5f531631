"""What training minimises; every objective returns one value per example.

The score of p_t is the minimiser of E |s(x_t, t) - grad log p(x_t | x_0)|^2, and for a Gaussian kernel that target is
-z / sigma_t: denoising score matching. Weighted by sigma^2 it is |sigma s + z|^2, a regression on the noise.

    denoising   continuous times or a ladder's levels; weightings sigma^2, likelihood and custom
"""

from scorefield.losses import denoising
from scorefield.losses.denoising import (
    Custom,
    DenoisingScoreMatching,
    Draw,
    Likelihood,
    NoiseVariance,
    Objective,
    Weighting,
)

__all__ = [
    "Custom",
    "DenoisingScoreMatching",
    "Draw",
    "Likelihood",
    "NoiseVariance",
    "Objective",
    "Weighting",
    "denoising",
]
