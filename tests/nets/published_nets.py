"""The published configurations of the U-Nets, and the rule that fills a network with reproducible weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.nets import DDPM, NCSNpp, Network, load_published, published_order

HIGH_RESOLUTION = {"progressive": "output_skip", "progressive_input": "input_skip", "dropout": 0.0}
VE_CIFAR10 = NCSNpp()
VE_CIFAR10_DEEP = NCSNpp(blocks=8)
VE_CIFAR10_DISCRETE = NCSNpp(embedding="positional")
VP_CIFAR10_NCSNPP = NCSNpp(embedding="positional", centered=True)
DDPMPP = NCSNpp(embedding="positional", fir=False, progressive_input="none", centered=True)
DDPMPP_DEEP = NCSNpp(embedding="positional", fir=False, progressive_input="none", centered=True, blocks=8)
CHURCH = NCSNpp(channel_multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=2, **HIGH_RESOLUTION)
FFHQ = NCSNpp(channels=16, channel_multipliers=(1, 2, 4, 8, 16, 32, 32, 32), blocks=1, **HIGH_RESOLUTION)
DDPM_CIFAR10 = DDPM()
DDPM_CIFAR10_VE = DDPM(centered=False)
DDPM_CHURCH = DDPM(channel_multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0)


def images(size: int) -> DataSpec:
    """Colour images."""
    return DataSpec((3, size, size), 0.0, 1.0, 256)


def network_of_release(config: dict[str, Any]) -> Network:
    """The network that a release's own configuration file describes."""
    model, data = config["model"], config["data"]
    fields = {
        "channels": model["nf"],
        "channel_multipliers": tuple(model["ch_mult"]),
        "blocks": model["num_res_blocks"],
        "attention_sizes": tuple(model["attn_resolutions"]),
        "dropout": model["dropout"],
        "resample_with_conv": model["resamp_with_conv"],
        "time_conditional": model["conditional"],
        "activation": model["nonlinearity"],
        "centered": data["centered"],
    }
    if model["name"] == "ddpm":
        return DDPM(**fields).build(images(data["image_size"]))
    names = (
        "fir",
        "skip_rescale",
        "progressive",
        "progressive_input",
        "progressive_combine",
        "fourier_scale",
        "init_scale",
    )
    fields |= {name: model[name] for name in names}
    fields |= {"fir_kernel": tuple(model["fir_kernel"]), "block": model["resblock_type"]}
    return NCSNpp(**fields, embedding=model["embedding_type"]).build(images(data["image_size"]))


def hashed_uniform(count: int, stream: int) -> np.ndarray:
    """u(i, k) - 0.5 for i = 0..count-1 and k = stream: a fixed hash of both, in float64."""
    with np.errstate(over="ignore"):
        h = np.arange(count, dtype=np.uint32) * np.uint32(2654435761)
        h = h + np.uint32(stream * 40503 % 2**32) + np.uint32(12345)
        h ^= h >> np.uint32(16)
        h *= np.uint32(2246822519)
        h ^= h >> np.uint32(13)
        h *= np.uint32(3266489917)
        h ^= h >> np.uint32(16)
    return h / 2.0**32 - 0.5


def hashed_input(*shape: int) -> Tensor:
    """2 u(i, 1000003) in row-major order."""
    return torch.from_numpy(2 * hashed_uniform(int(np.prod(shape)), 1000003)).reshape(shape).float()


def fill_with_hash(net: Network) -> None:
    """Give every parameter the hashed value of its published position."""
    tensors = []
    for k, p in enumerate(published_order(net)):
        shape = tuple(p.parameter.shape[::-1] if p.transposed else p.parameter.shape)
        u = hashed_uniform(p.parameter.numel(), k).reshape(shape)
        if not p.trainable:
            value = 4 * u
        elif len(shape) >= 2:
            fan = shape[0] if p.transposed else int(np.prod(shape[1:]))
            value = u * 2 * np.sqrt(3 / fan)
        elif p.name.endswith("weight"):
            value = 1 + 0.2 * u
        else:
            value = 0.2 * u
        tensors.append(torch.from_numpy(value))
    load_published(net, tensors)
