"""Steps and chains against numbers of the published implementations.

Those freeze the score at (x, t) and step by 1/N in time, or by one level k = floor(t (N - 1)) -> k - 1 of a table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sampling.doubles import GivenNoise, ReleaseClock, sines
from scorefield._random import StepNoise
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from scorefield.process.grids import EveryLevel
from scorefield.sampling import (
    Ancestral,
    Chain,
    EulerMaruyama,
    FlowEuler,
    Hold,
    LadderScaled,
    Langevin,
    NoiseScaled,
    NormRatio,
    Repeat,
    ReverseDiffusion,
    Sampler,
    Step,
    StepResult,
    drive,
)
from scorefield.score import FunctionScore
from tolerance import CHAIN_VECTOR, GOLDEN_STEP, STEP_VECTOR, STEP_VECTOR_SMALL

GOLDEN = Path(__file__).parents[1] / "golden" / "score_sde"


@dataclass(frozen=True)
class Release:
    """A process, its table of N levels, and the time steps of the published code."""

    process: Process
    table: Tabulated

    @property
    def levels(self) -> int:
        return self.table.levels

    def take(self, step: Step, x: Tensor, t: Tensor, score: Tensor, z: Tensor, clock: str) -> StepResult:
        """One step by 1/N ("time"), by one level ("level"), or by a level for alpha alone ("mixed")."""
        noise = StepNoise(GivenNoise(lambda like, k: z), 0)
        t = t.to(torch.float64)
        if clock == "time":
            process, s = self.process, t - 1.0 / self.levels
        elif clock == "level":
            process, level = self.table, self.table.level(t)
            t, s = self.table.time(level), self.table.time(level - 1)
        else:
            process = ReleaseClock(Tabulated(self.table.ladder, between="floor"), self.process)
            s = t - 1.0 / (self.levels - 1)
        return step(FunctionScore(lambda x, t: score, AllTimes(process)).bind(None), process, x, t, s, noise)


class AllTimes(VE):
    """A process without limits of time, because the printed steps go to t = 0 and below level 0."""

    def __init__(self, process: Process):
        super().__init__()

    def check_time(self, t: Tensor) -> None:
        """Accept every time: the score is constant."""


RELEASES = {
    "VE": Release(VE(0.01, 50.0), Tabulated(GeometricSigmas(0.01, 50.0, 1000))),
    "VP": Release(VP(0.1, 20.0), Tabulated(LinearBetas(0.1, 20.0, 1000))),
    "sub-VP": Release(SubVP(0.1, 20.0), Tabulated(LinearBetas(0.1, 20.0, 1000))),
}

ALD = Langevin(NoiseScaled(0.176))
LANGEVIN = Langevin(NormRatio(0.16, norm="batch"))

VECTORS = [  # process, step, clock, (mean, noise term) at t = 1, 0.5 and 1e-3; x = 0.7, score = -1.3, z = 1
    ("VE", EulerMaruyama(), "time", (-54.66176, 6.525791), (0.6889277, 0.09228861), (0.6999977, 0.001316309)),
    ("VE", ReverseDiffusion(), "level", (-54.24689, 6.501297), (0.6891038, 0.0915516), (0.69987, 0.00999999)),
    ("VE", Ancestral(), "level", (-54.24689, 6.446102), (0.6891038, 0.09077436), (0.69987, 0.0)),
    ("VE", ReverseDiffusion(flow=True), "level", (-26.77345, 0.0), (0.6945519, 0.0), (0.699935, 0.0)),
    ("VP", EulerMaruyama(), "time", (0.681, 0.1414213), (0.6904525, 0.1002497), (0.6998861, 0.01094991)),
    ("VP", ReverseDiffusion(), "level", (0.6810353, 0.1414213), (0.6904708, 0.1002), (0.699905, 0.00999999)),
    ("VP", Ancestral("forward"), "level", (0.6808428, 0.1414213), (0.6904227, 0.1002), (0.699905, 0.00999999)),
    ("VP", ReverseDiffusion(flow=True), "level", (0.6940353, 0.0), (0.6969968, 0.0), (0.6999699, 0.0)),
    ("sub-VP", EulerMaruyama(), "time", (0.681, 0.1414213), (0.6905342, 0.09993583), (0.7000419, 0.0001623631)),
    ("sub-VP", FlowEuler(), "time", (0.694, 0.0), (0.6970258, 0.0), (0.7000419, 0.0)),
    ("VE", LANGEVIN, "mixed", (0.6606154, 0.2461539), (0.6606154, 0.2461539), (0.6606154, 0.2461539)),
    ("VP", LANGEVIN, "mixed", (0.6614031, 0.2436799), (0.6610108, 0.2449151), (0.6606193, 0.2461416)),
    ("VE", ALD, "mixed", (-200.644, 17.60001), (0.6597312, 0.2489015), (0.6999918, 0.003550112)),
    ("VP", ALD, "mixed", (0.6210766, 0.3484547), (0.6265747, 0.3360983), (0.6999911, 0.003691137)),
]


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v[0]}-{v[1]}-{v[2]}" for v in VECTORS])
def test_one_step(vector: tuple) -> None:
    name, step, clock, *expected = vector
    x = torch.full((2, 3, 4, 4), 0.7, dtype=torch.float64)
    for time, (mean, noise) in zip((1.0, 0.5, 1e-3), expected, strict=True):
        t = torch.full((2,), time, dtype=torch.float64)
        moved = RELEASES[name].take(step, x, t, torch.full_like(x, -1.3), torch.ones_like(x), clock)
        assert moved.mean[0, 0, 0, 0].item() == pytest.approx(mean, rel=STEP_VECTOR, abs=STEP_VECTOR_SMALL)
        added = moved.x - moved.mean
        assert added[1, 2, 3, 3].item() == pytest.approx(noise, rel=STEP_VECTOR, abs=STEP_VECTOR_SMALL)


# ------------------------------------------------------------------------------------------ reference networks

CLOCKS = {  # the release's name -> our step and the clock it runs on, for VE, VP and sub-VP
    "euler_maruyama": (EulerMaruyama(), "time"),
    "reverse_diffusion": (ReverseDiffusion(), "level"),
    "ancestral_sampling": (Ancestral(), "level"),
    "langevin": (Langevin(NormRatio(0.16, norm="batch")), "mixed"),
    "ald": (Langevin(NoiseScaled(0.16)), "mixed"),
}


def release_of(config: dict) -> Release:
    model, kind = config["model"], config["training"]["sde"]
    levels = model["num_scales"]
    if kind == "vesde":
        ends = model["sigma_min"], model["sigma_max"]
        return Release(VE(*ends), Tabulated(GeometricSigmas(*ends, levels)))
    betas = model["beta_min"], model["beta_max"]
    return Release({"vpsde": VP, "subvpsde": SubVP}[kind](*betas), Tabulated(LinearBetas(*betas, levels)))


GOLDEN_CASES = [
    (folder.name, predictor)
    for folder in sorted(GOLDEN.iterdir())
    if folder.is_dir()
    for predictor in CLOCKS
    # Sub-VP has no table in the release: no ancestral step, no correctors.
    if not ("subvp" in folder.name and predictor in ("ancestral_sampling", "langevin", "ald"))
]


@pytest.mark.parametrize(("folder", "name"), GOLDEN_CASES)
def test_one_step_of_a_reference_network(folder: str, name: str) -> None:
    io = load_file(GOLDEN / folder / "io.safetensors")
    config = json.loads((GOLDEN / folder / "config.json").read_text())
    step, clock = CLOCKS[name]
    if config["training"]["sde"] == "subvpsde" and name == "reverse_diffusion":
        step, clock = EulerMaruyama(), "time"  # what the release falls back on
    if config["training"]["sde"] == "vpsde" and name == "ancestral_sampling":
        step = Ancestral("forward")
    moved = release_of(config).take(step, io["xt"], io["t"], io["score"], io[f"{name}_noise"], clock)
    for ours, theirs in ((moved.mean, io[f"{name}_mean"]), (moved.x, io[f"{name}_next"])):
        assert float((ours - theirs).abs().max()) <= GOLDEN_STEP * float(theirs.abs().max())


def test_flow_steps_follow_the_reference_flow() -> None:
    io = load_file(GOLDEN / "ncsnpp_ve_continuous" / "io.safetensors")
    config = json.loads((GOLDEN / "ncsnpp_ve_continuous" / "config.json").read_text())
    release = release_of(config)
    moved = release.take(FlowEuler(), io["xt"], io["t"], io["score"], io["z"], "time")
    expected = io["xt"] - io["flow_drift"] / release.levels
    assert float((moved.x - expected).abs().max()) <= GOLDEN_STEP * float(expected.abs().max())


# ------------------------------------------------------------------------------------------ whole chains


def test_predictor_corrector_in_the_order_of_the_release() -> None:
    """The chain by hand: corrector first, both steps at the same level, and the last predictor's mean as the result."""
    levels, snr = 12, 0.2
    table = Tabulated(LinearBetas(0.1, 8.0, levels))
    betas = torch.linspace(0.1 / levels, 8.0 / levels, levels, dtype=torch.float64)
    kept = torch.cumprod(1.0 - betas, 0)

    def score(x: Tensor, k: int) -> Tensor:
        return (0.4 - x) / (1.0 - 0.7 * kept[k])

    x, mean, draw = torch.tensor(0.5, dtype=torch.float64), None, 0
    z = torch.arange(2 * levels, dtype=torch.float64).sin()
    for k in reversed(range(levels)):
        e = 2.0 * (1.0 - betas[k]) * snr**2 * (1.0 - kept[k])
        x = x + e * score(x, k) + (2.0 * e).sqrt() * z[draw]
        mean = (2.0 - (1.0 - betas[k]).sqrt()) * x + betas[k] * score(x, k)
        x = mean + betas[k].sqrt() * z[draw + 1]
        draw += 2

    sampler = Sampler(Chain((Langevin(NoiseScaled(snr)), ReverseDiffusion())), EveryLevel(), final="mean")
    ours = FunctionScore(lambda x, t: score(x, int(table.level(t)[0])), table)
    half = torch.full((1, 1), 0.5, dtype=torch.float64)
    run = sampler.run(ours, (1,), indices=[0], latent=half, noise=sines(), dtype=torch.float64)
    assert mean is not None
    assert run.x.item() == pytest.approx(mean.item(), rel=CHAIN_VECTOR)
    assert run.raw.item() == pytest.approx(x.item(), rel=CHAIN_VECTOR)
    assert run.calls.tolist() == [2 * levels]


