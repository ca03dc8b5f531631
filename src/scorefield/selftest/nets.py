"""Checks of networks: published numbers of parameters, determinism, independence of the batch, and gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield.data_spec import DataSpec
from scorefield.nets import DDPM, MLP, NCSN, ACSMUNet, EnergyMLP, EnergyResNet, NCSNpp, NCSNv2, NetworkConfig
from scorefield.selftest.check import Bench, CheckGroup, Measurement, largest, relative

GROUP = CheckGroup("nets", "published sizes, determinism, independence of the batch, gradients")

PUBLISHED: dict[str, tuple[NetworkConfig, int]] = {
    "NCSN": (NCSN(), 30_117_635),
    "NCSNv2": (NCSNv2(), 29_694_083),
    "ACSM": (ACSMUNet(), 33_185_411),
    "MDSM": (EnergyResNet(), 62_339_075),
    "DDPM": (DDPM(), 35_218_947),
    "NCSN++": (NCSNpp(), 62_758_915),
    "NCSN++ deep": (NCSNpp(blocks=8), 107_587_075),
    "DDPM++": (NCSNpp(embedding="positional", fir=False, progressive_input="none", centered=True), 61_804_419),
}
"""Networks for CIFAR-10 with their published numbers of parameters."""

IMAGES = DataSpec((2, 8, 12), 0.0, 1.0, 256)
SMALL: dict[str, NetworkConfig] = {
    "MLP": MLP(width=32, depth=2),
    "U-Net": NCSNpp(
        channels=16, channel_multipliers=(1, 2), blocks=1, attention_sizes=(6,), dropout=0.0, fourier_scale=1.0
    ),
    "energy": EnergyMLP(width=32, depth=2),
}


def build(bench: Bench, config: NetworkConfig) -> nn.Module:
    """Build a network on the bench with reproducible random weights.

    Newly initialised networks end in zeros, so that their outputs would be zero.
    """
    with torch.random.fork_rng(devices=[]):
        network = config.build(IMAGES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 10
            p.copy_(torch.randn(p.shape, generator=generator) / fan_in**0.5)
    return network.eval().requires_grad_(False).to(bench.device, bench.dtype)


def inputs(bench: Bench, batch: int = 5) -> tuple[Tensor, Tensor]:
    """Return inputs of a network: x, (B, *shape), and the noise-level input c, (B,)."""
    return bench.normal(batch, *IMAGES.shape, seed=1), bench.to(torch.linspace(-2.0, 1.0, batch))


@GROUP.check(
    "parameters",
    claim="networks have the published numbers of parameters",
    by="eight networks for CIFAR-10 on the meta device against the published code",
    allowed=0.0,
    why="counts are exact",
    unit="count",
)
def _parameters(bench: Bench) -> Measurement:
    data, errors = DataSpec((3, 32, 32), 0.0, 1.0, 256), {}
    for name, (config, published) in PUBLISHED.items():
        with torch.device("meta"):
            network = config.build(data)
        errors[name] = float(abs(sum(p.numel() for p in network.parameters()) - published))
    return largest(errors)


@GROUP.check(
    "determinism",
    claim="a network returns the same bits for the same input",
    by="number of outputs that differ between two forward passes",
    allowed=0.0,
    unit="count",
    why="an evaluation draws no random numbers and computes the same sums in the same order",
    single=0.0,
)
def _determinism(bench: Bench) -> Measurement:
    errors = {}
    for name, config in SMALL.items():
        network, (x, c) = build(bench, config), inputs(bench)
        errors[name] = float((network(x, c) != network(x, c)).sum())
    return largest(errors)


@GROUP.check(
    "independence of the batch",
    claim="an output does not depend on the other examples of the batch or on their order",
    by="each example alone, and all in reverse order, against the batch",
    allowed=1e-12,
    why="matrix products of another size sum in another order, over some tens of layers",
    single=1e-4,
)
def _batch_independence(bench: Bench) -> Measurement:
    errors = {}
    for name, config in SMALL.items():
        network, (x, c) = build(bench, config), inputs(bench)
        batch = network(x, c)
        alone = torch.cat([network(x[i : i + 1], c[i : i + 1]) for i in range(len(x))])
        errors[name] = max(relative(alone, batch), relative(network(x.flip(0), c.flip(0)).flip(0), batch))
    return largest(errors)


@GROUP.check(
    "gradients",
    claim="automatic differentiation through whole networks gives the derivatives of their outputs",
    by="v' grad of a random projection of the output against central differences with step 1e-5",
    allowed=1e-6,
    why="truncation and cancellation of the differences, 1e-10 each, times slopes that differ a hundredfold",
)
def _gradients(bench: Bench) -> Measurement:
    errors = {}
    for name, config in SMALL.items():
        network, (x, c) = build(bench, config), inputs(bench)
        v, h = bench.normal(*x.shape, seed=2), 1e-5
        w = torch.cos(torch.arange(network(x, c).numel(), device=x.device)).to(x).reshape(network(x, c).shape)
        x.requires_grad_(True)
        (slope,) = torch.autograd.grad((w * network(x, c)).sum(), x)
        with torch.no_grad():
            difference = (w * (network(x + h * v, c) - network(x - h * v, c))).sum() / (2.0 * h)
        errors[name] = relative((slope * v).sum(), difference)
    return largest(errors)


@GROUP.check(
    "float32",
    claim="outputs in float32 on this device equal those in float64 on the CPU",
    by="the same weights and inputs, relative to the largest output",
    allowed=1e-4,
    why="rounding of 6e-8 grows by a factor of a hundred in some tens of layers, without TF32",
    single=1e-4,
)
def _float32(bench: Bench) -> Measurement:
    errors, single, double = {}, Bench(bench.device, torch.float32), Bench(torch.device("cpu"))
    # By default cuDNN's convolutions round float32 to the ten bits of TF32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for name, config in SMALL.items():
            errors[name] = relative(build(single, config)(*inputs(single)), build(double, config)(*inputs(double)))
    return largest(errors)
