"""Training objectives. Every objective returns one value per example, so the caller can average or mask.

Denoising score matching. With x_t = alpha_t x_0 + sigma_t z, the score of p_t minimises
E |s(x_t, t) - grad log p(x_t | x_0)|^2, and for a Gaussian transition kernel the regression target is -z / sigma_t.

Weightings. With lambda = sigma_t^2 the loss is |sigma_t s + z|^2, a regression on the noise, whose expectation is one
per dimension for a network that returns zero. Its minimum is not zero: at the exact score the expected loss is
E |z - E[z | x_t]|^2, the remaining uncertainty about the noise. Per dimension this is one where the noise is small (no
network can tell it from the data) and zero where x_t is pure noise. A loss value is therefore read together with its
noise level. With lambda = g^2 half the loss bounds the negative log-likelihood up to a constant, at the price of a
larger variance.

Sliced score matching. Integration by parts turns the same distance into E [tr(ds/dx) + |s|^2 / 2] plus a constant that
does not depend on s. This form needs samples of p_t but no transition kernel, so it also trains the score of a process
that can only be simulated.

    module       contents
    denoising    denoising score matching at continuous times or at the levels of a ladder, with the weightings sigma^2,
                 likelihood and custom; with an energy it is the multi-scale objective of MDSM
    sliced       implicit (exact trace), sliced and finite-difference score matching, with the same times and weightings
    guidance     -log p_t(y | x_t), which trains a guidance network for classes or numbers
    adversarial  adversarial score matching: a discriminator of denoised examples, and the published losses of the
                 discriminator and of the score network
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
