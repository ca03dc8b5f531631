"""From an experiment to its networks: the configured module, the score or guidance model that wraps it, its critic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from scorefield.data_spec import DataSpec
from scorefield.models.experiment import Adversary, AnyExperiment, Experiment, GuideExperiment
from scorefield.nets.critics import Critic
from scorefield.process.general import GeneralSDE
from scorefield.score.energy import NetworkEnergy
from scorefield.score.guidance_model import NetworkGuide
from scorefield.score.network import NetworkScore, network_score
from scorefield.score.parametrisation import LevelLabel, ScaledTime


def build_network(experiment: AnyExperiment) -> nn.Module:
    """The network of an experiment whose `spec` is filled in, with freshly drawn weights (torch's global generator)."""
    assert experiment.spec is not None
    if isinstance(experiment, GuideExperiment):
        assert experiment.answer is not None
        return experiment.network.build(experiment.spec, experiment.answer.outputs)
    return experiment.network.build(experiment.spec)


def build_score(experiment: Experiment, network: nn.Module) -> NetworkScore | NetworkEnergy:
    """The score of an experiment's network, which may be a distributed or compiled wrapper."""
    return network_score(network, experiment.process, experiment.form, experiment.time_input, experiment.levels)


def build_any(experiment: AnyExperiment, network: nn.Module) -> NetworkScore | NetworkEnergy | NetworkGuide:
    """The score or the guidance model that an experiment trains."""
    if isinstance(experiment, GuideExperiment):
        assert experiment.answer is not None
        return NetworkGuide(network, experiment.process, experiment.answer)
    return build_score(experiment, network)


def continuous(experiment: Experiment) -> Experiment:
    """The experiment as the probability flow sees it.

    A VP network trained on DDPM's ladder takes labels between its levels, and then the process's own sigma belongs to
    it: c = (N - 1) t, the paper's linear interpolation (Song et al. 2021, table 2). Any other experiment is returned
        as it is.
    """
    label, levels = experiment.time_input, experiment.levels
    if levels is None or not isinstance(label, LevelLabel) or label.between != "linear" or label.descending:
        return experiment
    return replace(experiment, levels=None, time_input=ScaledTime(levels.levels - 1.0))


def build_critic(experiment: Experiment, spec: DataSpec) -> Critic:
    """The critic of an experiment that has one, for data of this shape.

    Raises:
        ValueError: The critic does not take such data, or the process has no denoised examples.
    """
    assert experiment.adversary is not None
    if isinstance(experiment.process, GeneralSDE):
        raise ValueError(
            "the critic judges denoised examples (x_t + sigma^2 score) / alpha, and a GeneralSDE has no one alpha and"
            " sigma; train it without a critic, adversary=None, or on VE, VP, SubVP or Tabulated"
        )
    denoised_range(experiment.adversary, spec)
    try:
        return experiment.adversary.critic.build(spec)
    except ValueError as error:
        raise ValueError(
            f"the critic does not fit the data: {error}. MLPCritic takes any shape (--set adversary.critic=MLPCritic)"
        ) from error


def denoised_range(adversary: Adversary, spec: DataSpec) -> tuple[float, float] | None:
    """The range in model units to which the critic's denoised examples are clamped; None for no clamping."""
    if adversary.clamp and not spec.bounded:
        raise ValueError(
            "adversary.clamp=True clamps denoised examples to the range of the data, and these data are unbounded; give"
            " --set adversary.clamp=false"
        )
    return spec.model_range if adversary.clamp else None


def meta_network(experiment: Experiment, spec: DataSpec) -> nn.Module:
    """The network on the device "meta", without memory: for counting, and for names and shapes of its tensors.

    It is built from unwritten memory and then moved: computing on "meta" makes torch load its compiler, 0.8 s.
    """
    with torch.device("cpu"), _NoInitialValues():
        return experiment.network.build(spec).to("meta")


class _NoInitialValues(TorchFunctionMode):
    """Random initial values are not drawn: their memory is reserved and stays untouched."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.randn, torch.rand):
            func = torch.empty
        elif func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        return func(*args, **(kwargs or {}))
