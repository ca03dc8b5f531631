"""A run killed at any instant goes on bit for bit."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scorefield.models.checkpoint_folder import latest_checkpoint
from scorefield.models.run_folder import read_experiment
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.score.parametrisation import LogSigma
from scorefield.training.trainer import TrainingError, train
from training.tiny import TWO_PLAYERS, CrashAt, CrashError, fingerprint, finish, kill_at, start, tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(tiny(), run)
    return fingerprint(run)


@pytest.mark.parametrize("at", [1, 7, 10, 11, 14, 20, 23, 29])
def test_a_crash_after_any_step_changes_nothing(whole: dict, tmp_path: Path, at: int) -> None:
    with pytest.raises(CrashError):
        train(tiny(), tmp_path / "run", observer=CrashAt(at))
    train(tiny(), tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") == whole


def test_two_crashes_and_another_total(whole: dict, tmp_path: Path) -> None:
    """More steps may be asked for on resuming; the numbers are those of a run that had them from the start."""
    with pytest.raises(CrashError):
        train(tiny(steps=25), tmp_path / "run", observer=CrashAt(12))
    with pytest.raises(CrashError):
        train(tiny(steps=30), tmp_path / "run", resume="auto", observer=CrashAt(22))
    train(tiny(steps=30), tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") == whole


@pytest.mark.slow
def test_a_convolutional_network_resumes_too(tmp_path: Path) -> None:
    """Its weights lie in memory channels last, and the fused optimiser walks memory: moments must lie likewise."""
    network = NCSNpp(channels=8, channel_multipliers=(1, 2), blocks=1, attention_sizes=(4,), fourier_scale=2.0)
    experiment = replace(tiny(steps=12, checkpoint_every=5), network=network, time_input=LogSigma())
    train(experiment, tmp_path / "whole")
    with pytest.raises(CrashError):
        train(experiment, tmp_path / "run", observer=CrashAt(7))
    train(experiment, tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_the_comparison_can_fail(whole: dict, tmp_path: Path) -> None:
    """Mutants of resuming: forgotten optimiser moments, forgotten averages, another seed."""
    with pytest.raises(CrashError):
        train(tiny(), tmp_path / "run", observer=CrashAt(15))
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    from scorefield.models.weights import load_tensors, save_tensors

    path = newest / "score.optimiser.safetensors"
    sets, metadata = load_tensors(path)
    sets["exp_avg"] = {name: torch.zeros_like(value) for name, value in sets["exp_avg"].items()}
    save_tensors(path, sets, metadata)
    train(tiny(), tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") != whole
    train(tiny(seed=1), tmp_path / "other")
    assert fingerprint(tmp_path / "other") != whole


def test_a_half_written_checkpoint_is_ignored(whole: dict, tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        train(tiny(), tmp_path / "run", observer=CrashAt(25))
    folder = tmp_path / "run" / "checkpoints"
    (folder / ".step_25.1234.tmp").mkdir()
    (folder / ".step_25.1234.tmp" / "score.safetensors").write_bytes(b"half")
    (folder / "step_99").mkdir()  # whole folders hold state.json; this one does not
    train(tiny(), tmp_path / "run", resume="auto")
    assert fingerprint(tmp_path / "run") == whole


def test_a_changed_experiment_is_refused_by_field(tmp_path: Path) -> None:
    train(tiny(steps=10), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"training\.batch_size: 24 in the run, 12 now"):
        train(tiny(steps=20, batch_size=12), tmp_path / "run", resume="auto")
    with pytest.raises(TrainingError, match="--resume auto"):
        train(tiny(steps=20), tmp_path / "run")


def killed_and_whole(tmp_path: Path, steps: int, at: int, world: int, more: tuple[str, ...] = ()) -> None:
    """The command line, killed without warning and resumed, against the same left alone; all start at once."""
    run = tmp_path / "killed"
    whole = start(tmp_path / "whole", steps, world, more=more)
    kill_at(start(run, steps, world, more=more), run, at)
    finish(start(run, steps, world, more=more))
    finish(whole)
    assert fingerprint(run) == fingerprint(tmp_path / "whole"), f"killed near step {at}"


def test_sigkill_of_the_command_line(tmp_path: Path) -> None:
    """A process killed between two checkpoints, and resumed by this one; other ways to go on are in the slow lane."""
    run, at = tmp_path / "killed", random.SystemRandom().randrange(12, 60)
    kill_at(start(run, 1000), run, at)
    found = read_experiment(run)
    short = replace(found, training=replace(found.training, steps=80))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process that was killed
    try:
        train(short, run, resume="auto")
        train(short, tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert fingerprint(run) == fingerprint(tmp_path / "whole"), f"killed near step {at}"


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), TWO_PLAYERS], ids=["one player", "two players"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_sigkill_at_a_random_step(tmp_path: Path, world: int, more: tuple[str, ...]) -> None:
    killed_and_whole(tmp_path, steps=120, at=random.SystemRandom().randrange(8, 100), world=world, more=more)


@pytest.mark.slow
def test_sigkill_under_torchrun(tmp_path: Path) -> None:
    steps = 120
    finish(start(tmp_path / "whole", steps, 2, torchrun=True))
    run = tmp_path / "killed"
    launched = start(run, steps, 2, torchrun=True)
    kill_at(launched, run, 35)
    finish(start(run, steps, 2, torchrun=True))
    assert fingerprint(run) == fingerprint(tmp_path / "whole")


def test_ctrl_c_saves_and_exits_130(tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = start(run, 2000)
    kill_at(processes, run, 21, signal.SIGINT)
    assert finish(processes) == 130
    state = latest_checkpoint(run)
    assert state is not None and (run / "model.safetensors").is_file()
    assert int(state.name.split("_")[1]) >= 21
