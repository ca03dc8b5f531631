"""What cannot work: one clear error, a status other than 0, nothing written; on the command line and in the library."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import scorefield as sf
from sampling.doubles import GivenNoise
from scorefield._random import StepNoise
from scorefield.cli import main
from scorefield.likelihood.probability_flow import FlowSettings
from scorefield.process import GeometricSigmas, Tabulated
from scorefield.recipes import recipe
from scorefield.sampling import HMC, MALA, Consistent, LadderScaled, Langevin, NoiseScaled, NormRatio, Sampler
from scorefield.sampling.named import named
from scorefield.score.oracles import Gaussian
from scorefield.score.parametrisation import LevelLabel
from scorefield.training.trainer import train
from training.tiny import tiny

LADDER = Tabulated(GeometricSigmas(0.01, 10.0, 12))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders: a model in continuous time, one that knows only its ladder, one of points without grey levels."""
    root, base = tmp_path_factory.mktemp("models"), tiny(steps=1, checkpoint_every=1)
    train(base, root / "digits")
    labels = LevelLabel(descending=True)
    train(replace(base, process=LADDER, time_input=labels, sampler=named("ald", LADDER)), root / "ladder")
    points = recipe("points-2d")
    train(replace(points, training=base.training), root / "points")
    return root


COMMANDS = [
    ("sample digits -n 0", "-n 0: draw at least 1"),
    ("sample digits -n 0 --budget nfe=20", "-n 0: draw at least 1"),
    ("sample digits --seed -1", "--seed -1 must not be negative"),
    ("sample digits --seed -1 --budget nfe=20", "--seed -1 must not be negative"),
    ("sample digits --start -4", "--start -4 must not be negative"),
    ("sample digits --batch-size 0", "--batch-size 0 must be at least 1"),
    ("sample digits --steps 0 --sampler dpm", "at least one step"),
    ("sample digits --sampler ode --steps 9", "its own steps; leave --steps out"),
    ("sample ladder --sampler ode", "does not admit --sampler ode: t = .* It admits pc, .*ancestral, ald"),
    ("sample ladder --budget nfe=20", "is defined only at the levels of its ladder.*compare-samplers"),
    ("likelihood ladder", "is defined only at the levels of its ladder.*--method bound"),
    ("latents encode ladder -n 2", "is defined only at the levels of its ladder.*pc, ancestral or ald"),
    ("latents temperature ladder -n 2", "is defined only at the levels of its ladder"),
    ("likelihood points --dequantise uniform", "no grey levels.*no bits/dim; leave it out"),
    ("likelihood digits -n 0", "n=0 must be at least 1"),
    ("likelihood digits --draws 0", "--draws 0 must be at least 1"),
    ("likelihood digits --method bound", "trained in continuous time.*--method flow"),
    ("latents encode digits -n 0", "n=0 must be at least 1"),
    ("latents temperature digits --seed -1", "seed=-1 must not be negative"),
    ("evaluate digits -n 0", "draw at least 1 sample"),
    ("compare-samplers digits -n 0", "-n 0: draw at least 1"),
    ("compare-samplers digits --seed -1", "--seed -1 must not be negative"),
    ("tune digits --seed -1", "--seed -1 must not be negative"),
    ("tune digits --batch-size -2", "--batch-size -2 must be at least 1"),
    ("tune digits --sampler ode -n 8", "chooses its own steps and has no setting to tune.*--sampler pc"),
    ("train digits --set sampler.step.steps.0.size.snr=-0.1", "snr=-0.1 must be a positive number"),
    ("train digits-energy --set network=MLP", "energy, one number per example, and MLP has several outputs.*EnergyMLP"),
    ("train digits --set sampler.step.steps.0.size.snr=1.3", r"snr=1.3 is outside the stable interval \(0, 1\)"),
]


