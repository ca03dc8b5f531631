"""Networks of guidance models p_t(y | x_t): from a noisy example to the parameters of a distribution of y.

A guidance network takes the noisy example in the scale of the data, x_t / alpha = x_0 + (sigma / alpha) z, and is
conditioned on the number c = ln(sigma / alpha). That number is defined under every process with alpha and sigma (it is
ln sigma under VE) and describes the noise in x_t / alpha completely. Dividing the input by sqrt(1 + e^(2 c)) keeps it
of order one. The meaning of the outputs, logits of classes or means and standard deviations of numbers, is defined by
the guidance model around the network (`scorefield.score.guidance_model`).

    module              contents
    guide_network       the interfaces GuideNetwork and GuideConfig
    guide_mlp           GuideMLP: a multilayer perceptron for events of any shape, flattened
    guide_convolutions  GuideConvolutions: a small convolutional network for signals and images
    wide_resnet         WideResNet: the noise-conditional classifier of Song et al. 2021, appendix I
"""

from scorefield.nets.guidance import guide_convolutions, guide_mlp, guide_network, wide_resnet
from scorefield.nets.guidance.guide_convolutions import GuideConvolutions
from scorefield.nets.guidance.guide_mlp import GuideMLP
from scorefield.nets.guidance.guide_network import GuideConfig, GuideNetwork
from scorefield.nets.guidance.wide_resnet import CIFAR10_DEVIATION, CIFAR10_MEAN, WideResNet

__all__ = [
    "CIFAR10_DEVIATION",
    "CIFAR10_MEAN",
    "GuideConfig",
    "GuideConvolutions",
    "GuideMLP",
    "GuideNetwork",
    "WideResNet",
    "guide_convolutions",
    "guide_mlp",
    "guide_network",
    "wide_resnet",
]
