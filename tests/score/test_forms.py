"""Forms of a network's output and the numbers it is conditioned on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from score.laws import ORACLES, PROCESSES, concrete, over, times
from scorefield._codec import dumps, loads
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, SubVP, Tabulated
from scorefield.score import (
    DataForm,
    Form,
    KarrasForm,
    LevelLabel,
    LogRatio,
    LogScaledTime,
    LogSigma,
    NetworkScore,
    NoiseForm,
    ScaledScoreForm,
    ScaledTime,
    ScoreForm,
    TimeInput,
    VelocityForm,
)
from scorefield.score.oracles import Oracle, skewed_gaussian
from tolerance import FLOAT32, FLOAT64, FORM_ROUND_TRIP

S = 0.7
"""sigma_data of the Karras form in these tests."""


def _karras(x: Tensor, D: Tensor, s: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Table 1 of Karras et al. (2022) on x / alpha with ratio r: F = (D - c_skip x / alpha) / c_out."""
    r = sigma / alpha
    return (D - S**2 / (r**2 + S**2) * x / alpha) / (r * S / (r**2 + S**2).sqrt())


MEANING: dict[type[Form], tuple[Form, Callable[..., Tensor]]] = {
    NoiseForm: (NoiseForm(), lambda x, D, s, alpha, sigma: -sigma * s),  # E[z | x_t]
    ScaledScoreForm: (ScaledScoreForm(), lambda x, D, s, alpha, sigma: sigma * s),
    ScoreForm: (ScoreForm(), lambda x, D, s, alpha, sigma: s),
    DataForm: (DataForm(), lambda x, D, s, alpha, sigma: D),
    VelocityForm: (VelocityForm(), lambda x, D, s, alpha, sigma: alpha * (-sigma * s) - sigma * D),
    KarrasForm: (KarrasForm(S), _karras),
}
"""The output F of a perfect network in each form, from the exact posterior mean D and score s."""

EACH_FORM = pytest.mark.parametrize(("form", "meaning"), MEANING.values(), ids=[c.__name__ for c in MEANING])


class PerfectNetwork(nn.Module):
    """The output F that a form gives an oracle; conditioned on t itself."""

    def __init__(self, oracle: Oracle, form: Form, meaning: Callable[..., Tensor]):
        super().__init__()
        self.oracle, self.form, self.meaning = oracle, form, meaning

    def forward(self, scaled: Tensor, c: Tensor, condition=None) -> Tensor:
        process = self.oracle.process
        alpha, sigma = over(process.alpha(c), scaled), over(process.sigma(c), scaled)
        x = scaled / self.form.c_in(alpha, sigma)
        return self.meaning(x, self.oracle.denoised(x, c, condition), self.oracle(x, c, condition), alpha, sigma)


def test_every_form_has_a_meaning() -> None:
    assert set(MEANING) == set(concrete(Form))


@EACH_FORM
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
def test_perfect_output_gives_the_exact_score(form, meaning, process, make) -> None:
    oracle = make(process)
    score = NetworkScore(PerfectNetwork(oracle, form, meaning), process, form, ScaledTime(1.0))
    t = times(process, 7)
    x = oracle.sample(7, t, seed=5)
    exact, D = oracle(x, t), oracle.denoised(x, t)
    sigma, alpha = over(process.sigma(t), x), over(process.alpha(t), x)
    # Rounding of F reaches the score times its coefficient, and the posterior mean times its own.
    lost = 1.0 + x.abs() / sigma**2 * FLOAT64 / FORM_ROUND_TRIP
    assert bool(((score(x, t) - exact).abs() <= FORM_ROUND_TRIP * (exact.abs() + lost)).all())
    assert bool(((score.denoised(x, t) - D).abs() <= FORM_ROUND_TRIP * (D.abs() + 1.0 + x.abs() / alpha)).all())


def test_a_wrong_form_is_noticed() -> None:
    """The test above would not pass with another form's coefficients."""
    oracle = skewed_gaussian(VP())
    t = times(oracle.process, 7)
    x = oracle.sample(7, t, seed=5)
    for form, _ in MEANING.values():
        for other, meaning in MEANING.values():
            score = NetworkScore(PerfectNetwork(oracle, form, meaning), oracle.process, form, ScaledTime(1.0))
            assert torch.allclose(score.denoised(x, t), oracle.denoised(x, t), rtol=FLOAT32) == (form == other)


