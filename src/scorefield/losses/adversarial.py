"""Adversarial score matching (Jolicoeur-Martineau et al. 2021): a critic that tells clean from denoised examples.

Beside its own loss a score network is asked to denoise into what looks like data. From the value that its loss computed
anyway follows the expected denoised example, Tweedie's

    x_hat = (x_t + sigma_t^2 score(x_t, t)) / alpha_t,

and a critic D of clean examples, which sees no noise level, judges it:

    critic  lambda_D L_D(D(x_0), D(x_hat)),
    score   lambda_score L(score) + lambda_adversarial L_G(D(x_0), D(x_hat)).

x_hat is a mean over all data that x_t may have come from, not one of them, and blurred where the noise is large: the
second line is a heuristic, and its minimum is not the score. The losses L_D and L_G are `AdversarialLoss`es, named as
in the literature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.losses.denoising import Draw, Objective
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.score.guidance import clock
from scorefield.score.score import Score, tweedie


class AdversarialLoss(ABC):
    """What the two players minimise, from r = D(x_0) and f = D(x_hat), one number per example each.

    The average relativistic losses compare with the mean of the other kind over the batch at hand: with several
    processes or micro-batches that is the part which each of them sees. m_r and m_f are those means.
    """

    @abstractmethod
    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D of each pair.

        Args:
            real: r, (B,).
            fake: f, (B,).

        Returns:
            One value per example, (B,).
        """

    @abstractmethod
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G of each pair; arguments and value as for `critic`."""


@record
class GAN(AdversarialLoss):
    """Cross entropy, not saturating (Goodfellow et al. 2014, section 3): D is the log odds that x is data."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """ln(1 + e^-r) + ln(1 + e^f)."""
        return softplus(-real) + softplus(fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """ln(1 + e^-f)."""
        return softplus(-fake)


@record
class WGAN(AdversarialLoss):
    """The difference of means, without clipping or penalty (Arjovsky et al. 2017, eq. 2).

    It bounds a distance only where the critic is Lipschitz, as spectral normalisation makes `BigGANCritic`; any other
    critic can grow without end.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """f - r."""
        return fake - real

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-f."""
        return -fake


@record
class HingeGAN(AdversarialLoss):
    """Margins for the critic, the mean for the score (Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 - r) + max(0, 1 + f)."""
        return relu(1.0 - real) + relu(1.0 + fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-f."""
        return -fake


@record
class RpGAN(AdversarialLoss):
    """Cross entropy of pairs: how much more real than its partner (Jolicoeur-Martineau 2019, eq. 6 and 7), twice."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """2 ln(1 + e^-(r - f))."""
        return 2.0 * softplus(fake - real)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """2 ln(1 + e^-(f - r))."""
        return 2.0 * softplus(real - fake)


@record
class RaGAN(AdversarialLoss):
    """Cross entropy against the average of the other kind (Jolicoeur-Martineau 2019, eq. 10 and 11)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """ln(1 + e^-(r - m_f)) + ln(1 + e^(f - m_r))."""
        return softplus(fake.mean() - real) + softplus(fake - real.mean())

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """ln(1 + e^(r - m_f)) + ln(1 + e^-(f - m_r))."""
        return softplus(real - fake.mean()) + softplus(real.mean() - fake)


@record
class LSGAN(AdversarialLoss):
    """Least squares with labels 1 for data and -1 for denoised examples (Mao et al. 2017, eq. 2); the published one."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """(r - 1)^2 + (f + 1)^2."""
        return (real - 1.0) ** 2 + (fake + 1.0) ** 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """(f - 1)^2."""
        return (fake - 1.0) ** 2


@record
class SaturatingLSGAN(LSGAN):
    """`LSGAN_sat` of the release, as it is: the score minimises (f + 1)^2, which draws f to the label of a fake."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """(f + 1)^2."""
        return (fake + 1.0) ** 2


@record
class RpLSGAN(AdversarialLoss):
    """Least squares of pairs (Jolicoeur-Martineau 2019, section 4.2), twice."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """2 (r - f - 1)^2."""
        return 2.0 * (real - fake - 1.0) ** 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """2 (f - r - 1)^2."""
        return 2.0 * (fake - real - 1.0) ** 2


@record
class RaLSGAN(AdversarialLoss):
    """Least squares against the average of the other kind (Jolicoeur-Martineau 2019, section 4.2)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """(r - m_f - 1)^2 + (f - m_r + 1)^2."""
        return (real - fake.mean() - 1.0) ** 2 + (fake - real.mean() + 1.0) ** 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """(r - m_f + 1)^2 + (f - m_r - 1)^2."""
        return (real - fake.mean() + 1.0) ** 2 + (fake - real.mean() - 1.0) ** 2


