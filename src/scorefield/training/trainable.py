"""The modules trained in a run: a score network, optionally with an adversarial critic; or a guidance model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn

from scorefield.data_spec import DataSpec
from scorefield.losses.adversarial import AdversarialScoreMatching, CriticObjective, PairedCritic
from scorefield.losses.sliced import ImplicitScoreMatching, SlicedScoreMatching
from scorefield.models.experiment import Adam, AnyExperiment, Averaging, Experiment, GuideExperiment
from scorefield.models.networks import build_any, build_critic, build_network, build_score, denoised_range
from scorefield.models.weights import trained
from scorefield.nets.network import EnergyNetwork
from scorefield.nets.unets.ncsnpp import UNet
from scorefield.score.energy import EnergyForm
from scorefield.training.checkpoints import TrainableModule
from scorefield.training.ema import Averages

SCORE, CRITIC = "score", "critic"


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why, and what was written."""


def trainable_modules(experiment: AnyExperiment, accelerator: Accelerator) -> tuple[TrainableModule, ...]:
    """The modules that an experiment trains, with freshly drawn weights: the score network, then its critic.

    `experiment.spec` must be filled in. A guidance model is trained alone, in the place of the score.

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
    score = TrainableModule(
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
    limits = denoised_range(adversary, spec)
    critic = _placed(build_critic(experiment, spec), spec, accelerator)
    paired_critic = PairedCritic(critic)
    wrapped_pair = accelerator.prepare_model(paired_critic)
    score.every = adversary.steps
    score.objective = AdversarialScoreMatching(
        experiment.objective, adversary.loss, paired_critic, limits, adversary.weight, adversary.score_weight
    )
    opponent = TrainableModule(
        name=CRITIC,
        network=critic,
        optimiser=adam(trained(critic).values(), adversary.optimiser),
        averages=Averages(critic, Averaging(())),
        rule=adversary.optimiser,
        objective=CriticObjective(experiment.objective, adversary.loss, wrapped_pair, limits, adversary.critic_weight),
        score=build_score(experiment, compiled),  # not the distributed wrapper: no gradient of it is wanted
        wrapped=wrapped_pair,
    )
    return score, opponent


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


def _checkpoint_activations(network: nn.Module) -> None:
    if not isinstance(network, UNet):
        raise TrainingError(
            f"checkpoint_activations=True is for the U-Nets of NCSNpp and DDPM, and the network is a"
            f" {type(network).__name__}; leave it out, or lower the memory of a step with accumulate"
        )
    network.checkpoint_activations = True
