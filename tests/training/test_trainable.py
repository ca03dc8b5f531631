"""Two players in one run: whose turn it is, what each keeps, and that a crash changes neither."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from scorefield._codec import dumps, loads, with_field
from scorefield.data import open_data
from scorefield.losses import RaLSGAN, SlicedScoreMatching
from scorefield.models.checkpoint_folder import latest_checkpoint
from scorefield.models.description import describe_experiment
from scorefield.models.experiment import Adam, Adversary, Experiment
from scorefield.models.networks import build_critic
from scorefield.models.run_folder import read_metrics
from scorefield.models.weights import WeightsError, load_tensors, save_tensors
from scorefield.nets import BigGANCritic, DCGANCritic
from scorefield.process import GeneralSDE, TimeLimits
from scorefield.recipes import recipe
from scorefield.score.parametrisation import ScaledTime, ScoreForm
from scorefield.training.trainable import TrainingError, adam, trainable_modules
from scorefield.training.trainer import train
from tolerance import FLOAT32
from training.tiny import CrashAt, CrashError, fingerprint, tiny, two_players

SHORT: dict[str, Any] = {"steps": 6, "batch_size": 8, "log_every": 4, "validate_every": 0, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with a critic that is updated twice a step."""
    return train(two_players(**SHORT), tmp_path_factory.mktemp("whole") / "run")


def sets_of(run: Path, name: str) -> dict[str, dict[str, Tensor]]:
    newest = latest_checkpoint(run)
    assert newest is not None
    return load_tensors(newest / f"{name}.safetensors")[0]


def test_both_are_kept_and_logged(whole: Path) -> None:
    rows = read_metrics(whole)
    assert [row["step"] for row in rows] == [4, 6]
    for row in rows:
        assert 0.0 < row["critic_loss"] < 8.0 and row["critic_grad_norm"] > 0.0 and row["loss"] > 0.0
    # The critic's rate belongs to its twelfth update, beyond its warm-up of five, and the score's to its sixth.
    assert rows[-1]["critic_lr"] == 1e-3 and rows[-1]["lr"] == 1e-3 and rows[0]["lr"] == pytest.approx(0.8e-3)
    assert rows[-1]["epoch"] == pytest.approx(6 * 2 * 8 / len(open_data(two_players().data).train))
    updates = {name: next(iter(sets_of(whole, f"{name}.optimiser")["step"].values())) for name in ("score", "critic")}
    assert (float(updates["score"]), float(updates["critic"])) == (6.0, 12.0)
    assert not [name for name in sets_of(whole, "critic") if name.startswith("ema")]
    assert "critic" in (whole / "README.md").read_text()
    assert not [key for key in load_tensors(whole / "model.safetensors")[0]["raw"] if key.startswith("model.")]


