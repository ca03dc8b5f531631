"""Conditioning of networks on a class, a vector or an image, each of which may be unknown for any example.

    class k    a row of an embedding table; the label -1 (unknown) has a row of its own
    vector v   W v + b; a row of v that contains NaN (unknown) gives a learned vector instead
    image y    extra input channels, and one channel that is 1 where the image is known; an image that contains NaN
               (unknown) gives zeros

Condition drop-out during training replaces conditions by the unknown values, and classifier-free guidance evaluates the
network with and without the condition (Ho and Salimans 2022). A network for data without conditions has none of these
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield._codec import near
from scorefield._typing import Condition
from scorefield.data_spec import ConditionSpec
from scorefield.nets.layers import Dense


class ClassEmbedding(nn.Module):
    """Embedding of class labels: (B,) in -1..size-1 -> (B, features)."""

    def __init__(self, spec: ConditionSpec, features: int):
        super().__init__()
        self.table = nn.Embedding(spec.size + 1, features)
        self.name, self.size = spec.name, spec.size

    def forward(self, labels: Tensor | None, batch: int) -> Tensor:
        """Look up the rows of the labels; the last row stands for -1, and for all examples if `labels` is None."""
        if labels is None:
            labels = self.table.weight.new_full((batch,), -1, dtype=torch.int64)
        if labels.shape != (batch,) or labels.is_floating_point():
            raise ValueError(
                f"condition {self.name!r} must hold {batch} integer labels, shape ({batch},); got {labels.dtype} of"
                f" shape {tuple(labels.shape)}"
            )
        if labels.device.type == "cpu" and bool(((labels < -1) | (labels >= self.size)).any()):
            raise ValueError(
                f"condition {self.name!r} has labels from {int(labels.min())} to {int(labels.max())}; give a class in"
                f" 0..{self.size - 1}, or -1 where it is unknown"
            )
        return self.table(torch.where(labels < 0, self.size, labels))


class VectorEmbedding(nn.Module):
    """Embedding of vectors: (B, size) -> (B, features)."""

    def __init__(self, spec: ConditionSpec, features: int):
        super().__init__()
        self.dense = Dense(spec.size, features)
        self.unknown = nn.Parameter(torch.zeros(features))
        self.name, self.size = spec.name, spec.size

    def forward(self, v: Tensor | None, batch: int) -> Tensor:
        """W v + b, or the learned vector where a row contains NaN, and for all examples if `v` is None."""
        if v is None:
            return self.unknown.expand(batch, -1)
        if v.shape != (batch, self.size):
            raise ValueError(f"condition {self.name!r} must have shape {(batch, self.size)}; got {tuple(v.shape)}")
        v = v.to(self.dense.weight.dtype)
        known = ~v.isnan().any(dim=1, keepdim=True)
        return torch.where(known, self.dense(torch.where(known, v, 0)), self.unknown)


class ImageInput:
    """Input channels of images: (B, size, *spatial) -> (B, size + 1, *spatial), the last one 1 where known, else 0."""

    def __init__(self, spec: ConditionSpec):
        self.name, self.size = spec.name, spec.size
        self.channels = spec.size + 1

    def __call__(self, image: Tensor | None, x: Tensor) -> Tensor:
        """The channels to concatenate with x; zeros if `image` is None."""
        shape = (x.shape[0], self.size, *x.shape[2:])
        if image is None:
            return x.new_zeros(x.shape[0], self.channels, *x.shape[2:])
        if image.shape != shape:
            raise ValueError(
                f"condition {self.name!r} must have shape {shape}, on the same (padded) grid as x;"
                f" got {tuple(image.shape)}"
            )
        image = image.to(x.dtype)
        known = ~image.isnan().flatten(1).any(dim=1).reshape((-1,) + (1,) * (x.ndim - 1))
        indicator = known.to(x.dtype).expand(-1, 1, *x.shape[2:])
        return torch.cat([torch.where(known, image, 0), indicator], dim=1)


class Conditioning(nn.Module):
    """All conditions of one network.

    Args:
        conditions: Specifications of the conditions, from the `DataSpec`.
        features: Width of the embedding that class and vector conditions are added to.
    """

    def __init__(self, conditions: tuple[ConditionSpec, ...], features: int):
        super().__init__()
        kinds = {"class": ClassEmbedding, "vector": VectorEmbedding}
        self.names = tuple(spec.name for spec in conditions)
        embedded = [spec for spec in conditions if spec.kind in kinds]
        self.embedded_names = tuple(spec.name for spec in embedded)
        self.embeddings = nn.ModuleList(kinds[spec.kind](spec, features) for spec in embedded)
        self.images = tuple(ImageInput(spec) for spec in conditions if spec.kind == "image")

    @property
    def channels(self) -> int:
        """Number of input channels that image conditions add."""
        return sum(image.channels for image in self.images)

    @property
    def embeds(self) -> bool:
        """Whether any condition is added to the embedding, that is, whether there is a class or a vector."""
        return len(self.embeddings) > 0

    def embedding(self, condition: Condition | None, time: Tensor | None, batch: int) -> Tensor | None:
        """The time embedding plus class and vector embeddings, (B, features); None if there is nothing to add up."""
        given = self._known_names(condition)
        total = time
        for name, embed in zip(self.embedded_names, self.embeddings, strict=True):
            part = embed(given.get(name), batch)
            total = part if total is None else total + part
        return total

    def with_images(self, x: Tensor, condition: Condition | None) -> Tensor:
        """x followed by the channels of the image conditions, concatenated along the channel axis."""
        if not self.images:
            return x
        given = self._known_names(condition)
        return torch.cat([x, *(image(given.get(image.name), x) for image in self.images)], dim=1)

    def _known_names(self, condition: Condition | None) -> Mapping[str, Tensor]:
        """The conditions given; a name that the network was not built with is refused."""
        given = condition or {}
        for name in given:
            if name not in self.names:
                hint = near(name, self.names) if self.names else " Its data have no conditions (DataSpec.conditions)."
                raise ValueError(f"the network takes no condition {name!r}.{hint}")
        return given
