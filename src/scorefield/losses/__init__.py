"""What training minimises; every objective returns one value per example.

The score of p_t is the minimiser of E |s(x_t, t) - grad log p(x_t | x_0)|^2, and for a Gaussian kernel that target is
-z / sigma_t: denoising score matching. The minimum is not zero. At the exact score what is left is the uncertainty
about the noise, E |z - E[z | x_t]|^2: one per dimension where the noise is small (no network can see it), none where it
is all there is. A loss is therefore read beside its noise level.

Weighted by sigma^2 the loss is |sigma s + z|^2, a regression on the noise, one per dimension for a network that
returns zero. The weight g^2 makes it half a bound on the negative log-likelihood, at more variance.

Without a kernel the score still is the minimiser of E [tr(ds/dx) + |s|^2 / 2], which integration by parts makes of the
same distance, and which needs samples of p_t alone: a process that can only be simulated is trained so. Denoising and
this differ by a number that does not depend on s.

    denoising    continuous times or a ladder's levels; weightings sigma^2, likelihood and custom; with an energy
                 the multi-scale loss of MDSM
    sliced       implicit (exact trace), sliced and finite-difference score matching, at the same levels and weights
    guidance     -log p_t(y | x_t), for guides: no score is trained, but what leads one to a class or to numbers
    adversarial  a critic beside it judges denoised examples; the published losses of both players
"""

from __future__ import annotations

from scorefield.losses import adversarial, denoising, guidance, sliced
from scorefield.losses.adversarial import (
    GAN,
    LSGAN,
    WGAN,
    AdversarialLoss,
    AdversarialScoreMatching,
    CriticObjective,
    HingeGAN,
    RaGAN,
    RaHingeGAN,
    RaLSGAN,
    RpGAN,
    RpLSGAN,
    SaturatingLSGAN,
)
from scorefield.losses.denoising import (
    AtLevels,
    Custom,
    DenoisingScoreMatching,
    Draw,
    Likelihood,
    NoiseVariance,
    Objective,
    Weighting,
)
from scorefield.losses.guidance import ConditionLikelihood
from scorefield.losses.sliced import FiniteDifferenceScoreMatching, ImplicitScoreMatching, SlicedScoreMatching

__all__ = [
    "AdversarialLoss",
    "AdversarialScoreMatching",
    "AtLevels",
    "ConditionLikelihood",
    "CriticObjective",
    "Custom",
    "DenoisingScoreMatching",
    "Draw",
    "FiniteDifferenceScoreMatching",
    "GAN",
    "HingeGAN",
    "ImplicitScoreMatching",
    "LSGAN",
    "Likelihood",
    "NoiseVariance",
    "Objective",
    "RaGAN",
    "RaHingeGAN",
    "RaLSGAN",
    "RpGAN",
    "RpLSGAN",
    "SaturatingLSGAN",
    "SlicedScoreMatching",
    "WGAN",
    "Weighting",
    "adversarial",
    "denoising",
    "guidance",
    "sliced",
]