@pytest.mark.parametrize("at", [2, 5])
def test_a_crash_changes_neither_player(whole: Path, tmp_path: Path, at: int) -> None:
    with pytest.raises(CrashError):
        train(two_players(**SHORT), tmp_path / "run", observer=CrashAt(at))
    train(two_players(**SHORT), tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert "critic.optimiser.safetensors" in fingerprint(whole)


@pytest.mark.slow
def test_buffers_of_a_critic_resume_too(tmp_path: Path) -> None:
    """Means of a batch normalisation, which no optimiser changes."""
    experiment = two_players(1, **SHORT)
    assert experiment.adversary is not None
    experiment = replace(experiment, adversary=replace(experiment.adversary, critic=DCGANCritic(channels=2)))
    train(experiment, tmp_path / "whole")
    with pytest.raises(CrashError):
        train(experiment, tmp_path / "run", observer=CrashAt(3))
    train(experiment, tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    assert any("running_mean" in name for name in sets_of(tmp_path / "run", "critic")["fixed"])


def test_a_forgotten_critic_is_seen(whole: Path, tmp_path: Path) -> None:
    """Mutant of resuming: the critic's moments at zero change both players; its file missing is an error."""
    with pytest.raises(CrashError):
        train(two_players(**SHORT), tmp_path / "run", observer=CrashAt(5))
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    path = newest / "critic.optimiser.safetensors"
    sets, metadata = load_tensors(path)
    sets["exp_avg"] = {name: torch.zeros_like(value) for name, value in sets["exp_avg"].items()}
    save_tensors(path, sets, metadata)
    train(two_players(**SHORT), tmp_path / "run", resume="auto")
    mutant, right = fingerprint(tmp_path / "run"), fingerprint(whole)
    assert mutant["critic.safetensors"] != right["critic.safetensors"]
    assert mutant["score.safetensors"] != right["score.safetensors"]
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    (newest / "critic.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"critic\.safetensors"):
        train(two_players(**{**SHORT, "steps": 8}), tmp_path / "run", resume="auto")


def test_a_critic_without_weight_changes_nothing(tmp_path: Path) -> None:
    """Its noise is its own: the score then trains as it does alone; with a weight it does not."""
    weights = []
    for weight in (None, 0.0, 1.0):
        experiment = two_players(1, **SHORT)
        assert experiment.adversary is not None
        adversary = None if weight is None else replace(experiment.adversary, weight=weight)
        run = train(replace(experiment, adversary=adversary), tmp_path / str(weight))
        weights.append(torch.cat([w.flatten() for w in sets_of(run, "score")["raw"].values()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_checkpoints_of_one_player_are_still_read(tmp_path: Path) -> None:
    """Schema 1 kept the sums of the only player without its name."""
    train(tiny(**SHORT), tmp_path / "whole")
    with pytest.raises(CrashError):
        train(tiny(**SHORT), tmp_path / "run", observer=CrashAt(3))
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    state = json.loads((newest / "state.json").read_text())
    assert state["schema"] == 2 and sum(map(sum, state["sums"]["score"]["rows"])) > 0.0
    (newest / "state.json").write_text(json.dumps({**state, "schema": 1, "sums": state["sums"]["score"]}))
    train(tiny(**SHORT), tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


# ---------------------------------------------------------------------------------------------------- the optimiser


def moved(beta1: float) -> Tensor:
    """Five published steps of Adam with these decays, by the recursion in float64."""
    p, m, v = (torch.zeros(7, dtype=torch.float64) for _ in range(3))
    for t in range(1, 6):
        g = gradient(t)
        m, v = beta1 * m + (1 - beta1) * g, 0.9 * v + 0.1 * g**2
        p = p - 0.01 / (1 - beta1**t) * m / ((v / (1 - 0.9**t)).sqrt() + 1e-8)
    return p


def gradient(t: int) -> Tensor:
    return torch.randn(7, generator=torch.Generator().manual_seed(t), dtype=torch.float64)


@pytest.mark.parametrize("beta1", [-0.5, 0.0, 0.9])
def test_adam_with_a_negative_first_decay(beta1: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(7))
    optimiser = adam([parameter], Adam(learning_rate=0.01, beta1=beta1, beta2=0.9, warmup=0))
    for t in range(1, 6):
        parameter.grad = gradient(t).float()
        optimiser.step()
    value = parameter.detach().double()
    torch.testing.assert_close(value, moved(beta1), rtol=FLOAT32, atol=FLOAT32)
    assert float((value - moved(beta1 - 0.1)).abs().max()) > 100 * FLOAT32  # the comparison can fail


@pytest.mark.parametrize("beta1", [-1.0, 1.0, float("nan")])
def test_decays_outside_their_range_are_refused(beta1: float) -> None:
    with pytest.raises(ValueError, match=r"beta1=.* must lie in \(-1, 1\)"):
        Adam(beta1=beta1)


# ---------------------------------------------------------------------------------------------------- as data


def test_an_adversary_is_data() -> None:
    experiment = replace(two_players(), adversary=Adversary(loss=RaLSGAN(), steps=3))
    assert loads(dumps(experiment), Experiment) == experiment
    old = json.loads(dumps(tiny()))
    del old["value"]["adversary"]  # as written before there were critics
    assert loads(json.dumps(old), Experiment) == tiny()
    by_words = with_field(with_field(tiny(), "adversary", "Adversary"), "adversary.loss", "RaLSGAN")
    assert by_words.adversary == Adversary(loss=RaLSGAN())
    published = Adversary()
    assert (published.optimiser.beta1, published.optimiser.beta2, published.optimiser.warmup) == (-0.5, 0.9, 0)
    with pytest.raises(ValueError, match="steps=0"):
        Adversary(steps=0)
    with pytest.raises(ValueError, match="weight=-1"):
        Adversary(weight=-1.0)


def test_describe_shows_both() -> None:
    lines = "\n".join(describe_experiment(recipe("acsm-cifar10-unet-adversarial")))
    assert "network: 33,185,411 parameters" in lines
    assert "critic: 4,204,801 parameters (4,204,801 trained), 2 updates for one of the network" in lines
    assert "loss: LSGAN" in lines and "beta1 = -0.5" in lines


@pytest.mark.parametrize("name", ["acsm-cifar10", "acsm-cifar10-unet", "acsm-church", "acsm-stackedmnist"])
def test_published_adversarial_runs(name: str) -> None:
    """The twin's network, ladder and sampler; betas (0, 0.9) and (-0.5, 0.9), the file's rate for both, lambdas 1."""
    alone, both = recipe(name), recipe(f"{name}-adversarial")
    adversary = both.adversary
    assert adversary is not None and both.optimiser == replace(alone.optimiser, beta1=0.0, beta2=0.9)
    assert adversary.optimiser == Adam(1e-4, -0.5, 0.9, alone.optimiser.eps, warmup=0, clip=None)
    assert adversary == Adversary(optimiser=adversary.optimiser, steps=2 if "unet" in name else 1)
    differ = {name: getattr(alone, name) for name in ("name", "optimiser", "adversary", "source", "paper")}
    assert replace(both, **differ) == alone
    assert both.spec is not None
    with torch.device("meta"):
        assert sum(p.numel() for p in build_critic(both, both.spec).parameters()) in (4_204_801, 19_542_721)


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"critic": BigGANCritic()}, r"critic does not fit the data: .*28, 32, 64.*\(1, 8, 8\).*MLPCritic"),
        ({"critic": DCGANCritic(style="sngan", channels=1), "clamp": True}, None),
    ],
)
def test_a_critic_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str | None
) -> None:
    experiment = two_players(**SHORT)
    assert experiment.adversary is not None
    experiment = replace(experiment, adversary=replace(experiment.adversary, **change))
    if message is None:
        assert experiment.spec is not None
        build_critic(experiment, experiment.spec)
        return
    with pytest.raises(ValueError, match=message):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def drift(x: Tensor, t: Tensor) -> Tensor:
    return -x


def diffusion(x: Tensor, t: Tensor) -> Tensor:
    return torch.ones_like(t)


def test_unbounded_data_and_general_processes_are_refused() -> None:
    points = replace(recipe("points-2d"), adversary=two_players().adversary)
    points = replace(points, spec=open_data(points.data).spec)
    with pytest.raises(ValueError, match=r"unbounded.*adversary\.clamp=false"):
        trainable_modules(points, Accelerator(cpu=True))
    assert points.adversary is not None
    free = replace(points, adversary=replace(points.adversary, clamp=False))
    assert [p.name for p in trainable_modules(free, Accelerator(cpu=True))] == ["score", "critic"]
    limits = TimeLimits(1e-3, 1e-3, 1e-3)
    general = GeneralSDE(drift, diffusion, affine=True, state_dependent=False, t_min=limits)
    with pytest.raises(ValueError, match="GeneralSDE has no one alpha"):
        trainable_modules(
            replace(free, process=general, form=ScoreForm(), time_input=ScaledTime()), Accelerator(cpu=True)
        )


def test_compiling_what_is_differentiated_twice_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    sliced = replace(tiny(**SHORT), objective=SlicedScoreMatching())
    energy = recipe("digits-energy")
    for experiment in (sliced, energy):
        compiled = replace(experiment, training=replace(experiment.training, compile=True))
        with pytest.raises(TrainingError, match=r"training\.compile=true.*twice"):
            train(compiled, tmp_path / "run")
    assert not (tmp_path / "run").exists()
