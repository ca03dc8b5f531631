"""The RefineNet of NCSN and NCSNv2: a dilated residual encoder followed by a chain of refinement blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.network import Network, refuse_condition, require_images
from scorefield.nets.refinenets.blocks import EncoderBlock, RefineBlock, RefineStyle


@dataclass(frozen=True)
class Stage:
    """Two encoder blocks and the refinement block that takes their output.

    Args:
        name: Name of the encoder blocks in the release.
        width: Number of output channels of the encoder blocks divided by the `channels` of the network.
        dilation: Dilation of the convolutions; 1 in a stage that halves the size.
        refine: Name of the refinement block in the release.
        refined: Number of output channels of the refinement block divided by the `channels` of the network.
        odd: Whether a stage that halves the size pads odd sizes, so that it takes these too.
    """

    name: str
    width: int
    dilation: int
    refine: str
    refined: int
    odd: bool = False


BASE = (
    Stage("res1", 1, 1, "refine4", 1),
    Stage("res2", 2, 1, "refine3", 1),
    Stage("res3", 2, 2, "refine2", 2),
    Stage("res4", 2, 4, "refine1", 2),
)
"""Stages of NCSN and of NCSNv2 at 32 and 64 pixels: one halving."""

DEEPER = (
    Stage("res1", 1, 1, "refine5", 1),
    Stage("res2", 2, 1, "refine4", 1),
    Stage("res3", 2, 1, "refine3", 2),
    Stage("res4", 4, 2, "refine2", 2),
    Stage("res5", 4, 4, "refine1", 4),
)
"""Stages with two halvings, for images of 96 to 128 pixels."""

DEEPEST = (*DEEPER[:3], Stage("res31", 2, 1, "refine31", 2), *DEEPER[3:])
"""Stages with three halvings, for images of 256 pixels."""


class RefineNet(Network):
    """A RefineNet: conv(act(norm(h))) of the output h of the last refinement block.

    The encoder stages run from the image to the coarsest, dilated features. The refinement blocks run in the opposite
    order; each takes the output of one stage and that of the refinement block before it.

    Args:
        data: Shape (C, H, W), without conditions.
        stages: Encoder stages with their refinement blocks, from the image to the coarsest features.
        channels: Number of channels of the first stage.
        style: Settings shared by all blocks.
        levels: Number of noise levels, whose labels c takes; None if the network is not conditioned on c.
        centered: Whether the data are in [-1, 1]; otherwise the network maps its noisy input x to 2 x - 1.

    Raises:
        ValueError: The data are not images.
    """

    def __init__(
        self,
        data: DataSpec,
        stages: Sequence[Stage],
        channels: int,
        style: RefineStyle,
        *,
        levels: int | None,
        centered: bool,
    ):
        require_images("a RefineNet", data, "For vectors use MLP(), for signals NCSNpp()")
        super().__init__(data, multiple=2 ** sum(stage.dilation == 1 and not stage.odd for stage in stages[1:]))
        self.stages, self.act, self.levels, self.centered = tuple(stages), style.act, levels, centered
        self.begin_conv = style.conv(data.shape[0], channels)
        self.normalizer = style.norm(channels)
        self.end_conv = style.conv(channels, data.shape[0])
        width = channels
        for index, stage in enumerate(stages):
            inner = channels * stage.width
            first = EncoderBlock(style, width, inner, dilation=stage.dilation, first=index > 0, odd=stage.odd)
            second = EncoderBlock(style, inner, inner, dilation=stage.dilation, first=False)
            self.add_module(stage.name, nn.ModuleList([first, second]))
            width = inner
        inputs: list[int] = []  # the number of channels of the refinement block before this one; none at first
        for stage in reversed(stages):
            refined = channels * stage.refined
            widths = [channels * stage.width, *inputs]
            self.add_module(stage.refine, RefineBlock(style, widths, refined, last=stage is stages[0]))
            inputs = [refined]

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, C, H, W), labels (B,) -> (B, C, H, W); see `Network.forward`.

        Raises:
            ValueError: A shape is wrong, or the network is conditioned on labels and c does not hold labels.
        """
        self.check(x, c)
        refuse_condition(condition)
        labels = None if self.levels is None else noise_labels(c, self.levels).to(x.device)
        h = self.begin_conv(x if self.centered else 2.0 * x - 1.0)
        outputs = []
        for stage in self.stages:
            for block in self.get_submodule(stage.name).children():
                h = block(h, labels)
            outputs.append(h)
        refined: list[Tensor] = []
        for stage, output in zip(reversed(self.stages), reversed(outputs), strict=True):
            refined = [self.get_submodule(stage.refine)([output, *refined], labels)]
        return self.end_conv(self.act(self.normalizer(refined[0], labels))).to(x.dtype).contiguous()


def noise_labels(c: Tensor, levels: int) -> Tensor:
    """The labels that c, shape (B,), holds as floats, as int64.

    The values are checked on the CPU only, because the check would stall an accelerator.

    Raises:
        ValueError: A number is not an integer in 0..levels-1.
    """
    labels = c.round()
    if c.device.type == "cpu":
        wrong = ((c - labels).abs() > 1e-3) | (labels < 0) | (labels >= levels)  # also where c is NaN
        if bool((wrong | c.isnan()).any()):
            raise ValueError(
                f"the network is conditioned on the label of a noise level, an integer in 0..{levels - 1} with 0 the"
                f" most noise; got c = {float(c[wrong | c.isnan()][0]):g}. Give its score"
                f" time_input=LevelLabel(descending=True) and a Tabulated process of {levels} levels"
            )
    return labels.to(torch.int64)
