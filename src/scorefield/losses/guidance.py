"""The objective of guidance networks: -log p_t(y | x_t) of a condition y given the noisy example."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.losses.denoising import Draw, Objective, draw_times, normal_like
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.score.guidance_model import NetworkGuide
from scorefield.score.score import Score


@record
class ConditionLikelihood(Objective):
    """-log p_t(y | x_t), x_t = alpha_t x_0 + sigma_t z (Song et al. 2021, appendix I.1).

    Averaged over random times this is the mixture of cross-entropies with equal weights that the paper sums. For a
    numerical y it is a mixture of negative normal log densities. At each t the minimum over all conditional
    distributions is the exact p_t(y | x), where the loss equals the entropy of y given x_t: zero where x_t determines
    y, and the whole entropy of y where x_t is pure noise.

    Args:
        stratified: Whether the B times of a batch are spread, one in each of B equal parts of [0, 1).
    """

    stratified: bool = True

    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        t = draw_times(process, like.shape[0], generator, stratified=self.stratified)
        return Draw(t, normal_like(like, tuple(like.shape), generator))

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`; the loss is 0 for an example whose y is not known.

        Raises:
            ValueError: The trained score is not a guidance network, or y is not of the kind that it predicts.
        """
        if not isinstance(score, NetworkGuide):
            raise ValueError(
                f"ConditionLikelihood trains a guidance network p(y | x), which is a NetworkGuide; got a"
                f" {type(score).__name__}. Train it with DenoisingScoreMatching instead"
            )
        return -score.log_prob(score.process.perturb(x0, draw.t, draw.z), draw.t, condition)
