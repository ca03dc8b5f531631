"""Critics (discriminators) of adversarial score matching (Jolicoeur-Martineau et al. 2021).

A critic D(x) tells clean examples from denoised ones: it maps a batch to one number per example, larger for clean data.
Its input is x alone, without a noise level or a condition. No published checkpoint contains the weights of a critic, so
its training always starts from random weights.

    module      contents
    critic      the interfaces Critic and CriticConfig
    biggan      BigGANCritic: the discriminator of BigGAN without classes, with spectral normalisation
    dcgan       DCGANCritic: two smaller convolutional discriminators
    mlp_critic  MLPCritic: a multilayer perceptron for examples of any shape
"""

from scorefield.nets.critics import biggan, critic, dcgan, mlp_critic
from scorefield.nets.critics.biggan import BigGANCritic
from scorefield.nets.critics.critic import Critic, CriticConfig
from scorefield.nets.critics.dcgan import DCGANCritic
from scorefield.nets.critics.mlp_critic import MLPCritic

__all__ = [
    "BigGANCritic",
    "Critic",
    "CriticConfig",
    "DCGANCritic",
    "MLPCritic",
    "biggan",
    "critic",
    "dcgan",
    "mlp_critic",
]
