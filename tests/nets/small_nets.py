"""Small networks that between them use every choice of the configurations."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.nets import (
    DDPM,
    MLP,
    NCSN,
    ACSMUNet,
    EnergyMLP,
    EnergyResNet,
    NCSNpp,
    NCSNv2,
    Network,
    NetworkConfig,
    ResScore,
    ToyMLP,
)

TINY = {"channels": 8, "channel_multipliers": (1, 2), "blocks": 1, "attention_sizes": (4,), "init_scale": 1.0}

NCSNPP = {
    "ncsnpp": NCSNpp(**TINY),
    "output residual": NCSNpp(**TINY, progressive="residual"),
    "skips, cat": NCSNpp(**TINY, progressive="output_skip", progressive_input="input_skip", progressive_combine="cat"),
    "ddpm blocks": NCSNpp(**TINY, block="ddpm"),
    "ddpm blocks, filters alone": NCSNpp(**TINY, block="ddpm", resample_with_conv=False),
    "ddpm blocks, no filter": NCSNpp(**TINY, block="ddpm", fir=False, progressive="residual", activation="relu"),
    "ddpm blocks, means": NCSNpp(
        **TINY, block="ddpm", fir=False, resample_with_conv=False, progressive="output_skip", progressive_input="none"
    ),
    "ddpmpp": NCSNpp(**TINY, fir=False, progressive_input="none", embedding="positional", centered=True),
    "no time": NCSNpp(**TINY, time_conditional=False, activation="lrelu"),
    "sums not rescaled": NCSNpp(**TINY, skip_rescale=False, activation="elu"),
    "three taps": NCSNpp(**TINY, fir_kernel=(1, 2, 1), progressive="residual", block="ddpm"),
    "skewed taps": NCSNpp(**TINY, fir_kernel=(1, 2, 4, 3, 1), progressive="output_skip"),
}
IMAGE = DataSpec((3, 8, 8))
REFINE_NETS: dict[str, tuple[NetworkConfig, DataSpec]] = {
    "ncsn": (NCSN(channels=4, levels=5), IMAGE),
    "ncsn, one noise level": (NCSN(channels=4, levels=None, centered=True), DataSpec((1, 6, 10))),
    "ncsn, deeper": (
        NCSN(channels=4, levels=4, deeper=True, norm="instance", activation="swish"),
        DataSpec((1, 4, 12)),
    ),
    "ncsnv2": (NCSNv2(channels=4), IMAGE),
    "ncsnv2, deeper": (NCSNv2(channels=4, depth="deeper", norm="variance", centered=True), DataSpec((2, 8, 16))),
    "ncsnv2, deepest": (NCSNv2(channels=4, depth="deepest", norm="none", activation="lrelu"), DataSpec((1, 16, 8))),
    "ncsnv2, not dilated": (NCSNv2(channels=4, dilation=False, spectral_norm=True), DataSpec((3, 16, 8))),
    "resscore": (ResScore(channels=8), DataSpec((3, 8, 12))),
}
ENERGIES: dict[str, tuple[NetworkConfig, DataSpec]] = {
    "energy": (EnergyResNet(3, 6), IMAGE),
    "energy, linear head, padded": (EnergyResNet(2, 12, "linear", "swish"), DataSpec((1, 6, 10))),
    "energy, signal": (EnergyResNet(2, 18, activation="relu"), DataSpec((2, 9))),
    "energy, deepest": (EnergyResNet(2, 34), DataSpec((1, 16, 16))),
    "energy of points": (EnergyMLP(16, 2), DataSpec((3,))),
}
CASES: dict[str, tuple[NetworkConfig, DataSpec]] = {
    **{name: (config, IMAGE) for name, config in NCSNPP.items()},
    "ddpm": (DDPM(channels=8, channel_multipliers=(1, 2), blocks=1, attention_sizes=(4,)), IMAGE),
    "signal": (NCSNpp(**TINY, progressive="output_skip", progressive_input="input_skip"), DataSpec((2, 16))),
    "signal, residual": (NCSNpp(**TINY, progressive="residual", block="ddpm"), DataSpec((1, 12))),
    "signal, ddpm": (DDPM(channels=8, channel_multipliers=(1, 1, 2), blocks=1), DataSpec((5, 8))),
    "not square, one channel": (NCSNpp(**TINY), DataSpec((1, 4, 10))),
    "five channels": (NCSNpp(**TINY, embedding="positional"), DataSpec((5, 6, 4))),
    "acsm": (ACSMUNet(channels=8, channel_multipliers=(1, 2), blocks=1), IMAGE),
    "acsm, signal": (ACSMUNet(4, (2, 1), 1, attention_level=0, dropout=0.2), DataSpec((2, 48))),
    **ENERGIES,
    "points": (MLP(width=16, depth=2), DataSpec((2,))),
    "points, positional": (MLP(width=16, depth=1, embedding="positional", activation="elu"), DataSpec((7,))),
    "flattened image": (MLP(width=16, depth=1, dropout=0.2), DataSpec((2, 3, 5))),
    "toy points": (ToyMLP(width=16), DataSpec((2,))),
    **REFINE_NETS,
}


def build(config: NetworkConfig, data: DataSpec, seed: int = 0) -> Network:
    """The network in eval mode, every parameter large enough to matter."""
    torch.manual_seed(seed)
    net = config.build(data).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                spread = 0.3 if parameter.ndim == 1 else 1.0 / float(parameter[0].numel()) ** 0.5
                parameter.add_(spread * torch.randn(parameter.shape))
    return net


def batch(data: DataSpec, size: int = 3, dtype: torch.dtype = torch.float32, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random x, and c = 0, 1, ..., which every network can read, also as labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, *data.shape, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.arange(size, dtype=dtype)


def naive_module() -> ModuleType:
    """benchmarks/naive.py, which is no package."""
    path = Path(__file__).parents[2] / "benchmarks" / "naive.py"
    spec = importlib.util.spec_from_file_location("naive", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
