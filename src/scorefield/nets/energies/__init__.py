"""Energy networks E(x): one number per example, lower energy = more likely, p(x) proportional to exp(-E(x) / T).

module         contents
energy_resnet  EnergyResNet: the residual networks of Li et al. 2019 for images and signals
energy_mlp     EnergyMLP: a multilayer perceptron with a quadratic head, for vectors and other small events
"""

from scorefield.nets.energies import energy_mlp, energy_resnet
from scorefield.nets.energies.energy_mlp import EnergyMLP
from scorefield.nets.energies.energy_resnet import EnergyResNet

__all__ = ["EnergyMLP", "EnergyResNet", "energy_mlp", "energy_resnet"]
