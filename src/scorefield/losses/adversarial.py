"""Adversarial score matching (Jolicoeur-Martineau et al. 2021): a critic distinguishes clean from denoised examples.

In addition to its own loss L, the score network is trained so that its denoised examples look like data. The score that
L evaluates also gives the expected denoised example by Tweedie's formula,

    x_hat = (x_t + sigma_t^2 score(x_t, t)) / alpha_t,

and a critic (discriminator) D, which is not conditioned on the noise level, compares it with clean data x_0. The two
networks minimise

    critic  lambda_D L_D(D(x_0), D(x_hat)),
    score   lambda_score L(score) + lambda_adversarial L_G(D(x_0), D(x_hat)).

x_hat is the mean over all data from which x_t may have come, not one of them, so it is blurred where the noise is
large. The adversarial term is therefore a heuristic, and the minimum of the second line is not the exact score. The
pairs of losses L_D and L_G are the subclasses of `AdversarialLoss`, named as in the literature.
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
from scorefield.score.guidance import noise_process
from scorefield.score.score import Score, tweedie


class AdversarialLoss(ABC):
    """The losses L_D of the critic and L_G of the score network, as functions of r = D(x_0) and f = D(x_hat).

    The relativistic average losses compare each r with m_f and each f with m_r, the means of f and r over the batch.
    With several processes or micro-batches, these are the means over the part of the batch in one process.
    """

    @abstractmethod
    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D, the loss of the critic, of each pair.

        Args:
            real: r, (B,).
            fake: f, (B,).

        Returns:
            One value per example, (B,).
        """

    @abstractmethod
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G, the adversarial loss of the score network, of each pair.

        Args:
            real: r, (B,).
            fake: f, (B,).

        Returns:
            One value per example, (B,).
        """


@record
class GAN(AdversarialLoss):
    """The non-saturating cross-entropy loss (Goodfellow et al. 2014, section 3); D is the log odds that x is data."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = ln(1 + e^-r) + ln(1 + e^f)."""
        return softplus(-real) + softplus(fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = ln(1 + e^-f)."""
        return softplus(-fake)


@record
class WGAN(AdversarialLoss):
    """The Wasserstein loss, a difference of means without clipping or penalty (Arjovsky et al. 2017, eq. 2).

    It bounds a distance only where the critic is Lipschitz, as spectral normalisation makes `BigGANCritic`. The output
    of any other critic can grow without bound.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = f - r."""
        return fake - real

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = -f."""
        return -fake


@record
class HingeGAN(AdversarialLoss):
    """The hinge loss for the critic, the mean for the score (Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = max(0, 1 - r) + max(0, 1 + f)."""
        return relu(1.0 - real) + relu(1.0 + fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = -f."""
        return -fake


@record
class RpGAN(AdversarialLoss):
    """The relativistic paired cross-entropy loss (Jolicoeur-Martineau 2019, eq. 6 and 7), multiplied by 2."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = 2 ln(1 + e^-(r - f))."""
        return 2.0 * softplus(fake - real)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = 2 ln(1 + e^-(f - r))."""
        return 2.0 * softplus(real - fake)


@record
class RaGAN(AdversarialLoss):
    """The relativistic average cross-entropy loss (Jolicoeur-Martineau 2019, eq. 10 and 11)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = ln(1 + e^-(r - m_f)) + ln(1 + e^(f - m_r))."""
        return softplus(fake.mean() - real) + softplus(fake - real.mean())

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = ln(1 + e^(r - m_f)) + ln(1 + e^-(f - m_r))."""
        return softplus(real - fake.mean()) + softplus(real.mean() - fake)


@record
class LSGAN(AdversarialLoss):
    """The least-squares loss with labels 1 for data and -1 for denoised examples (Mao et al. 2017, eq. 2).

    This is the loss of the published models.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = (r - 1)^2 + (f + 1)^2."""
        return (real - 1.0) ** 2 + (fake + 1.0) ** 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = (f - 1)^2."""
        return (fake - 1.0) ** 2


@record
class SaturatingLSGAN(LSGAN):
    """`LSGAN_sat` of the published code, reproduced as released.

    The score network minimises (f + 1)^2, which drives f towards -1, the label of denoised examples, instead of 1.
    """

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = (f + 1)^2."""
        return (fake + 1.0) ** 2


@record
class RpLSGAN(AdversarialLoss):
    """The relativistic paired least-squares loss (Jolicoeur-Martineau 2019, section 4.2), multiplied by 2."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = 2 (r - f - 1)^2."""
        return 2.0 * (real - fake - 1.0) ** 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = 2 (f - r - 1)^2."""
        return 2.0 * (fake - real - 1.0) ** 2


@record
class RaLSGAN(AdversarialLoss):
    """The relativistic average least-squares loss (Jolicoeur-Martineau 2019, section 4.2)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = (r - m_f - 1)^2 + (f - m_r + 1)^2."""
        return (real - fake.mean() - 1.0) ** 2 + (fake - real.mean() + 1.0) ** 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = (r - m_f + 1)^2 + (f - m_r - 1)^2."""
        return (real - fake.mean() + 1.0) ** 2 + (fake - real.mean() - 1.0) ** 2


@record
class RaHingeGAN(AdversarialLoss):
    """The relativistic average hinge loss (Jolicoeur-Martineau 2019, section 4.2)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = max(0, 1 - (r - m_f)) + max(0, 1 + (f - m_r))."""
        return relu(1.0 - real + fake.mean()) + relu(1.0 + fake - real.mean())

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = max(0, 1 + (r - m_f)) + max(0, 1 - (f - m_r))."""
        return relu(1.0 + real - fake.mean()) + relu(1.0 - fake + real.mean())


# ---------------------------------------------------------------------------------------------------- the objectives


class PairedCritic(nn.Module):
    """Evaluates a critic on a clean and on a denoised batch in one forward pass.

    DistributedDataParallel expects one forward pass per backward pass. The batches are not concatenated, so that a
    batch normalisation in the critic computes its statistics for each of them.

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
    """lambda_D L_D(D(x_0), D(x_hat)), the objective of the critic.

    Only the critic is trained: x_hat is computed without a gradient.

    Args:
        objective: The objective of the score network. Fresh times and noise are drawn from the same distribution.
        loss: The adversarial loss, of which L_D is used.
        paired_critic: D, as a `PairedCritic` or a distributed wrapper around one.
        limits: Range in model units to which x_hat is clamped; None for no clamp.
        weight: lambda_D.
    """

    objective: Objective
    loss: AdversarialLoss
    paired_critic: nn.Module
    limits: tuple[float, float] | None = None
    weight: float = 1.0

    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        return self.objective.draw(process, like, generator)

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`."""
        with torch.no_grad():
            x_t = noise_process(score).perturb(x0, draw.t, draw.z)
            fake = _clamped(score.denoised(x_t, draw.t, condition), self.limits)
        return self.weight * self.loss.critic(*self.paired_critic(x0, fake))


@dataclass(frozen=True)
class AdversarialScoreMatching(Objective):
    """lambda_score L(score) + lambda_adversarial L_G(D(x_0), D(x_hat)), the objective of the score network.

    x_hat needs no additional network evaluation: it is computed from the last score that L evaluated. No gradient
    flows through coordinates of x_hat that are clamped. L is a mean or a sum over the numbers of an event, depending on
    its `reduce`, and a suitable lambda_adversarial depends on which.

    Args:
        objective: L, for instance `DenoisingScoreMatching`.
        loss: The adversarial loss, of which L_G is used.
        paired_critic: D, as a `PairedCritic`; no gradient of its weights is computed.
        limits: Range in model units to which x_hat is clamped; None for no clamp.
        weight: lambda_adversarial.
        score_weight: lambda_score.
    """

    objective: Objective
    loss: AdversarialLoss
    paired_critic: nn.Module
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
        recording = _RecordingScore(score)
        matching = self.objective(recording, x0, draw, condition)
        if recording.last is None:
            raise ValueError(
                f"{self.objective} evaluated no score, so there is no denoised example for the critic; train without"
                " a critic (adversary=None), or use DenoisingScoreMatching"
            )
        x_t, t, value = recording.last
        fake = _clamped(tweedie(noise_process(score), x_t, t, value), self.limits)
        with _frozen(self.paired_critic):
            r, f = self.paired_critic(x0, fake)
        return self.score_weight * matching + self.weight * self.loss.generator(r, f)


class _RecordingScore(Score):
    """A score that stores its last input and its last value, with the gradient of the value."""

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
    """Exclude a module's weights from the autograd graph inside the block; the gradient of its input remains."""
    weights = [p for p in module.parameters() if p.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
