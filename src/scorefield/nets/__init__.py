"""Networks as plain `torch.nn.Module`s, and the configurations that build them.

A score network is a function F(x, c, condition) with the shape of x. Its inputs are noisy examples, already scaled, and
one number c per example that states the noise level: c = ln sigma for Fourier features, the index of a level or 999 t
for positional features. The network does not depend on the process. The parametrisation around it (`scorefield.score`)
scales the input, computes c, and reads the output F as a score, as the noise or as the clean example:

    score(x, t) = skip x + out F(c_in x, c(t), condition).

An energy network returns one number E per example in place of F, and the score is -grad E / T.

A configuration is a frozen record that is saved with an experiment. `build(data)` makes the network, with freshly drawn
weights, for the event shape and the conditions of a `DataSpec`:

    net = NCSNpp(channels=64, blocks=2).build(DataSpec((3, 32, 32), 0, 255, 256))

    module        contents
    network       the interfaces Network, EnergyNetwork and NetworkConfig
    module        Module: a torch.nn.Module from outside this package as the network of an experiment
    mlp           MLP, a residual multilayer perceptron for events of any shape, flattened; ToyMLP of Song and
                  Ermon 2019
    unets         NCSNpp (NCSN++ and DDPM++, Song et al. 2021), DDPM (Ho et al. 2020), ACSMUNet
                  (Jolicoeur-Martineau et al. 2021)
    refinenets    NCSN (Song and Ermon 2019), conditioned on the noise level, and NCSNv2 (2020), which is not
    resscore      ResScore, the residual autoencoder of figure 1 of Song and Ermon 2019
    energies      EnergyResNet (Li et al. 2019) for images and signals, EnergyMLP for vectors
    critics       discriminators D(x) for adversarial score matching: BigGANCritic, DCGANCritic, MLPCritic
    guidance      networks of guidance models p_t(y | x_t): WideResNet (Song et al. 2021), GuideMLP,
                  GuideConvolutions
    layers        convolutions, normalisation, attention and embeddings shared by the networks
    conditioning  embeddings of class, vector and image conditions

Critics and guidance networks are not score networks and have interfaces of their own: a critic takes x alone, and a
guidance network takes x_t / alpha and c = ln(sigma / alpha) and returns the parameters of a distribution of y.

Weights are drawn and dropout is sampled from torch's global random generator, which the trainer seeds. Parameters of
published architectures keep the names, shapes and order of the releases, so that checkpoints can be imported.
"""

from __future__ import annotations

from scorefield.nets import (
    conditioning,
    critics,
    energies,
    guidance,
    layers,
    mlp,
    module,
    network,
    refinenets,
    resscore,
    unets,
)
from scorefield.nets.critics import BigGANCritic, Critic, CriticConfig, DCGANCritic, MLPCritic
from scorefield.nets.energies import EnergyMLP, EnergyResNet
from scorefield.nets.guidance import (
    CIFAR10_DEVIATION,
    CIFAR10_MEAN,
    GuideConfig,
    GuideConvolutions,
    GuideMLP,
    GuideNetwork,
    WideResNet,
)
from scorefield.nets.mlp import MLP, ToyMLP
from scorefield.nets.module import Module, PlainNetwork
from scorefield.nets.network import EnergyNetwork, Network, NetworkConfig
from scorefield.nets.refinenets import NCSN, NCSNv2
from scorefield.nets.resscore import ResScore
from scorefield.nets.unets import DDPM, ACSMUNet, NCSNpp, UNet, load_published, published_order

__all__ = [
    "ACSMUNet",
    "BigGANCritic",
    "CIFAR10_DEVIATION",
    "CIFAR10_MEAN",
    "Critic",
    "CriticConfig",
    "DCGANCritic",
    "DDPM",
    "EnergyMLP",
    "EnergyNetwork",
    "EnergyResNet",
    "GuideConfig",
    "GuideConvolutions",
    "GuideMLP",
    "GuideNetwork",
    "MLP",
    "MLPCritic",
    "Module",
    "NCSN",
    "NCSNpp",
    "NCSNv2",
    "Network",
    "NetworkConfig",
    "PlainNetwork",
    "ResScore",
    "ToyMLP",
    "UNet",
    "WideResNet",
    "conditioning",
    "critics",
    "energies",
    "guidance",
    "layers",
    "load_published",
    "mlp",
    "module",
    "network",
    "published_order",
    "refinenets",
    "resscore",
    "unets",
]
