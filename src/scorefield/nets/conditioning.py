"""Conditioning of networks on a class, a vector or an image, each of which may be unknown for any example.

* class k:  a row of an embedding table; label -1 has its own row.
* vector v: W v + b; a row with NaN gives a learned vector instead.
* image y:  extra input channels, and one more that is 1 where the image is known; a row with NaN gives zeros.

Drop-out of conditions during training writes the unknown values, and guidance asks for both (Ho and Salimans 2022).
A network for data without conditions owns none of these parameters.
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
    """Labels (B,) in -1..size-1 -> (B, features)."""

    def __init__(self, spec: ConditionSpec, features: int):
        super().__init__()
        self.table = nn.Embedding(spec.size + 1, features)
        self.name, self.size = spec.name, spec.size

    def forward(self, labels: Tensor | None, batch: int) -> Tensor:
        """The rows of the labels; the last row where the label is -1 or nothing is given."""
        if labels is None:
            labels = self.table.weight.new_full((batch,), -1, dtype=torch.int64)
        if labels.shape != (batch,) or labels.is_floating_point():
            raise ValueError(
                f"condition {self.name!r} must hold {batch} integer labels, shape ({batch},); got {labels.dtype} of"
                f" shape {tuple(labels.shape)}"
            )
        if labels.device.type == "cpu" and bool(((labels < -1) | (labels >= self.size)).any()):
            raise ValueError(
                f"condition {self.name!r} has labels from {int(labels.min())} to {int(labels.max())}; classes are"
                f" 0..{self.size - 1}, and -1 where not known"
            )
        return self.table(torch.where(labels < 0, self.size, labels))


class VectorEmbedding(nn.Module):
    """Vectors (B, size) -> (B, features)."""

    def __init__(self, spec: ConditionSpec, features: int):
        super().__init__()
        self.dense = Dense(spec.size, features)
        self.unknown = nn.Parameter(torch.zeros(features))
        self.name, self.size = spec.name, spec.size

    def forward(self, v: Tensor | None, batch: int) -> Tensor:
        """W v + b, or the learned vector where a row has NaN or nothing is given."""
        if v is None:
            return self.unknown.expand(batch, -1)
        if v.shape != (batch, self.size):
            raise ValueError(f"condition {self.name!r} must have shape {(batch, self.size)}; got {tuple(v.shape)}")
        v = v.to(self.dense.weight.dtype)
        known = ~v.isnan().any(dim=1, keepdim=True)
        return torch.where(known, self.dense(torch.where(known, v, 0)), self.unknown)


class ImageInput:
    """Images (B, size, *spatial) -> (B, size + 1, *spatial), the last channel saying whether the image is known."""

    def __init__(self, spec: ConditionSpec):
        self.name, self.size = spec.name, spec.size
        self.channels = spec.size + 1

    def __call__(self, image: Tensor | None, x: Tensor) -> Tensor:
        """Channels to put beside x."""
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
        conditions: What comes with the data.
        features: Width of the embedding that class and vector conditions are added to.

    Attributes:
        channels: Input channels that image conditions add.
        embeds: Whether any condition adds to the embedding.
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
        """Input channels that image conditions add."""
        return sum(image.channels for image in self.images)

    @property
    def embeds(self) -> bool:
        """Whether any condition adds to the embedding."""
        return len(self.embeddings) > 0

    def embedding(self, condition: Condition | None, time: Tensor | None, batch: int) -> Tensor | None:
        """The time embedding plus class and vector embeddings, (B, features); None if there are none of them."""
        given = self._checked(condition)
        total = time
        for name, embed in zip(self.embedded_names, self.embeddings, strict=True):
            part = embed(given.get(name), batch)
            total = part if total is None else total + part
        return total

    def beside(self, x: Tensor, condition: Condition | None) -> Tensor:
        """x with the channels of the image conditions after its own."""
        if not self.images:
            return x
        given = self._checked(condition)
        return torch.cat([x, *(image(given.get(image.name), x) for image in self.images)], dim=1)

    def _checked(self, condition: Condition | None) -> Mapping[str, Tensor]:
        given = condition or {}
        for name in given:
            if name not in self.names:
                hint = near(name, self.names) if self.names else " Its data have no conditions (DataSpec.conditions)."
                raise ValueError(f"the network knows no condition {name!r}.{hint}")
        return given
