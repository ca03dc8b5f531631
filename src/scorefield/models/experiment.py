"""An experiment as data: everything that decides a training run, in one record that round-trips through JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from scorefield._codec import record, with_field
from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses.adversarial import LSGAN, AdversarialLoss
from scorefield.losses.denoising import DenoisingScoreMatching, Objective
from scorefield.losses.guidance import ConditionLikelihood
from scorefield.nets.critics import BigGANCritic, CriticConfig
from scorefield.nets.guidance import GuideConfig
from scorefield.nets.network import NetworkConfig
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.sampling.sampler import Sampler
from scorefield.score.guidance_model import Answer
from scorefield.score.network import Parametrisation
from scorefield.score.parametrisation import TimeInput


@record
class Adam:
    """Adam with linear warm-up, cosine decay and clipping of the global gradient norm (Kingma and Ba 2015).

    Args:
        learning_rate: After warm-up.
        beta1: Decay of the first moment, in (-1, 1); below zero a step turns against the gradients before it, which
            damps the rotation of two opposed networks (Gidel et al. 2019).
        beta2: Decay of the second moment, in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: L2 penalty, coupled as in the published runs.
        warmup: Steps over which the rate grows from learning_rate / warmup; 0 for none.
        clip: Largest global gradient norm, None for no clipping.
        cosine: Steps over which the rate falls along half a cosine to `least_rate` (MDSM); None keeps it.
        least_rate: Learning rate at the end of the cosine.
    """

    learning_rate: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 5000
    clip: float | None = 1.0
    cosine: int | None = None
    least_rate: float = 1e-6

    def __post_init__(self) -> None:
        if not (-1.0 < self.beta1 < 1.0 and 0.0 <= self.beta2 < 1.0):
            raise ValueError(
                f"beta1={self.beta1} must lie in (-1, 1) and beta2={self.beta2} in [0, 1); the published values are 0.9"
                " and 0.999, and -0.5 and 0.9 for a critic"
            )
        if self.cosine is not None and self.cosine < 1:
            raise ValueError(f"cosine={self.cosine} is a number of steps and must be positive, or None")

    def rate(self, step: int) -> float:
        """Learning rate of the update with number `step`, from 0."""
        rate = self.learning_rate
        if self.cosine is not None:
            fall = 0.5 * (1.0 + math.cos(math.pi * min(step / self.cosine, 1.0)))
            rate = self.least_rate + (rate - self.least_rate) * fall
        return rate * min((step + 1) / self.warmup, 1.0) if self.warmup else rate


@record
class Averaging:
    """Exponential moving averages of the weights.

    Args:
        decays: One average per number.
        warmup: Use min(decay, (1 + n) / (10 + n)) at the n-th update, so that early weights are forgotten.
    """

    decays: tuple[float, ...] = (0.999,)
    warmup: bool = True

    def __post_init__(self) -> None:
        if any(not 0 <= d < 1 for d in self.decays) or len(set(self.decays)) != len(self.decays):
            raise ValueError(f"decays must be different numbers in [0, 1); got {self.decays}")


@record
class Training:
    """How long and how a run trains, and what it writes meanwhile.

    Args:
        steps: Optimiser steps.
        batch_size: Examples per optimiser step, over all processes and micro-batches.
        accumulate: Micro-batches per optimiser step.
        precision: "bf16" runs the network under autocast; weights and optimiser stay float32.
        compile: Compile the network with torch.compile.
        checkpoint_activations: Keep only what passes between a U-Net's blocks for the backward pass and compute the
            rest again: less memory for a third more time, equal gradients.
        dequantise: Train on grey levels with uniform noise inside their bins, (k + u) / levels (NCSN).
        condition_dropout: Probability with which all conditions of an example are made unknown.
        seed: Seed of the initial weights, the data order and all noise.
        max_minutes: Stop, with a checkpoint, after so many minutes of training; None for no limit.
        log_every: Steps between rows of metrics.jsonl.
        validate_every: Steps between validation losses on fixed noise; 0 for never.
        validation_examples: Held-out examples used for it.
        sample_every: Steps between sample grids; 0 for never.
        samples: Samples in a grid.
        sample_steps: Steps of the sampler for those grids; None for the experiment's own sampler.
        checkpoint_every: Steps between checkpoints.
        keep: Checkpoints kept beside the newest; older ones are removed.
        trackers: Also log to these ("tensorboard", "wandb").
    """

    steps: int = 100_000
    batch_size: int = 128
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    checkpoint_activations: bool = False
    dequantise: bool = False
    condition_dropout: float = 0.0
    seed: int = 0
    max_minutes: float | None = None
    log_every: int = 50
    validate_every: int = 1000
    validation_examples: int = 512
    sample_every: int = 0
    samples: int = 36
    sample_steps: int | None = 100
    checkpoint_every: int = 1000
    keep: int = 1
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of accumulate={self.accumulate}")
        for name, least in (
            ("validation_examples", 1),
            ("samples", 1),
            ("keep", 0),
            ("validate_every", 0),
            ("sample_every", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"condition_dropout={self.condition_dropout} must lie in [0, 1)")


@record
class Adversary:
    """The critic of adversarial score matching, a discriminator of denoised examples; see `losses.adversarial`.

    With every default the published one (Jolicoeur-Martineau et al. 2021, released configurations). Relative to the
    score's own loss, a sum over pixels there ("half_sum"), its weight is small.

    Args:
        critic: Configuration of the critic's network.
        loss: The losses of the critic and of the score network.
        optimiser: Optimiser of the critic.
        weight: lambda of the adversarial part of the score's loss.
        score_weight: lambda of the score's own loss.
        critic_weight: lambda of the critic's loss.
        steps: Updates of the critic, each on a batch of its own, for one of the score, on the last of them.
        clamp: Clamp denoised examples to the range of the data before they are judged.
    """

    critic: CriticConfig = BigGANCritic()
    loss: AdversarialLoss = LSGAN()
    optimiser: Adam = Adam(learning_rate=1e-4, beta1=-0.5, beta2=0.9, warmup=0, clip=None)
    weight: float = 1.0
    score_weight: float = 1.0
    critic_weight: float = 1.0
    steps: int = 1
    clamp: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: the critic is updated at least once for each update of the score")
        for name in ("weight", "score_weight", "critic_weight"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a finite number, not negative")


@record
class Experiment:
    """Everything that determines a run.

    Args:
        name: Name of the recipe.
        data: The data source and its preprocessing.
        process: The noise process. A `GeneralSDE` takes a network whose output is the score itself, form=ScoreForm().
        network: The network's configuration.
        form: Parametrisation: the meaning of the network's output.
        time_input: The number by which the network is conditioned on the noise level.
        objective: The training objective.
        sampler: The default sampler.
        optimiser: Optimiser of the network.
        averaging: Exponential moving averages of its weights.
        training: Length and settings of the training run.
        levels: The table of a model trained on a discrete ladder of a continuous process, else None.
        spec: What the data are; filled in when they are opened, stated beforehand where the recipe's source fixes it.
        source: Paper, table or configuration it reproduces.
        paper: Published numbers of that configuration.
        adversary: The critic of adversarial score matching; None for none.
    """

    name: str
    data: DataSource
    process: Process | GeneralSDE
    network: NetworkConfig
    form: Parametrisation
    time_input: TimeInput
    objective: Objective = DenoisingScoreMatching()
    sampler: Sampler = Sampler()
    optimiser: Adam = Adam()
    averaging: Averaging = Averaging()
    training: Training = Training()
    levels: Tabulated | None = None
    spec: DataSpec | None = None
    source: str | None = None
    paper: dict[str, float] | None = None
    adversary: Adversary | None = None

    def with_fields(self, changes: Mapping[str, Any]) -> Experiment:
        """A copy with some fields changed.

            experiment.with_fields({"training.steps": 100, "network.channels": 64, "process": sf.VP()})

        Args:
            changes: Dotted path of a field -> its new value, or the text that `--set` takes.

        Raises:
            CodecError: There is no such field (near matches are named), or the value does not fit its type.
        """
        changed = self
        for path, value in changes.items():
            changed = with_field(changed, path, value)
        return changed


@record
class GuideExperiment:
    """Everything that determines the training of a guidance model p_t(y | x_t); see `score.guidance_model`.

    Args:
        name: What to call it.
        data: Examples with labels.
        process: The noise process: the model's, or the ladder that its network was trained on.
        network: Configuration of the guidance network.
        objective: The training objective.
        optimiser: Optimiser of the network.
        averaging: Exponential moving averages of its weights.
        training: Length and settings of the training run.
        answer: What y is; filled in when the data are opened.
        spec: The data in the model's units, with y as their condition; filled in likewise.
        model: Name of the model.
        model_hash: Hash of its weights, for receipts; a guidance model serves every model of its process and data.
    """

    name: str
    data: DataSource
    process: Process
    network: GuideConfig
    objective: Objective = ConditionLikelihood()
    optimiser: Adam = Adam(learning_rate=1e-3, warmup=100)
    averaging: Averaging = Averaging((0.995,))
    training: Training = Training(steps=2000, batch_size=128, validate_every=250, checkpoint_every=500)
    answer: Answer | None = None
    spec: DataSpec | None = None
    model: str | None = None
    model_hash: str | None = None

    def __post_init__(self) -> None:
        if self.training.sample_every:
            raise ValueError(
                f"sample_every={self.training.sample_every}: a guidance model draws no samples; `scorefield edit class"
                " MODEL`"
                " does, with the trained guidance model"
            )


AnyExperiment = Experiment | GuideExperiment
"""The kinds of experiments that a run folder may hold."""
