"""Tests of the comparison of methods: experiments, estimates over seeds, claims, resumed runs, and paired losses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from scorefield import _codec
from scorefield.cli import compare_methods as commands
from scorefield.cli import main
from scorefield.cli.compare_methods import seconds_of
from scorefield.data import DataSource, open_data
from scorefield.data_spec import DataSpec
from scorefield.evaluation.samplers.candidates import dry_run
from scorefield.losses.denoising import Custom, DenoisingScoreMatching
from scorefield.models.experiment import Experiment
from scorefield.models.model import Model
from scorefield.nets.mlp import MLP
from scorefield.process.families import VE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.energy import EnergyForm
from scorefield.studies import methods
from scorefield.studies.methods import (
    METHODS,
    MethodRun,
    SharedSettings,
    choose_architecture,
    estimate_over_seeds,
    select_methods,
)
from scorefield.studies.methods.claims import _density_difference, verdict
from scorefield.studies.methods.objective import common_objective
from scorefield.studies.methods.records import Density, Estimate
from scorefield.studies.methods.sizes import Architecture, count, energy_network, score_network
from scorefield.training.observer import Silent
from tolerance import ALIKE_SIZES, FLOAT64, SIGNIFICANCE

SIGMAS = NormalDist().inv_cdf(1.0 - SIGNIFICANCE / 2.0)
DIGITS = DataSpec((1, 8, 8), 0, 16, 17)
SHAPES = {"vector": DataSpec((3,)), "signal": DataSpec((2, 24)), "field": DataSpec((2, 9, 12))}


def shared(spec: DataSpec = DIGITS, calls: int = 40, **changes: object) -> SharedSettings:
    return replace(SharedSettings(DataSource("digits"), spec, 9.6, choose_architecture(spec), 1.0, calls), **changes)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ methods


@pytest.mark.parametrize("spec", SHAPES.values(), ids=list(SHAPES))
def test_every_method_takes_vectors_signals_and_images_at_one_size(spec: DataSpec):
    t = shared(spec)
    assert select_methods(t, tuple(METHODS)) == tuple(METHODS.values())
    sizes = [count(method.experiment(t, 0).network, spec) for method in METHODS.values()]
    assert max(sizes) < ALIKE_SIZES * min(sizes)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_an_experiment_within_its_calls(name: str):
    method, t = METHODS[name], shared()
    experiment = method.experiment(t, 3)
    assert _codec.loads(_codec.dumps(experiment), Experiment) == experiment
    assert experiment.training.seed == 3 and experiment.training.max_minutes == 1.0
    assert experiment.sampler == method.samplings(t)[0].sampler
    assert isinstance(experiment.process, Process)
    for sampling in method.samplings(t):
        assert t.calls // 2 < dry_run(sampling.sampler, experiment.process).calls <= t.calls


def test_the_methods_differ_where_the_papers_do():
    t = shared()
    found = {name: method.experiment(t, 0) for name, method in METHODS.items()}
    assert found["ncsn"].averaging.decays == () and found["ncsnv2"].averaging.decays == (0.995,)
    assert isinstance(found["ncsn"].process, Tabulated) and found["ncsn"].process.levels == 10
    assert found["adversarial"] == replace(
        found["ncsnv2"],
        name="adversarial-0",
        source=METHODS["adversarial"].source,
        optimiser=found["adversarial"].optimiser,
        adversary=found["adversarial"].adversary,
        sampler=found["adversarial"].sampler,
    )
    assert found["adversarial"].adversary is not None and isinstance(found["mdsm"].form, EnergyForm)
    for name in ("ve", "vp"):
        levels, continuous = found[f"{name}-discrete"], found[name]
        assert levels.process == continuous.process and levels.form == continuous.form
        assert levels.levels is not None and continuous.levels is None
    for experiment in found.values():
        for part in ("data", "training"):
            assert getattr(experiment, part) == getattr(found["ve"], part)


def test_ladders_follow_the_data_and_calls():
    assert shared().levels == 23 and shared(largest_distance=50.0, spec=DataSpec((3, 32, 32))).levels == 39
    assert shared(calls=1000, largest_distance=50.0, spec=DataSpec((3, 32, 32))).levels == 219
    with pytest.raises(ValueError, match="need 20 or more"):
        shared(calls=10)


def test_data_that_do_not_fit_are_refused_with_the_option_that_does():
    volume = DataSpec((1, 4, 4, 4))
    assert choose_architecture(volume) == "mlp"
    assert len(select_methods(shared(volume), tuple(METHODS))) == len(METHODS)
    with pytest.raises(ValueError, match="--network mlp takes any shape"):
        choose_architecture(volume, "unet")
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4, 4\) do not fit .*--network mlp"):
        select_methods(shared(volume, architecture="unet"), tuple(METHODS))
    with pytest.raises(ValueError, match="Did you mean ncsnv2"):
        select_methods(shared(), ("ncsnv",))


def test_energies_have_the_nearest_size():
    for body in get_args(Architecture):
        chosen = energy_network(body, DIGITS)
        target = count(score_network(body, DIGITS, "positional"), DIGITS)
        gap = abs(count(chosen, DIGITS) - target)
        name = "width" if body == "mlp" else "channels"
        for change in (-1, 1):
            other = replace(chosen, **{name: getattr(chosen, name) + change})  # type: ignore[type-var]
            assert gap <= abs(count(other, DIGITS) - target)


# ------------------------------------------------------------------------------------------------ numbers


def test_an_interval_over_seeds_is_students_and_never_narrower_than_that_of_one_run():
    found = estimate_over_seeds([(1.0, 0.01), (2.0, 0.01), (3.0, 0.01)])
    assert abs(found.number - 2.0) < FLOAT64 and abs(found.high - (2.0 + 4.303 / math.sqrt(3))) < FLOAT64
    alone = estimate_over_seeds([(1.0, 0.5)])
    assert abs(alone.low - (1.0 - 1.959964 * 0.5)) < FLOAT64 and alone.seeds == 1
    alike = estimate_over_seeds([(1.0, 0.5)] * 3)
    assert abs(alike.high - alone.high) < FLOAT64
    with pytest.raises(ValueError, match="at least one run"):
        estimate_over_seeds([])


@pytest.mark.parametrize(("low", "high", "held"), [(-2.0, -1.0, True), (1.0, 2.0, False), (-1.0, 0.5, None)])
def test_a_claim_is_undecided_where_its_interval_contains_zero(low: float, high: float, held: bool | None):
    two, one = (Estimate(0.5 * (low + high), low, high, seeds) for seeds in (2, 1))
    assert verdict("a", two, "nats", "x less y", one_model=False).held is held
    assert verdict("a", one, "nats", "x less y", one_model=True).held is held
    alone = verdict("a", one, "nats", "x less y", one_model=False)
    assert alone.held is None and "cannot separate" in alone.found


def test_densities_are_paired_by_example(tmp_path: Path):
    """Where the densities of examples vary much, the paired difference is precise although the means are not."""
    base = np.linspace(-50.0, 50.0, 20)
    noise, runs = 0.01 * np.sin(np.arange(20.0)), []
    for method, value in (("sub-vp", base - 0.1 + noise), ("vp", base.copy())):
        folder = methods.run_folder(tmp_path, method, 0)
        folder.mkdir(parents=True)
        value[3] = np.nan if method == "vp" else value[3]
        np.savez(folder / "density.npz", value=value, calls=np.ones(20))
        runs.append(MethodRun(method, 0, 1, 1, 1.0, None, 1, 0, (), Density(0.0, 7.0, 20, 0, 1.0)))
    found = _density_difference(tmp_path, *runs)
    remaining = np.delete(noise, 3) - 0.1  # example 3 has no density under VP
    assert found is not None and abs(found[0] - remaining.mean()) < FLOAT64 * 100
    assert abs(found[1] - remaining.std(ddof=1) / math.sqrt(19)) < FLOAT64 * 100


def test_budgets_are_read_with_their_units():
    assert [seconds_of(t) for t in ("60s", "5m", "1.5h", "30")] == [60.0, 300.0, 5400.0, 30.0]
    for wrong in ("0s", "soon", "-3m"):
        with pytest.raises(ValueError, match="is no time"):
            seconds_of(wrong)


def test_help_names_every_method():
    text = Path(str(commands.__file__)).read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if "Default: all." in line]
    assert f"Only these of {', '.join(METHODS)}." in line
    assert get_args(get_type_hints(commands.CompareMethods)["network"]) == ("auto", *get_args(Architecture))


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """File of vectors without labels, a tenth of which is held out."""
    x = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x * [1.0, 2.0, 0.5])
    return tmp_path / "x.npy"


def test_a_comparison_is_written_and_continues(numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    words = ["compare-methods", "--data", str(numbers), "--budget", "0.2s", "--calls", "24", "-n", "40"]
    words += ["--density", "3", "--out", str(out), "--methods", "ncsnv2,adversarial"]
    assert main([*words, "--seeds", "1", "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out and not out.exists()
    assert main([*words, "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "in all" in printed and "ncsnv2       seed 0" in printed and "adversarial part improves" in printed
    found = json.loads((out / "comparison.json").read_text())
    rows = {(row[0], row[1]) for row in found["rows"]}
    assert {("NCSNv2", "ALS"), ("", "CAS, raw"), ("adversarial", "CAS")} <= rows
    receipts = [s["energy"]["receipt"] for run in found["runs"] for s in run["samples"]]
    assert {r["reference"]["hash"] for r in receipts} == {receipts[0]["reference"]["hash"]}
    assert all(r["count"] == 40 and r["source"]["model_hash"] for r in receipts)
    page = (out / "report.html").read_text()
    assert "Receipt" in page and "<svg" in page
    record = out / "ncsnv2" / "seed_0" / "compared.json"
    before = (record.stat().st_mtime_ns, (out / "ncsnv2" / "seed_0" / "model.safetensors").stat().st_mtime_ns)
    assert main([*words, "--seeds", "1", "--by", "objective"]) == 0
    assert before == (record.stat().st_mtime_ns, (out / "ncsnv2" / "seed_0" / "model.safetensors").stat().st_mtime_ns)
    assert "above the least by" in capsys.readouterr().out
    assert main([*words, "--seeds", "1", "--calls", "30"]) == 2
    assert "other calls" in capsys.readouterr().err
    models = [str(out / name / "seed_0") for name in ("ncsnv2", "adversarial")]
    assert main(["compare-methods", *models]) == 2
    assert "--by objective" in capsys.readouterr().err
    assert main(["compare-methods", *models, "--by", "objective"]) == 0
    assert "on the same (x, level, z)" in capsys.readouterr().out


def test_a_run_stopped_after_training_is_not_trained_again(numbers: Path, tmp_path: Path):
    source = DataSource(str(numbers))
    data = open_data(source)
    t = SharedSettings(source, data.spec, methods.largest_data_distance(data), "mlp", 0.002, 24)
    evaluation = methods.evaluation_settings(data, 30, 0)

    class InterruptsSampling(Silent):
        def message(self, text: str) -> None:
            if "sampling" in text:
                raise KeyboardInterrupt

    method, run = METHODS["vp"], tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        methods.run_method(method, 0, t, data, evaluation, run, InterruptsSampling())
    weights = (run / "model.safetensors").read_bytes()
    found = methods.run_method(method, 0, t, data, evaluation, run, Silent())
    assert (run / "model.safetensors").read_bytes() == weights and found.samples[0].failed == 0
    assert methods.read_run(run) == found and found.no_density == "not asked for"


def test_too_little_held_out_is_refused(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32))
    with pytest.raises(ValueError, match="20 or more are needed"):
        methods.evaluation_settings(open_data(DataSource(str(tmp_path / "x.npy"))), 30, 0)


# ------------------------------------------------------------------------------------------------ by objective


def constant(value: float, **changes: object) -> Model:
    """A VP model whose network predicts one number as the noise, everywhere."""
    base = METHODS["vp"].experiment(shared(DataSpec((3,))), 0)
    experiment = replace(base, spec=DataSpec((3,)), network=MLP(width=4, depth=1, embedding="positional"), **changes)
    network = experiment.network.build(DataSpec((3,)))
    torch.nn.init.constant_(network.last.bias, value)  # type: ignore[union-attr]
    return Model(experiment, network.eval(), name=f"{value:g}")


def test_losses_on_the_same_noise(numbers: Path):
    """A network that returns c has the loss E (z - c)^2 = 1 + c^2; paired losses differ by c^2 - 2 c mean(z) only."""
    held = open_data(DataSource(str(numbers))).held_out
    assert held is not None
    c = 0.05
    least, other = methods.compare_objectives([("a", constant(0.0)), ("b", constant(c))], held, draws=8)
    found = least.beyond + other.beyond
    spread = 2 * c / math.sqrt(8 * 3 * len(held))
    assert abs(abs(found) - c * c) < SIGMAS * spread
    assert abs(least.number - 1.0) < SIGMAS * math.sqrt(2 / (8 * 3 * len(held)))
    # With independent noise the difference would have the spread of the losses themselves.
    assert other.beyond_half < 0.2 * other.half
    model = constant(c)
    same = methods.compare_objectives([("a", model), ("b", model)], held, draws=1)
    assert same[1].beyond == 0.0 == same[1].beyond_half and not same[1].worse


def test_models_that_are_not_comparable_are_refused():
    a = ("a", constant(0.0))
    weighted = constant(0.0, objective=DenoisingScoreMatching(weighting=Custom(weight)))
    with pytest.raises(ValueError, match="a and b differ in weighting"):
        common_objective([a, ("b", weighted)])
    with pytest.raises(ValueError, match="differ in process"):
        common_objective([a, ("b", constant(0.0, process=VE()))])
    with pytest.raises(ValueError, match="two models or more"):
        common_objective([a])
    groups = methods.comparable_groups([a, ("b", weighted), ("c", constant(1.0))])
    assert [[name for name, _ in group] for group in groups] == [["a", "c"]]


def weight(process: object, t: torch.Tensor) -> torch.Tensor:
    """A weight of one."""
    return torch.ones_like(t)