@pytest.mark.parametrize(("words", "message"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_commands(
    words: str, message: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(models)
    before = sorted(models.rglob("*"))
    status = main([*words.split(), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, out + err
    assert re.search(message, err), err
    assert not (tmp_path / "out").exists() and sorted(models.rglob("*")) == before


def cas(eta: float) -> Sampler:
    return replace(named("ald", LADDER), step=Consistent(eta))


CALLS: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda d, k: d.sample(0), "n=0"),
    (lambda d, k: d.sample(2, seed=-1), "seed=-1"),
    (lambda d, k: d.score(torch.zeros(1, 1, 8, 8), 0.0), r"t = 0 is outside \[1e-05, 1\]"),
    (lambda d, k: d.log_prob(torch.zeros(1, 1, 8, 8), settings=FlowSettings(start=1e-9)), r"outside \[1e-05, 1\]"),
    (lambda d, k: k.sample(2, sampler="ode"), "is defined only at the levels of its ladder.*pc, ancestral or ald"),
    (lambda d, k: k.log_prob(torch.zeros(1, 1, 8, 8)), "is defined only at the levels of its ladder"),
    (lambda d, k: k.encode(torch.zeros(1, 1, 8, 8)), "is defined only at the levels of its ladder"),
    (lambda d, k: k.decode(torch.zeros(1, 1, 8, 8)), "is defined only at the levels of its ladder"),
    (lambda d, k: k.sample(2, sampler=cas(0.1)), r"eta=0.1 is not admissible.*Choose eta in \[0.466"),
    (lambda d, k: Consistent(0.0), r"must lie in \(0, 2\)"),
    (lambda d, k: Consistent(-0.3), r"must lie in \(0, 2\)"),
    (lambda d, k: NoiseScaled(0.0), "snr=0 must be a positive number"),
    (lambda d, k: NormRatio(-0.16), "snr=-0.16 must be a positive number"),
    (lambda d, k: NoiseScaled(math.nan), "snr=nan must be a positive number"),
    (lambda d, k: LadderScaled(-2e-5, 0.01), r"epsilon=-2e-05 must be a positive.*\(0, 0.0002\)"),
    (lambda d, k: LadderScaled(2e-5, 0.0), "sigma_end=0 must be a positive number"),
    (lambda d, k: Langevin(NoiseScaled(1.0)), r"snr=1 is outside the stable interval \(0, 1\) of the full"),
    (lambda d, k: Langevin(NormRatio(1.5), "half"), r"snr=1.5 is outside the stable interval \(0, 1.414\) of the half"),
    (lambda d, k: MALA(NoiseScaled(1.1)), r"outside the stable interval \(0, 1\)"),
    (lambda d, k: HMC(NoiseScaled(1.1)), r"outside the stable interval \(0, 1\)"),
    (lambda d, k: d.sample(2, sampler="hcm"), "no sampler 'hcm'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
def test_calls(call: Callable[[Any, Any], Any], message: str, models: Path) -> None:
    with pytest.raises(ValueError, match=message):
        call(sf.load(models / "digits"), sf.load(models / "ladder"))


def test_an_snr_inside_the_interval_is_stable_and_one_at_its_end_is_not() -> None:
    """On a point mass a step multiplies deviations by 1 - 2 r^2, in the half convention by 1 - r^2."""
    process = sf.VE(0.01, 10.0)
    point = Gaussian(process, torch.zeros(2, dtype=torch.float64), 1e-12).bind(None)
    x, t = torch.ones(1, 2, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    silent = StepNoise(GivenNoise(lambda like, k: torch.zeros_like(like)), 0)
    for convention, most in (("full", 1.0), ("half", 2.0**0.5)):
        for snr in (0.5 * most, 0.999 * most):
            moved = Langevin(NoiseScaled(snr), convention)(point, process, x, t, t, silent)  # type: ignore[arg-type]
            assert float(moved.x.abs().max()) < 1.0
        edge = Langevin(NoiseScaled(0.999 * most), convention)(point, process, x, t, t, silent)  # type: ignore[arg-type]
        assert float(edge.x.max()) < -0.99
