"""Training: the loop, what it trains, and what it keeps.

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
