"""Trained guidance models, and models guided by them or by their own conditions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import nn

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.metrics import module_hash
from scorefield.models.experiment import Experiment, GuideExperiment
from scorefield.models.loading import open_network
from scorefield.models.model_card import units
from scorefield.models.networks import build_any
from scorefield.models.run_folder import read_any
from scorefield.process.process import Process
from scorefield.score.guidance import ClassifierFree, Guided, check_scale, noise_process
from scorefield.score.guidance_model import Answer, NetworkGuide
from scorefield.score.score import Score


@record
class Guidance:
    """Guidance of a model, for receipts.

    Args:
        scale: Guidance scale.
        guide: Name of the guidance model; None for classifier-free guidance.
        guide_hash: Hash of the weights of the guidance model.
    """

    scale: float
    guide: str | None = None
    guide_hash: str | None = None


@dataclass(frozen=True)
class Guide:
    """A trained guidance model p_t(y | x_t), as `load_guide` returns it.

    Args:
        experiment: The experiment, with `spec` and `answer` filled in.
        network: The network in evaluation mode.
        weights: Name of the weights that the network holds.
        name: Name of its folder.
        step: Training step of the weights.
    """

    experiment: GuideExperiment
    network: nn.Module
    weights: str
    name: str
    step: int | None

    @property
    def answer(self) -> Answer:
        """Description of y."""
        assert self.experiment.answer is not None
        return self.experiment.answer

    @property
    def hash(self) -> str:
        """Hash of the weights in use, for receipts."""
        return module_hash(self.network)

    def as_score(self) -> NetworkGuide:
        """grad_x log p_t(y | x); by hand, Guided(score, guide.as_score().log_prob, names=(guide.answer.name,))."""
        made = build_any(self.experiment, self.network)
        assert isinstance(made, NetworkGuide)
        return made

    def check(self, model: str, process: Process, data: DataSpec) -> None:
        """Check that a model's noisy examples are those that the guidance model was trained on.

        Args:
            model: Its name.
            process: Its process, or the ladder its network was trained on.
            data: Its data.

        Raises:
            ValueError: Another process, or another shape or other units of the data.
        """
        spec = self.experiment.spec
        assert spec is not None
        made_for = f"the guidance model {self.name} was trained for {self.experiment.model}"
        again = f"train one for this model: scorefield train-guide {model}"
        if spec.shape != data.shape:
            raise ValueError(f"{made_for} with examples of shape {spec.shape}; {model} has {data.shape}; {again}")
        if _units(spec) != _units(data):
            raise ValueError(f"{made_for} in the units {units(spec)}; {model} has {units(data)}; {again}")
        if self.experiment.process != process:
            raise ValueError(
                f"{made_for} under the process {self.experiment.process}; {model} has {process}, and what one calls the"
                f" noise of time t the other does not; {again}"
            )


def _units(spec: DataSpec) -> DataSpec:
    return replace(spec, conditions=(), channel_names=None, units=None)


def load_guide(
    folder: str | Path,
    *,
    weights: str | None = None,
    device: str | torch.device | None = None,
    trust: Collection[str] = (),
) -> Guide:
    """Load the folder of a guidance model, written by `scorefield train-guide`.

    Args:
        folder: Its path.
        weights: "raw", "ema", "ema:0.995", ...; by default the first average.
        device: Default: the first accelerator, else the CPU; that of the model it is to guide.
        trust: Code outside scorefield that the folder may name; see `load`.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no weights yet.
        ValueError: The folder is that of a model.
        WeightsError: Weights missing, truncated, or of another architecture.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder} of a guidance model; `scorefield train-guide MODEL` makes one"
        )
    experiment = read_any(path, trust)
    if not isinstance(experiment, GuideExperiment):
        raise ValueError(
            f"{folder} is a model and no guidance model; `scorefield train-guide {folder}` trains one for it"
        )
    network, name, step = open_network(path, experiment, weights, device)
    return Guide(experiment, network, name, path.resolve().name, step)


class CanBeGuided:
    """Guidance of a model's samples to a condition."""

    experiment: Experiment
    data: DataSpec
    name: str
    guidance: tuple[Guidance, ...] = ()
    _score: Score
    _flow: Score

    @property
    def unconditional(self) -> bool:
        """Whether the model knows the distribution of the data with every condition unknown."""
        spec = self.experiment.spec
        return spec is None or not spec.conditions or self.experiment.training.condition_dropout > 0.0

    def guided(self, guide: Guide | None = None, scale: float = 1.0) -> Self:
        """This model with a guided score, in all that it does; the condition to guide to is given as always.

            model.guided(guide, scale=2.0).sample(16, condition={"class": 3})

        Args:
            guide: Adds scale times grad log p_t(y | x) to the score, which is not conditioned on y. None is
                classifier-free: from the score of no condition to that of the condition, and beyond, by a model trained
                with drop-out.
            scale: 0 is no guidance, 1 the distribution of x given y, more insists on y.

        Raises:
            ValueError: The guidance model is of another process or of other data, or the model knows no unconditional
                score.
        """
        check_scale(scale)
        return self._by_conditions(scale) if guide is None else self._by_guide(guide, scale)

    def _by_conditions(self, scale: float) -> Self:
        if not self.data.conditions:
            raise ValueError(
                f"{self.name} knows no conditions, so it has no classifier-free guidance; train a guidance model,"
                f" `scorefield train-guide {self.name}`, and give it: model.guided(sf.load_guide(FOLDER), scale)"
            )
        if not self.unconditional and scale != 1.0:
            raise ValueError(
                f"{self.name} was trained with every condition known, and classifier-free guidance compares with the"
                " score of no condition; train with training.condition_dropout=0.1, or use scale=1"
            )
        return self._following(lambda score: ClassifierFree(score, scale), self.data, Guidance(scale))

    def _by_guide(self, guide: Guide, scale: float) -> Self:
        guide.check(self.name, noise_process(self._score), self.data)
        spec, likelihood = guide.answer.spec, guide.as_score()
        others = tuple(c for c in self.data.conditions if c.name != spec.name)
        if not self.unconditional and len(others) < len(self.data.conditions):
            raise ValueError(
                f"{self.name} was trained with {spec.name!r} always known, so it has no score without it that a guide"
                " could add to; give it the condition itself, without a guide"
            )

        def wrap(score: Score) -> Score:
            return Guided(score, likelihood.under(noise_process(score)).log_prob, scale, names=(spec.name,))

        told = replace(self.data, conditions=(*others, spec))
        return self._following(wrap, told, Guidance(scale, guide.name, guide.hash))

    def _following(self, wrap: Callable[[Score], Score], data: DataSpec, guidance: Guidance) -> Self:
        """A copy of this model with a score made from its own."""
        made = copy.copy(self)
        made.data, made.guidance = data, (*self.guidance, guidance)
        made._score, made._flow = wrap(self._score), wrap(self._flow)
        return made
