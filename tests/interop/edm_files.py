"""EDM's network files for tests: pickles in its layout, and what its networks compute, written anew from the paper.

The layers are modules that hold tensors and settings under EDM's names and pickle themselves as EDM's do: as a call of
`torch_utils.persistence._reconstruct_persistent_obj` with the source text of their module, their class's name and
their attributes.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield.interop import edm

SMALL = {
    "img_resolution": 16,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.13,
}
DDPMPP = {"embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard"}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "decoder_type": "standard",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
CLASSES = {"label_dim": 3, "label_dropout": 0.1}
PRECOND = {
    "EDMPrecond": {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5},
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100},
}


class Persistent(nn.Module):
    """A module of a class called `kind`, with attributes, that pickles itself as EDM's do."""

    source = "raise RuntimeError('the source text of a pickle was executed')"

    def __init__(self, kind: str, **attributes: Any):
        super().__init__()
        self.kind = kind
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self) -> Any:
        state = {name: value for name, value in self.__dict__.items() if name != "kind"}
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.kind, "state": state}
        return _reconstruct_persistent_obj, (meta,), None


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("a function named in a pickle was called")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class EasyDict(dict):
    """EDM's dictionary, by its name."""


EasyDict.__module__ = "dnnlib.util"


def dumps(content: Any) -> bytes:
    """Pickle with EDM's modules in place by name."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    stand_ins: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    stand_ins["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    stand_ins["dnnlib.util"].EasyDict = EasyDict
    sys.modules.update(stand_ins)
    try:
        file = io.BytesIO()
        pickle.Pickler(file, protocol=4).dump(content)
        return file.getvalue()
    finally:
        for name in stand_ins:
            del sys.modules[name]


def snapshot(path: Path, outer: Any) -> Path:
    """A network snapshot with what else EDM puts into it."""
    data = EasyDict(class_name="training.dataset.ImageFolderDataset", path="cifar10.zip", use_labels=False, xflip=False)
    loss = Persistent("EDMLoss", P_mean=-1.2, P_std=1.2, sigma_data=0.5)
    path.write_bytes(dumps({"ema": outer, "loss_fn": loss, "augment_pipe": None, "dataset_kwargs": data}))
    return path


# ---------------------------------------------------------------------------------------------- making networks


def _parameter(*shape: int, scale: float) -> nn.Parameter:
    return nn.Parameter(scale * torch.randn(*shape), requires_grad=False)


def linear(inputs: int, outputs: int, *, bias: bool = True) -> Any:
    """A map W x + b."""
    made: Any = Persistent("Linear", in_features=inputs, out_features=outputs)
    made.weight = _parameter(outputs, inputs, scale=inputs**-0.5)
    made.bias = _parameter(outputs, scale=0.1) if bias else None
    return made


def conv(
    inputs: int, outputs: int, size: int, taps: list[int], *, up: bool = False, down: bool = False, **more: Any
) -> Any:
    """A convolution that may also resample; size 0 resamples alone."""
    made: Any = Persistent("Conv2d", in_channels=inputs, out_channels=outputs, up=up, down=down, **more)
    made.weight = _parameter(outputs, inputs, size, size, scale=(inputs * size * size) ** -0.5) if size else None
    made.bias = _parameter(outputs, scale=0.1) if size else None
    f = torch.tensor(taps, dtype=torch.float32)
    made.register_buffer("resample_filter", (torch.outer(f, f) / f.sum() ** 2)[None, None] if up or down else None)
    return made


def norm(channels: int) -> Any:
    """Group normalisation."""
    made: Any = Persistent("GroupNorm", num_groups=min(32, channels // 4), eps=1e-6)
    made.weight = nn.Parameter(1.0 + 0.1 * torch.randn(channels))
    made.bias = _parameter(channels, scale=0.1)
    return made


def block(
    inputs: int, outputs: int, embedding: int, taps: list[int], *, attention: bool = False, **resample: bool
) -> Any:
    """A residual block, with attention where asked for."""
    made: Any = Persistent(
        "UNetBlock", in_channels=inputs, out_channels=outputs, emb_channels=embedding, num_heads=int(attention),
        dropout=0.13, skip_scale=np.sqrt(0.5), adaptive_scale=False,
    )  # fmt: skip
    made.norm0, made.conv0 = norm(inputs), conv(inputs, outputs, 3, taps, **resample)
    made.affine = linear(embedding, outputs)
    made.norm1, made.conv1 = norm(outputs), conv(outputs, outputs, 3, taps)
    made.skip = conv(inputs, outputs, 1, taps, **resample) if inputs != outputs or resample else None
    if attention:
        made.norm2, made.qkv = norm(outputs), conv(outputs, 3 * outputs, 1, taps)
        made.proj = conv(outputs, outputs, 1, taps)
    return made


def song(**given: Any) -> Any:
    """A random SongUNet of the arguments `given`."""
    a: dict[str, Any] = {**edm.SONG, **SMALL, **given}
    width, taps, side = a["model_channels"], list(a["resample_filter"]), a["img_resolution"]
    noise, embedding = width * a["channel_mult_noise"], width * a["channel_mult_emb"]
    net: Any = Persistent("SongUNet", _init_args=(), _init_kwargs={**SMALL, **given}, label_dropout=a["label_dropout"])
    if a["embedding_type"] == "fourier":
        net.map_noise = Persistent("FourierEmbedding")
        net.map_noise.register_buffer("freqs", 16 * torch.randn(noise // 2))
    else:
        net.map_noise = Persistent("PositionalEmbedding", num_channels=noise, max_positions=10000, endpoint=True)
    net.map_label = linear(a["label_dim"], noise) if a["label_dim"] else None
    net.map_augment = linear(a["augment_dim"], noise, bias=False) if a["augment_dim"] else None
    net.map_layer0, net.map_layer1 = linear(noise, embedding), linear(embedding, embedding)
    net.enc, net.dec = nn.ModuleDict(), nn.ModuleDict()
    widths, current = _encoder(net.enc, a, embedding, taps), width * a["channel_mult"][-1]
    last = len(a["channel_mult"]) - 1
    for level in range(last, -1, -1):
        size, outputs = f"{side >> level}x{side >> level}", width * a["channel_mult"][level]
        if level == last:
            net.dec[f"{size}_in0"] = block(current, current, embedding, taps, attention=True)
            net.dec[f"{size}_in1"] = block(current, current, embedding, taps)
        else:
            net.dec[f"{size}_up"] = block(current, current, embedding, taps, up=True)
        for j in range(a["num_blocks"] + 1):
            attention = j == a["num_blocks"] and side >> level in a["attn_resolutions"]
            net.dec[f"{size}_block{j}"] = block(current + widths.pop(), outputs, embedding, taps, attention=attention)
            current = outputs
        if a["decoder_type"] == "skip" and level < last:
            net.dec[f"{size}_aux_up"] = conv(a["out_channels"], a["out_channels"], 0, taps, up=True)
        if a["decoder_type"] == "skip" or level == 0:
            net.dec[f"{size}_aux_norm"] = norm(current)
            net.dec[f"{size}_aux_conv"] = conv(current, a["out_channels"], 3, taps)
    return net.requires_grad_(False)


def _encoder(enc: nn.ModuleDict, a: dict[str, Any], embedding: int, taps: list[int]) -> list[int]:
    """Fill the way down; returns the widths of what the way up takes from it."""
    side, width, image = a["img_resolution"], a["model_channels"], a["in_channels"]
    enc[f"{side}x{side}_conv"] = conv(image, width, 3, taps)
    widths, current, pyramid = [width], width, image
    for level, multiplier in enumerate(a["channel_mult"]):
        size = f"{side >> level}x{side >> level}"
        if level:
            enc[f"{size}_down"] = block(current, current, embedding, taps, down=True)
            widths.append(current)
            if a["encoder_type"] == "skip":
                enc[f"{size}_aux_down"] = conv(image, image, 0, taps, down=True)
                enc[f"{size}_aux_skip"] = conv(image, current, 1, taps)
            if a["encoder_type"] == "residual":
                enc[f"{size}_aux_residual"] = conv(pyramid, current, 3, taps, down=True, fused_resample=True)
                pyramid = current
        for j in range(a["num_blocks"]):
            attention = side >> level in a["attn_resolutions"]
            enc[f"{size}_block{j}"] = block(current, width * multiplier, embedding, taps, attention=attention)
            current = width * multiplier
            widths.append(current)
    return widths


def preconditioned(kind: str, **given: Any) -> Any:
    """A random network of EDM."""
    a: dict[str, Any] = {**edm.SONG, **SMALL, **given}
    facts = {"img_resolution": a["img_resolution"], "img_channels": a["in_channels"], "label_dim": a["label_dim"]}
    outer: Any = Persistent(kind, **facts, use_fp16=False, _init_args=(), _init_kwargs={}, **PRECOND[kind])
    outer.model = song(**given)
    return outer


# ---------------------------------------------------------------------------------------------- what they compute


def denoised(outer: Any, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
    """D(x, sigma) of table 1 for images in [-1, 1]; labels one-hot, zeros for none."""
    s = sigma.reshape(-1, 1, 1, 1)
    if outer.kind == "EDMPrecond":
        d = outer.sigma_data
        f = evaluate(outer.model, x / (s**2 + d**2).sqrt(), sigma.log() / 4, labels)
        return d**2 / (s**2 + d**2) * x + s * d / (s**2 + d**2).sqrt() * f
    if outer.kind == "VEPrecond":
        return x + s * evaluate(outer.model, x, (sigma / 2).log(), labels)
    b, d = outer.beta_min, outer.beta_d
    t = ((b**2 + 2 * d * (1 + sigma**2).log()).sqrt() - b) / d
    return x - s * evaluate(outer.model, x / (1 + s**2).sqrt(), (outer.M - 1) * t, labels)


def evaluate(net: Any, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
    """F(x, c): the network in the words of Song et al. (2021), appendix H, on EDM's tensors."""
    e = functional.silu(_affine(net.map_layer0, _features(net, c, labels)))
    e = functional.silu(_affine(net.map_layer1, e))
    skips: list[Tensor] = []
    pyramid = x
    for name, part in net.enc.items():
        if "aux_down" in name:
            pyramid = _convolved(part, pyramid)
        elif "aux_skip" in name:
            skips[-1] = skips[-1] + _convolved(part, pyramid)
        elif "aux_residual" in name:
            pyramid = skips[-1] = (skips[-1] + _convolved(part, pyramid)) / math.sqrt(2)
        else:
            skips.append(_block(part, skips[-1], e) if skips else _convolved(part, x))
    h, normed = skips[-1], x
    image: Any = None
    for name, part in net.dec.items():
        if "aux_up" in name:
            image = _convolved(part, image)
        elif "aux_norm" in name:
            normed = _normed(part, h)
        elif "aux_conv" in name:
            image = _convolved(part, functional.silu(normed)) + (0 if image is None else image)
        else:
            h = _block(part, torch.cat([h, skips.pop()], 1) if "_block" in name else h, e)
    assert not skips
    return image


