"""Training: the loop, the modules it trains, and its checkpoints.

An optimiser step draws t and z for each example x_0 of the batch, perturbs it to x_t = alpha(t) x_0 + sigma(t) z, takes
the mean over the batch of the objective's loss, clips the gradient and updates the parameters theta by Adam; then each
exponential moving average follows, theta_ema <- theta_ema + (1 - d) (theta - theta_ema). Step k is a function of the
state after step k - 1 and of (seed, k, process), so that a run killed at any instant resumes bit for bit. A run trains
one module, the score network, or two with a discriminator; a guidance model is trained by the same loop.

fit            `sf.fit`: a model of data in one call
trainer        the training loop, resumable bit for bit
trainable      the modules trained in a run: a score network, and optionally a discriminator
optimiser_step one optimiser step of one trained module
ema            exponential moving averages of weights
checkpoints    checkpoints of a run
loss_sums      losses by noise level since the last row of metrics
distributed    the few collective operations that training and sampling need
interruption   signals that stop a run
observer       progress of long work
guidance       training a guidance model
"""

from __future__ import annotations

from scorefield.training import (
    checkpoints,
    distributed,
    ema,
    fit,
    guidance,
    interruption,
    loss_sums,
    observer,
    optimiser_step,
    trainable,
    trainer,
)
from scorefield.training.trainer import train

__all__ = [
    "checkpoints",
    "distributed",
    "ema",
    "fit",
    "guidance",
    "interruption",
    "loss_sums",
    "observer",
    "optimiser_step",
    "train",
    "trainable",
    "trainer",
]
