"""Who plays in a run: a score network alone, or with a critic of adversarial score matching beside it; or a guide."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn

from scorefield.data_spec import DataSpec
from scorefield.lab.averages import Averages, trained
from scorefield.lab.checkpoints import Player
from scorefield.lab.experiment import Adam, Adversary, AnyExperiment, Averaging, Experiment, GuideExperiment
from scorefield.lab.opening import build_any, build_network, build_score
from scorefield.losses.adversarial import AdversarialScoreMatching, CriticObjective, Judge
from scorefield.losses.sliced import ImplicitScoreMatching, SlicedScoreMatching
from scorefield.nets.critic import Critic
from scorefield.nets.ncsnpp import UNet
from scorefield.nets.network import EnergyNetwork
from scorefield.process.general import GeneralSDE
from scorefield.score.energy import EnergyForm

SCORE, CRITIC = "score", "critic"


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why, and what was written."""


def players(experiment: AnyExperiment, accelerator: Accelerator) -> tuple[Player, ...]:
    """The players of an experiment whose `spec` is filled in, with freshly drawn weights: the score, then its critic.

    A guide plays alone, in the place of the score.

    Raises:
        TrainingError: The critic does not fit the data, a setting does not fit the network, or an energy is asked of a
            network with several outputs.
    """
    spec, settings = experiment.spec, experiment.training
    assert spec is not None
    torch.manual_seed(settings.seed)  # the same initial weights in every process
    network = build_network(experiment)
    form = experiment.form if isinstance(experiment, Experiment) else None
    if isinstance(form, EnergyForm) and not isinstance(network, EnergyNetwork):
        raise TrainingError(
            f"the form is an energy, one number per example, and {type(experiment.network).__name__} has several"
            " outputs; EnergyMLP takes any shape (--set network=EnergyMLP), EnergyResNet images"
        )
    if settings.compile and (
        isinstance(form, EnergyForm) or isinstance(experiment.objective, ImplicitScoreMatching | SlicedScoreMatching)
    ):
        raise TrainingError(
            "training.compile=true cannot be used here: torch.compile differentiates a network once, and training an"
            " energy, or by a loss with the divergence of the score, does so twice. Leave it out"
        )
    if settings.checkpoint_activations:
        _checkpoint_activations(network)
    network = _placed(network, spec, accelerator)
    compiled: nn.Module = torch.compile(network) if settings.compile else network  # type: ignore[assignment]
    wrapped = accelerator.prepare_model(compiled)
    score = Player(
        name=SCORE,
        network=network,
        optimiser=adam(trained(network).values(), experiment.optimiser),
        averages=Averages(network, experiment.averaging),
        rule=experiment.optimiser,
        objective=experiment.objective,
        score=build_any(experiment, wrapped),
        wrapped=wrapped,
    )
    if isinstance(experiment, GuideExperiment) or experiment.adversary is None:
        return (score,)
    adversary = experiment.adversary
    limits = _limits(adversary, spec)
    critic = _placed(build_critic(experiment, spec), spec, accelerator)
    judge = Judge(critic)
    wrapped_judge = accelerator.prepare_model(judge)
    score.every = adversary.steps
    score.objective = AdversarialScoreMatching(
        experiment.objective, adversary.loss, judge, limits, adversary.weight, adversary.score_weight
    )
    opponent = Player(
        name=CRITIC,
        network=critic,
        optimiser=adam(trained(critic).values(), adversary.optimiser),
        averages=Averages(critic, Averaging(())),
        rule=adversary.optimiser,
        objective=CriticObjective(experiment.objective, adversary.loss, wrapped_judge, limits, adversary.critic_weight),
        score=build_score(experiment, compiled),  # not the distributed wrapper: no gradient of it is wanted
        wrapped=wrapped_judge,
    )
    return score, opponent


def build_critic(experiment: Experiment, spec: DataSpec) -> Critic:
    """The critic of an experiment that has one, for data of this shape.

    Raises:
        TrainingError: It cannot judge such data, or the process makes no denoised examples for it.
    """
    assert experiment.adversary is not None
    if isinstance(experiment.process, GeneralSDE):
        raise TrainingError(
            "the critic judges denoised examples (x_t + sigma^2 score) / alpha, and a GeneralSDE has no one alpha and"
            " sigma; train it without a second player, adversary=None, or on VE, VP, SubVP or Tabulated"
        )
    _limits(experiment.adversary, spec)
    try:
        return experiment.adversary.critic.build(spec)
    except ValueError as error:
        raise TrainingError(
            f"the critic does not fit the data: {error}. MLPCritic takes any shape (--set adversary.critic=MLPCritic)"
        ) from error


def adam(parameters: Iterable[nn.Parameter], rule: Adam) -> torch.optim.Adam:
    """Adam by an experiment's settings; the first decay may be negative.

    m <- beta_1 m + (1 - beta_1) g, v <- beta_2 v + (1 - beta_2) g^2, and a parameter changes by
    -rate / (1 - beta_1^t) m / (sqrt(v / (1 - beta_2^t)) + eps) at update t = 1, 2, ... (Kingma and Ba 2015,
    algorithm 1, which has beta_1 >= 0).
    """
    optimiser = torch.optim.Adam(
        parameters,
        lr=rule.learning_rate,
        betas=(max(rule.beta1, 0.0), rule.beta2),
        eps=rule.eps,
        weight_decay=rule.weight_decay,
        fused=True,
    )
    for group in optimiser.param_groups:
        group["betas"] = (rule.beta1, rule.beta2)  # the constructor refuses what the recursion allows
    return optimiser


def _placed(network: nn.Module, spec: DataSpec, accelerator: Accelerator) -> nn.Module:
    if len(spec.shape) == 3:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(accelerator.device)


def _limits(adversary: Adversary, spec: DataSpec) -> tuple[float, float] | None:
    if adversary.clamp and not spec.bounded:
        raise TrainingError(
            "adversary.clamp=True clamps denoised examples to the range of the data, and these data are unbounded; give"
            " --set adversary.clamp=false"
        )
    return spec.model_range if adversary.clamp else None


def _checkpoint_activations(network: nn.Module) -> None:
    if not isinstance(network, UNet):
        raise TrainingError(
            f"checkpoint_activations=True is for the U-Nets of NCSNpp and DDPM, and the network is a"
            f" {type(network).__name__}; leave it out, or lower the memory of a step with accumulate"
        )
    network.checkpoint_activations = True