def _features(net: Any, c: Tensor, labels: Tensor | None) -> Tensor:
    if net.map_noise.kind == "FourierEmbedding":
        phase = 2 * math.pi * torch.outer(c, net.map_noise.freqs)
    else:
        half = net.map_noise.num_channels // 2
        phase = torch.outer(c, 10000.0 ** -(torch.arange(half, dtype=c.dtype) / (half - 1)))
    features = torch.cat([phase.sin(), phase.cos()], 1)
    if net.map_label is not None:
        n = net.map_label.in_features
        labels = torch.zeros(len(c), n, dtype=c.dtype) if labels is None else labels
        features = features + _affine(net.map_label, math.sqrt(n) * labels)
    return features


def _affine(part: Any, x: Tensor) -> Tensor:
    return functional.linear(x, part.weight, part.bias)


def _normed(part: Any, x: Tensor) -> Tensor:
    return functional.group_norm(x, part.num_groups, part.weight, part.bias, part.eps)


def _convolved(part: Any, x: Tensor) -> Tensor:
    """Resample, then convolve; fused, convolve with the padding of both, then filter."""
    f, w = part.resample_filter, part.weight
    if f is not None:
        n, fused = f.shape[-1], getattr(part, "fused_resample", False)
        if fused:
            x = functional.conv2d(x, w, padding=1 + (n - 1) // 2)
        each = f.expand(x.shape[1], 1, n, n)
        if part.up:
            x = functional.conv_transpose2d(x, 4 * each, stride=2, padding=(n - 1) // 2, groups=x.shape[1])
        else:
            x = functional.conv2d(x, each, stride=2, padding=0 if fused else (n - 1) // 2, groups=x.shape[1])
        if fused:
            return x + part.bias.reshape(1, -1, 1, 1)
    return x if w is None else functional.conv2d(x, w, part.bias, padding=w.shape[-1] // 2)


def _block(part: Any, x: Tensor, e: Tensor) -> Tensor:
    h = _convolved(part.conv0, functional.silu(_normed(part.norm0, x)))
    h = functional.silu(_normed(part.norm1, h + _affine(part.affine, e)[:, :, None, None]))
    h = (_convolved(part.conv1, h) + (x if part.skip is None else _convolved(part.skip, x))) * math.sqrt(0.5)
    if part.num_heads:
        b, n = h.shape[:2]
        q, k, v = _convolved(part.qkv, _normed(part.norm2, h)).reshape(b, n, 3, -1).unbind(2)
        weights = (q.transpose(1, 2) @ k / math.sqrt(n)).softmax(2)
        h = (h + _convolved(part.proj, (v @ weights.transpose(1, 2)).reshape(h.shape))) * math.sqrt(0.5)
    return h
