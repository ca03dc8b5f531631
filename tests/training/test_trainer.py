"""What a run trains, logs and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield._files import NoSpaceError
from scorefield.data import DataSource, open_data
from scorefield.losses.denoising import Custom, DenoisingScoreMatching
from scorefield.models.experiment import Adam, Averaging
from scorefield.models.model import load
from scorefield.models.run_folder import read_experiment, read_metrics
from scorefield.models.weights import WeightsError
from scorefield.nets.mlp import MLP
from scorefield.training.ema import Averages
from scorefield.training.observer import Silent
from scorefield.training.trainer import TrainingError, train
from tolerance import FLOAT32
from training.tiny import tiny


def test_a_run_folder_is_a_model_folder(tmp_path: Path) -> None:
    run = train(tiny(), tmp_path / "run")
    for name in (
        "experiment.json",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "README.md",
        "checkpoints/latest",
    ):
        assert (run / name).is_file(), name
    assert [p.name for p in sorted((run / "checkpoints").glob("step_*"))] == ["step_10", "step_20", "step_30"]
    rows = read_metrics(run)
    assert [r["step"] for r in rows] == [7, 14, 20, 21, 28, 30]
    assert all(np.isfinite(r["loss"]) for r in rows if "loss" in r)
    assert ["validation" in r for r in rows] == [False, False, True, False, False, True]
    assert all(len(r["loss_bins"]) == len(r["bin_edges"]) - 1 for r in rows if "loss" in r)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["torch"]
    model = load(run)
    assert model.weights == "ema:0.9" and model.step == 30
    assert not torch.equal(
        load(run, weights="raw").score(torch.zeros(1, 1, 8, 8), 0.5), model.score(torch.zeros(1, 1, 8, 8), 0.5)
    )


def test_the_mean_of_the_bins_is_the_loss(tmp_path: Path) -> None:
    """With a batch of 24 per step the bins' counts weigh the bins; a loss of one in every bin has mean one."""

    class Constant(Silent):
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.rows: list[dict] = []

        def step(self, step: int, steps: int, loss: float) -> None:
            self.losses.append(loss)

        def row(self, row: dict) -> None:
            self.rows.append(row)

    seen = Constant()
    train(tiny(), tmp_path / "run", observer=seen)
    first = next(r for r in seen.rows if r["step"] == 7)
    assert first["loss"] == pytest.approx(np.mean(seen.losses[:7]), rel=FLOAT32)


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path) -> None:
    """Without dropout, one batch of 24 and three micro-batches of 8 give the same gradient."""
    models = []
    for parts in (1, 3):
        experiment = tiny(steps=5, accumulate=parts)
        experiment = replace(experiment, network=MLP(width=16, depth=1, embedding="positional"))
        models.append(load(train(experiment, tmp_path / f"run{parts}"), weights="raw"))
    x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    a, b = (m.score(x, 0.5) for m in models)
    # Adam divides by the root of tiny second moments in the first steps, which magnifies rounding.
    torch.testing.assert_close(a, b, rtol=1000 * FLOAT32, atol=1000 * FLOAT32)


def test_training_lowers_the_validation_loss(tmp_path: Path) -> None:
    run = train(tiny(steps=300, validate_every=20, batch_size=64, accumulate=1), tmp_path / "run")
    losses = [r["validation"] for r in read_metrics(run) if "validation" in r]
    assert losses[-1] < 0.9 * losses[0]


def test_bf16_trains(tmp_path: Path) -> None:
    run = train(tiny(steps=10, precision="bf16"), tmp_path / "run")
    assert np.isfinite(read_metrics(run)[-1]["loss"])
    assert next(load(run).network.parameters()).dtype == torch.float32


