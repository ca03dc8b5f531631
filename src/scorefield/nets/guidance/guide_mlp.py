"""A multilayer perceptron as a guidance network, for events of any shape."""

from __future__ import annotations

from torch import Tensor, nn

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.guidance.guide_network import GuideConfig, GuideNetwork, scale_to_unit
from scorefield.nets.layers import Dense, TimeEmbedding, activation
from scorefield.nets.mlp import MLP, ResidualLayer


@record
class GuideMLP(GuideConfig):
    """Configuration of a multilayer perceptron for vectors, and for small events of any shape, flattened.

    Args:
        width: Number of hidden units.
        depth: Number of residual layers between the first and the last linear map.
        embedding_size: Number of Fourier frequencies of c.
        fourier_scale: Standard deviation of the frequencies. The default is small because p(y | x_t) changes slowly
            with c.
        dropout: Dropout probability before the second linear map of each residual layer.

    Raises:
        ValueError: A field is out of its range.
    """

    width: int = 128
    depth: int = 2
    embedding_size: int = 16
    fourier_scale: float = 0.2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        self._mlp()  # which checks the fields

    def _mlp(self) -> MLP:
        """The configuration of a score network with the same residual layers."""
        return MLP(self.width, self.depth, "fourier", self.embedding_size, self.fourier_scale, dropout=self.dropout)

    def build(self, data: DataSpec, outputs: int) -> GuidePerceptron:
        """The network for data of any shape."""
        return GuidePerceptron(self, data, outputs)


class GuidePerceptron(GuideNetwork):
    """The network of a `GuideMLP` configuration: the residual layers of `MLP`, then one linear map."""

    def __init__(self, config: GuideMLP, data: DataSpec, outputs: int):
        super().__init__(data, outputs)
        mlp = config._mlp()
        self.act = activation(mlp.activation)
        self.time = TimeEmbedding(
            "fourier", config.embedding_size, config.width, fourier_scale=config.fourier_scale, act=self.act
        )
        self.first = Dense(data.dimension, config.width)
        self.layers = nn.ModuleList(ResidualLayer(mlp) for _ in range(config.depth))
        self.last = Dense(config.width, outputs)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, *data.shape), (B,) -> (B, outputs); see `GuideNetwork.forward`."""
        self.check(x, c)
        embedding = self.act(self.time(c))
        h = self.first(scale_to_unit(x, c).flatten(1))
        for layer in self.layers:
            h = layer(h, embedding)
        return self.last(self.act(h)).to(x.dtype)