def annealed(levels: int, sigma_max: float, epsilon: float, repeats: int) -> tuple[Sampler, FunctionScore]:
    """Annealed Langevin dynamics in the code's convention, and the score -0.3 x / sigma."""
    table = Tabulated(GeometricSigmas(0.01, sigma_max, levels))
    score = FunctionScore(lambda x, t: -0.3 * x / table.sigma(t).reshape(-1, 1), table)
    stay = Repeat(Langevin(LadderScaled(epsilon, sigma_end=0.01)), repeats)
    return Sampler(Chain((stay, Hold())), EveryLevel()), score


HALF = torch.full((1, 1), 0.5, dtype=torch.float64)


def test_annealed_langevin_of_ncsn() -> None:
    sampler, score = annealed(10, 1.0, 2e-5, 100)
    run = sampler.run(score, (1,), indices=[0], latent=HALF, noise=sines(), dtype=torch.float64)
    assert run.raw.item() == pytest.approx(0.026970893552, rel=CHAIN_VECTOR)


def test_annealed_langevin_of_ncsn_without_its_last_update() -> None:
    """The published code returns the state after 999 of the 1000 updates."""
    sampler, score = annealed(10, 1.0, 2e-5, 100)
    times, noise, bound = sampler.times(score.process), sines(), score.bind(None)
    x = drive(bound, score.process, sampler.step, times[:-1], HALF, noise).x
    assert isinstance(sampler.step, Chain) and isinstance(repeat := sampler.step.steps[0], Repeat)
    last = Chain((Repeat(repeat.step, 99), Hold()))
    x = drive(bound, score.process, last, times[-2:], x, noise).x
    assert x.item() == pytest.approx(0.027154538769, rel=CHAIN_VECTOR)


def test_annealed_langevin_of_ncsnv2() -> None:
    sampler, score = annealed(232, 50.0, 6.2e-6, 5)
    run = sampler.run(score, (1,), indices=[0], latent=HALF, noise=sines(), dtype=torch.float64)
    assert run.raw.item() == pytest.approx(0.0034665499494, rel=CHAIN_VECTOR)
    assert run.x.item() == pytest.approx(0.0034561502995, rel=CHAIN_VECTOR)
    assert run.calls.tolist() == [232 * 5 + 1]


def test_a_vector_notices_another_convention() -> None:
    """The printed chain uses the convention of the code; that of the papers halves the step and must be rejected."""
    sampler, score = annealed(10, 1.0, 2e-5, 100)
    half = Chain((Repeat(Langevin(LadderScaled(2e-5, 0.01), "half"), 100), Hold()))
    run = Sampler(half, sampler.grid).run(score, (1,), indices=[0], latent=HALF, noise=sines(), dtype=torch.float64)
    assert run.raw.item() != pytest.approx(0.026970893552, rel=1000 * CHAIN_VECTOR)
