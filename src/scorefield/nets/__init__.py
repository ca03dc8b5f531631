"""Networks: plain modules net(x, c, condition) -> shape of x, and their configurations.

A network sees a noisy example x_t, already scaled, and one number c per example that says how noisy: c = ln sigma for
Fourier features, a level or 999 t for positional ones. It knows no process. Whether its output F is read as a score,
as noise or as a clean example, and every division by sigma, belong to the parametrisation around it:

    score(x, t) = form(F(c_in(t) x, c(t), condition), x, t).

A configuration is a frozen record; `build(data)` makes the network for the event shape and the conditions of a
DataSpec:

    net = NCSNpp(channels=64, blocks=2).build(DataSpec((3, 32, 32), 0, 255, 256))

* `NCSNpp`        the U-Net of Song et al. 2021 with every choice of that paper; NCSN++ and DDPM++ are two sets of its
                  fields.
* `DDPM`          the U-Net of Ho et al. 2020.
* `NCSN`          the RefineNet of Song and Ermon 2019, which has one set of normalisations per noise level; its deeper
                  variant, and the baseline of a single level.
* `NCSNv2`        the RefineNet of Song and Ermon 2020, without noise conditioning, in three depths.
* `ACSMUNet`      the U-Net of Jolicoeur-Martineau et al. 2021, without noise conditioning.
* `EnergyResNet`  the energies of Li et al. 2019, 6 to 34 layers: one number per example, lower = more likely.
* `EnergyMLP`     the same of vectors, and of any small event, flattened.
* `ResScore`, `ToyMLP`  the small networks of two figures of Song and Ermon 2019.
* `MLP`           a residual perceptron for vectors, or for any small event, flattened.

Two kinds of modules are no score networks: critics D(x), which tell clean from denoised examples in adversarial score
matching (`BigGANCritic`, `DCGANCritic`), and the networks of guidance models p_t(y | x) of noisy examples, whose
gradient leads a score to a class or to a number (`WideResNet`, the published classifier of Song et al. 2021, appendix
I; `GuideMLP` and `GuideConvolutions`, small ones). The guidance network takes x_t / alpha and is conditioned on c =
ln(sigma / alpha).

The U-Nets take signals (C, L) and images (C, H, W) with any number of channels and any size, square or not. With n
levels each spatial size must be a multiple of 2^(n - 1), `net.multiple`; the parametrisation pads and crops. A level
has attention when its largest spatial size, counted on the padded data, is among `attention_sizes`; the positions are
flattened, one head.

Let h be the features and e = W_2 act(W_1 f(c)) the embedding, f(c) = [sin 2 pi c w, cos 2 pi c w] or sinusoids. A
block is

    h <- (shortcut(h) + conv(dropout(act(norm(conv(act(norm(h))) + W act(e)))))) / sqrt(2),

and the U-Net runs blocks down to half sizes, keeps every h, and runs blocks up on [h, kept h]. Resampling goes
through a low-pass filter (`resampling`), classes and vectors add to e, images to the input channels (`conditioning`).

A RefineNet (`refine`) is an encoder of residual blocks, which soon dilates in place of halving, and a chain of blocks
that join its features from coarse to fine. InstanceNorm++ (`instance_norm`) normalises every channel of an example and
adds the channels' means, which that takes away, back again, normalised among themselves.

Parameters are registered in the order of the published networks: `load_published` fills an NCSNpp or DDPM from a
release's list of tensors. The other published networks have the names and shapes of their releases' state
dictionaries. Initial weights and dropout draw from torch's global generator; whoever trains seeds it.
"""

from __future__ import annotations

from scorefield.nets import (
    blocks,
    classifier,
    conditioning,
    critic,
    critic_mlp,
    ddpm,
    energy,
    energy_mlp,
    guidance,
    instance_norm,
    layers,
    mlp,
    module,
    ncsn,
    ncsnpp,
    ncsnv2,
    network,
    published,
    refine,
    resampling,
    resscore,
    unet,
)
from scorefield.nets.guide_nets.wide_resnet import CIFAR10_DEVIATION, CIFAR10_MEAN, WideResNet
from scorefield.nets.critic import BigGANCritic, Critic, CriticConfig, DCGANCritic
from scorefield.nets.critics.mlp_critic import MLPCritic
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.energies.energy_resnet import EnergyResNet
from scorefield.nets.energies.energy_mlp import EnergyMLP
from scorefield.nets.guidance import GuideConfig, GuideConvolutions, GuideMLP, GuideNetwork
from scorefield.nets.mlp import MLP, ToyMLP
from scorefield.nets.module import Module, PlainNetwork
from scorefield.nets.refinenets.ncsn import NCSN
from scorefield.nets.unets.ncsnpp import NCSNpp, UNet
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.nets.network import EnergyNetwork, Network, NetworkConfig
from scorefield.nets.unets.release_order import load_published, published_order
from scorefield.nets.resscore import ResScore
from scorefield.nets.unets.acsm_unet import ACSMUNet

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
    "blocks",
    "classifier",
    "conditioning",
    "critic",
    "critic_mlp",
    "ddpm",
    "energy",
    "energy_mlp",
    "guidance",
    "instance_norm",
    "layers",
    "load_published",
    "mlp",
    "module",
    "ncsn",
    "ncsnpp",
    "ncsnv2",
    "network",
    "published",
    "published_order",
    "refine",
    "resampling",
    "resscore",
    "unet",
]