@record
class RaHingeGAN(AdversarialLoss):
    """Margins against the average of the other kind (Jolicoeur-Martineau 2019, section 4.2)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 - (r - m_f)) + max(0, 1 + (f - m_r))."""
        return relu(1.0 - real + fake.mean()) + relu(1.0 + fake - real.mean())

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 + (r - m_f)) + max(0, 1 - (f - m_r))."""
        return relu(1.0 + real - fake.mean()) + relu(1.0 - fake + real.mean())


# ---------------------------------------------------------------------------------------------------- the two players


class Judge(nn.Module):
    """A critic of two batches by one call, so that a distributed wrapper around it sees one forward pass.

    Each batch keeps its own statistics where the critic has a batch normalisation.

    Args:
        critic: Maps (B, *event) to (B,).
    """

    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """(D(real), D(fake)), (B,) each."""
        return self.critic(real), self.critic(fake)


@dataclass(frozen=True)
class CriticObjective(Objective):
    """lambda L_D(D(x_0), D(x_hat)), of which the critic's weights are trained; the score only makes x_hat.

    Args:
        objective: The score's own; times and noise are drawn as for it, anew.
        loss: L_D.
        judge: Both calls of D.
        limits: x_hat is clamped to these, model units; None for no clamp.
        weight: lambda_D.
    """

    objective: Objective
    loss: AdversarialLoss
    judge: nn.Module
    limits: tuple[float, float] | None = None
    weight: float = 1.0

    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        return self.objective.draw(process, like, generator)

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`."""
        with torch.no_grad():
            x_t = clock(score).perturb(x0, draw.t, draw.z)
            fake = _clamped(score.denoised(x_t, draw.t, condition), self.limits)
        return self.weight * self.loss.critic(*self.judge(x0, fake))


@dataclass(frozen=True)
class AdversarialScoreMatching(Objective):
    """lambda_score L(score) + lambda_adversarial L_G(D(x_0), D(x_hat)), of which the score's weights are trained.

    x_hat costs no evaluation of its own: it follows from the last score that L evaluated. Where it is clamped no
    gradient flows. `Objective`s are means or sums over an event; lambda_adversarial is relative to that.

    Args:
        objective: L, for instance `DenoisingScoreMatching`.
        loss: L_G.
        judge: Both calls of D; no gradient of its weights is computed.
        limits: x_hat is clamped to these, model units; None for no clamp.
        weight: lambda_adversarial.
        score_weight: lambda_score.
    """

    objective: Objective
    loss: AdversarialLoss
    judge: nn.Module
    limits: tuple[float, float] | None = None
    weight: float = 1.0
    score_weight: float = 1.0

    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        return self.objective.draw(process, like, generator)

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`.

        Raises:
            ValueError: The objective did not evaluate the score.
        """
        heard = _Heard(score)
        own = self.objective(heard, x0, draw, condition)
        if heard.last is None:
            raise ValueError(
                f"{self.objective} evaluated no score, so there is no denoised example to judge; train it alone"
                " (adversary=None), or with DenoisingScoreMatching"
            )
        x_t, t, value = heard.last
        fake = _clamped(tweedie(clock(score), x_t, t, value), self.limits)
        with _frozen(self.judge):
            judged = self.judge(x0, fake)
        return self.score_weight * own + self.weight * self.loss.generator(*judged)


class _Heard(Score):
    """A score that remembers what it was last asked and what it said, with its gradient."""

    def __init__(self, score: Score):
        self.score, self.process = score, score.process
        self.last: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        value = self.score(x, t, condition)
        self.last = (x, t, value)
        return value


def _clamped(x: Tensor, limits: tuple[float, float] | None) -> Tensor:
    return x if limits is None else x.clamp(*limits)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Inside the block a graph is built without the module's weights; the gradient through its input remains."""
    weights = [p for p in module.parameters() if p.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
