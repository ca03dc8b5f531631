"""A run whose process has no transition kernel: its experiment, its model folder, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scorefield._codec import dumps, loads
from scorefield.data import DataSource
from scorefield.losses import Custom, SlicedScoreMatching
from scorefield.models.experiment import Experiment
from scorefield.models.loading import find, open_network
from scorefield.models.model import Model, build_score
from scorefield.models.run_folder import read_experiment
from scorefield.nets import MLP, EnergyMLP
from scorefield.process import VP, GeneralSDE
from scorefield.process.grids import Quadratic
from scorefield.sampling import EulerMaruyama, Sampler
from scorefield.score.energy import EnergyForm
from scorefield.score.parametrisation import LogSigma, NoiseForm, ScaledTime, ScoreForm
from scorefield.training.trainer import train
from training.tiny import tiny


def pull(x: Tensor, t: Tensor) -> Tensor:
    """A drift that is not affine."""
    return -4.0 * x - x**3


def strength(x: Tensor, t: Tensor) -> Tensor:
    """A diffusion that depends on x."""
    return (4.0 + x.sin()).sqrt()


def elapsed(process, t: Tensor) -> Tensor:
    """lambda = t."""
    return t


def simulated() -> Experiment:
    return replace(
        tiny(steps=4, validate_every=4, checkpoint_every=4),
        data=DataSource("scorefield.recipes.points:spiral"),
        spec=None,
        process=GeneralSDE(pull, strength, "diagonal"),
        network=MLP(width=16, depth=1, embedding="positional"),
        form=ScoreForm(),
        time_input=ScaledTime(),
        objective=SlicedScoreMatching(Custom(elapsed), simulation=3),
        sampler=Sampler(EulerMaruyama(), Quadratic(5), final="none"),
    )


def test_a_simulated_process_trains_and_samples_by_its_reverse_sde(tmp_path: Path) -> None:
    """Also from its folder; the score is the network's output, and no posterior mean is made up."""
    experiment = simulated()
    assert loads(dumps(experiment), Experiment, trust=[__name__]) == experiment
    run = train(experiment, tmp_path / "run")
    stored = read_experiment(find(run))
    network, weights, _ = open_network(run, stored, None, "cpu")
    model = Model(stored, network, weights=weights)
    samples = model.sample(3)
    assert samples.x.shape == (3, 2) and not samples.status.any() and int(samples.nfe[0]) == 5
    x, t = torch.randn(3, 2), torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    assert torch.equal(model.score(x, t), network(x, 999.0 * t.float(), None))
    with pytest.raises(ValueError, match="a posterior mean needs alpha and sigma"):
        model.denoise(x, t)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": NoiseForm()}, r"form=ScoreForm\(\)"),
        ({"time_input": LogSigma()}, r"time_input=ScaledTime\(\)"),
        ({"network": EnergyMLP(width=4, depth=1), "form": EnergyForm()}, "alpha = 1; GeneralSDE is not such a process"),
        (
            {"network": EnergyMLP(width=4, depth=1), "form": EnergyForm(), "process": VP()},
            "alpha = 1; VP is not such a process",
        ),
    ],
)
def test_what_is_made_of_scales_that_are_not_there_is_refused(change: dict, message: str) -> None:
    experiment = replace(simulated(), **change)
    with pytest.raises(ValueError, match=message):
        build_score(experiment, torch.nn.Identity())