LEVELS = st.tuples(st.floats(0.01, 1.0), st.floats(1e-3, 100.0))


@EACH_FORM
@settings(max_examples=30)
@given(pair=LEVELS)
def test_score_coefficients_equal_their_derivation(form, meaning, pair) -> None:
    """A form that overrides score_coefficients agrees with score = (alpha D - x) / sigma^2."""
    alpha, sigma = (torch.tensor([v], dtype=torch.float64) for v in pair)
    skip, out = form.score_coefficients(alpha, sigma)
    derived_skip, derived_out = Form.score_coefficients(form, alpha, sigma)
    cancelled = float((1.0 / sigma**2)[0]) * FLOAT64
    assert torch.allclose(skip, derived_skip, rtol=FLOAT64, atol=cancelled)
    assert torch.allclose(out, derived_out, rtol=FLOAT64, atol=0.0)


@EACH_FORM
def test_forms_round_trip_through_json(form, meaning) -> None:
    assert loads(dumps(form), Form) == form


# ------------------------------------------------------------------------------------------------ time inputs

T = torch.tensor([0.001, 0.1, 0.5, 1.0], dtype=torch.float64)
INPUTS: dict[type[TimeInput], tuple[TimeInput, Callable]] = {
    ScaledTime: (ScaledTime(), lambda process: 999.0 * T),
    LogSigma: (LogSigma(), lambda process: torch.log(process.sigma(T))),
    LogScaledTime: (LogScaledTime(), lambda process: torch.log(999.0 * T)),
    LogRatio: (LogRatio(), lambda process: torch.log(process.sigma(T) / process.alpha(T)) / 4),
    LevelLabel: (LevelLabel(between="linear"), lambda process: T * (process.levels - 1)),
}


def test_every_time_input_is_here() -> None:
    assert set(INPUTS) == set(concrete(TimeInput))


@pytest.mark.parametrize(("time_input", "expected"), INPUTS.values(), ids=[c.__name__ for c in INPUTS])
@pytest.mark.parametrize("process", [VE(), VP(), SubVP(), Tabulated(LinearBetas(levels=1000))], ids=str)
def test_time_inputs(time_input, expected, process) -> None:
    assert loads(dumps(time_input), TimeInput) == time_input
    if isinstance(time_input, LevelLabel) and not isinstance(process, Tabulated):
        with pytest.raises(ValueError, match=r"NetworkScore\(levels=Tabulated"):
            time_input(process, T)
        return
    c = time_input(process, T)
    assert c.dtype == torch.float64 and torch.allclose(c, expected(process), rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("levels", [1, 2, 10, 232, 500, 1000, 2311])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_labels_of_every_level(levels: int, dtype: torch.dtype) -> None:
    """Each level has its own label, in float32 times too; NCSN counts from the most noise, DDPM from the least."""
    process = Tabulated(GeometricSigmas(0.01, 50.0, levels))
    level = torch.arange(levels)
    t = process.time(level).to(dtype)
    assert torch.equal(LevelLabel()(process, t), level.double())
    labels = LevelLabel(descending=True)(process, t)
    assert torch.equal(labels, (levels - 1 - level).double())
    if levels > 1:  # NCSN's convention: label l of L lies at t = 1 - l / (L - 1)
        assert torch.allclose(t.double(), 1.0 - labels / (levels - 1), atol=FLOAT32)
    sigma = process.sigma(t)
    assert bool((sigma.diff() > 0).all()) and torch.allclose(sigma[-1], sigma.new_tensor(50.0))


def test_between_the_levels() -> None:
    process = Tabulated(GeometricSigmas(0.01, 50.0, 11))
    between, on = torch.tensor([0.0, 0.44], dtype=torch.float64), torch.tensor([0.0, 0.4], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"t = 0.44 lies between two of the 11 levels.*EveryLevel.*between='linear'"):
        LevelLabel()(process, between)
    assert LevelLabel()(process, on).tolist() == [0.0, 4.0]
    assert torch.allclose(LevelLabel(between="linear")(process, between), torch.tensor([0.0, 4.4]).double())
    assert LevelLabel(between="floor")(process, between).tolist() == [0.0, 4.0]
    assert LevelLabel(descending=True, between="floor")(process, between).tolist() == [10.0, 6.0]
    assert torch.allclose(
        LevelLabel(descending=True, between="linear")(process, between), torch.tensor([10.0, 5.6]).double()
    )
