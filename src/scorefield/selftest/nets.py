"""Checks of networks: published sizes, and that an answer depends on the question alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield.data_spec import DataSpec
from scorefield.nets import DDPM, MLP, NCSN, ACSMUNet, EnergyMLP, EnergyResNet, NCSNpp, NCSNv2, NetworkConfig
from scorefield.selftest.check import Bench, Found, Room, largest, relative

ROOM = Room("nets", "published sizes, gradients, and answers that depend on the question alone")

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
"""Networks for CIFAR-10 and their numbers of parameters."""

IMAGES = DataSpec((2, 8, 12), 0.0, 1.0, 256)
SMALL: dict[str, NetworkConfig] = {
    "MLP": MLP(width=32, depth=2),
    "U-Net": NCSNpp(
        channels=16, channel_multipliers=(1, 2), blocks=1, attention_sizes=(6,), dropout=0.0, fourier_scale=1.0
    ),
    "energy": EnergyMLP(width=32, depth=2),
}


def built(bench: Bench, config: NetworkConfig) -> nn.Module:
    """A small network with weights that depend on their place alone, on the bench; fresh ones end in zeros."""
    with torch.random.fork_rng(devices=[]):
        network = config.build(IMAGES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 10
            p.copy_(torch.randn(p.shape, generator=generator) / fan_in**0.5)
    return network.eval().requires_grad_(False).to(bench.device, bench.dtype)


def questions(bench: Bench, batch: int = 5) -> tuple[Tensor, Tensor]:
    """x and c."""
    return bench.normal(batch, *IMAGES.shape, seed=1), bench.to(torch.linspace(-2.0, 1.0, batch))


@ROOM.check(
    "parameters",
    claim="networks have the published numbers of parameters",
    by="eight networks for CIFAR-10 on the meta device against the releases' own",
    allowed=0.0,
    why="it is a count",
    unit="count",
)
def _parameters(bench: Bench) -> Found:
    data, errors = DataSpec((3, 32, 32), 0.0, 1.0, 256), {}
    for name, (config, wanted) in PUBLISHED.items():
        with torch.device("meta"):
            network = config.build(data)
        errors[name] = float(abs(sum(p.numel() for p in network.parameters()) - wanted))
    return largest(errors)


@ROOM.check(
    "the same question twice",
    claim="a network answers the same question with the same bits",
    by="numbers that differ between two forward passes",
    allowed=0.0,
    unit="count",
    why="an evaluation draws nothing, and the same sums are made in the same order",
    single=0.0,
)
def _twice(bench: Bench) -> Found:
    errors = {}
    for name, config in SMALL.items():
        network, (x, c) = built(bench, config), questions(bench)
        errors[name] = float((network(x, c) != network(x, c)).sum())
    return largest(errors)


@ROOM.check(
    "batch mates",
    claim="an answer does not depend on what else is in the batch, nor on its order",
    by="each example alone, and all in reverse, against the batch",
    allowed=1e-12,
    why="matrix products of other sizes sum in another order; some tens of layers",
    single=1e-4,
)
def _mates(bench: Bench) -> Found:
    errors = {}
    for name, config in SMALL.items():
        network, (x, c) = built(bench, config), questions(bench)
        together = network(x, c)
        alone = torch.cat([network(x[i : i + 1], c[i : i + 1]) for i in range(len(x))])
        errors[name] = max(relative(alone, together), relative(network(x.flip(0), c.flip(0)).flip(0), together))
    return largest(errors)


@ROOM.check(
    "gradients",
    claim="automatic differentiation through whole networks gives the slope of their answers",
    by="v' grad of a random projection against central differences of step 1e-5",
    allowed=1e-6,
    why="truncation 1e-10 and cancellation 1e-10 of the differences, times slopes that differ a hundredfold",
)
def _slopes(bench: Bench) -> Found:
    errors = {}
    for name, config in SMALL.items():
        network, (x, c) = built(bench, config), questions(bench)
        v, h = bench.normal(*x.shape, seed=2), 1e-5
        w = torch.cos(torch.arange(network(x, c).numel(), device=x.device)).to(x).reshape(network(x, c).shape)
        x.requires_grad_(True)
        (slope,) = torch.autograd.grad((w * network(x, c)).sum(), x)
        with torch.no_grad():
            difference = (w * (network(x + h * v, c) - network(x - h * v, c))).sum() / (2.0 * h)
        errors[name] = relative((slope * v).sum(), difference)
    return largest(errors)


@ROOM.check(
    "float32",
    claim="networks in float32 on this device answer as in float64 on the CPU",
    by="the same weights and questions, relative to the largest entry",
    allowed=1e-4,
    why="rounding of 6e-8 grows by a factor of a hundred in some tens of layers; without TF32",
    single=1e-4,
)
def _float32(bench: Bench) -> Found:
    errors, here, exact = {}, Bench(bench.device, torch.float32), Bench(torch.device("cpu"))
    # cuDNN's convolutions round float32 to ten bits unless they are told not to.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for name, config in SMALL.items():
            errors[name] = relative(built(here, config)(*questions(here)), built(exact, config)(*questions(exact)))
    return largest(errors)