def test_warm_up() -> None:
    adam = Adam(learning_rate=2.0, warmup=4)
    assert [adam.rate(k) for k in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert replace(adam, warmup=0).rate(0) == 2.0


def test_averages_follow_the_published_warm_up() -> None:
    """d = min(decay, (1 + n) / (10 + n)): 2/11 at the first step, 11/20 at the tenth (score-SDE's rule)."""
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    averages = Averages(net, Averaging((0.999, 0.5)))
    net.weight.data.fill_(1.0)
    expected = {0.999: 0.0, 0.5: 0.0}
    for n in range(1, 11):
        averages.update()
        for decay in expected:
            d = min(decay, (1 + n) / (10 + n))
            expected[decay] += (1 - d) * (1.0 - expected[decay])
        for decay, value in expected.items():
            assert float(averages.values[f"ema:{decay:g}"]["weight"]) == pytest.approx(value, rel=FLOAT32)
    assert averages.age(0.999) == pytest.approx(1 - expected[0.999], rel=FLOAT32)
    with averages.swapped("ema:0.5"):
        assert float(net.weight.detach()) == pytest.approx(expected[0.5], rel=FLOAT32)
    assert float(net.weight.detach()) == 1.0


def broken_weight(process, t):
    return torch.where(t > 0.5, torch.nan, 1.0)


def test_a_non_finite_loss_stops_with_a_bundle(tmp_path: Path) -> None:
    experiment = replace(tiny(), objective=DenoisingScoreMatching(weighting=Custom(broken_weight)))
    with pytest.raises(TrainingError, match=r"not finite at step 0.*sigma = .*non_finite_step_0") as error:
        train(experiment, tmp_path / "run")
    from scorefield.models.weights import load_tensors

    bundle = next((tmp_path / "run").glob("non_finite_*.safetensors"))
    assert bundle.name in str(error.value)
    sets, _ = load_tensors(bundle)
    assert bool(sets["batch"]["loss"].isnan().any()) and sets["batch"]["x0"].shape == (24, 1, 8, 8)


def test_labels_become_a_condition(tmp_path: Path) -> None:
    experiment = replace(tiny(condition_dropout=0.2), data=DataSource("digits", conditional=True))
    model = load(train(experiment, tmp_path / "run"))
    assert [c.name for c in model.data.conditions] == ["class"]
    x = torch.zeros(2, 1, 8, 8)
    assert not torch.equal(model.score(x, 0.5, {"class": 3}), model.score(x, 0.5, {"class": 4}))
    assert torch.equal(model.score(x, 0.5), model.score(x, 0.5, {"class": [-1, -1]}))
    assert model.sample(2, sampler="em", condition={"class": [1, 7]}).x.shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"one of 0\.\.9"):
        model.sample(2, condition={"class": 11})
    with pytest.raises(ValueError, match="Did you mean class"):
        model.sample(2, condition={"clas": 1})


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors reports a full disk as an error of its own; it must become ours, and nothing half-written stays."""
    from safetensors import SafetensorError

    from scorefield.models import weights

    real, calls = weights.save_file, []

    def full(*arguments, **named) -> None:
        calls.append(1)
        if len(calls) > 6:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(*arguments, **named)

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(NoSpaceError, match="no space left to write .* is intact"):
        train(tiny(), tmp_path / "run")
    monkeypatch.undo()
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["latest", "step_10", "step_20"]
    assert load(tmp_path / "run").step is not None


def test_weights_of_another_architecture_are_compared_name_by_name(tmp_path: Path) -> None:
    run = train(tiny(steps=1), tmp_path / "run")
    other = train(replace(tiny(steps=1), network=MLP(width=8, depth=2, embedding="positional")), tmp_path / "other")
    (run / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="another architecture") as error:
        load(run)
    assert "shape of" in str(error.value) and "unknown to the network" in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 8, 100, 5000])
def test_truncated_weights_say_so(tmp_path: Path, keep: int) -> None:
    run = train(tiny(steps=1), tmp_path / "run")
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="truncated"):
        load(run)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    run = train(tiny(steps=1), tmp_path / "run")
    with pytest.raises(WeightsError, match=r"Did you mean ema:0\.99"):
        load(run, weights="ema:0.999")
    with pytest.raises(FileNotFoundError, match="not a run or model folder"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no bundled model"):
        load("digist")


def test_the_experiment_in_a_run_knows_its_data(tmp_path: Path) -> None:
    run = train(tiny(steps=1), tmp_path / "run")
    assert read_experiment(run).spec == open_data(DataSource("digits")).spec
