"""Outlier scores against closed forms, conformal p-values, the uniformity test, and complexity baselines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.energy.outliers import Reference, complexity, conformal, statistics, uniformity
from scorefield.process import VP, LinearSigmas, Tabulated
from scorefield.score import EnergyScore
from scorefield.score.oracles import Gaussian
from tolerance import FLOAT64, SIGNIFICANCE

F64 = torch.float64
LADDER = Tabulated(LinearSigmas(0.05, 1.2, 16))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def energy_score() -> EnergyScore:
    """The energy of N(0, I) data at T = 1."""
    return EnergyScore(lambda x, t, c: 0.5 * x.square().sum(1), LADDER)


def test_statistics_of_a_quadratic_energy() -> None:
    """E(x + sigma z) has the mean (|x|^2 + D sigma^2) / 2, and values of an example do not depend on its batch."""
    x = normal(0, 6, 50)
    found = statistics(energy_score(), x, indices=range(6), sigma=0.1, draws=40)
    expected = 0.5 * (x.square().sum(1) + 50 * 0.1**2)
    error = 0.1 * x.norm(dim=1) / 40**0.5
    assert bool(((found.values["energy"] - expected).abs() < 6 * error + 0.1).all())
    wrong = 0.5 * x.square().sum(1) * 1.5
    assert not bool(((found.values["energy"] - wrong).abs() < 6 * error + 0.1).all())
    alone = statistics(energy_score(), x[2:3], indices=[2], sigma=0.1, draws=40)
    torch.testing.assert_close(alone.values["energy"], found.values["energy"][2:3], rtol=1e3 * FLOAT64, atol=0)
    assert found.norms.shape == (6, 10) and not found.missing


def test_scores_of_a_closed_form_find_wider_data() -> None:
    process = VP()
    score = Gaussian(process, torch.zeros(16, dtype=F64), torch.tensor(0.25, dtype=F64))
    inside, outside = 0.5 * normal(1, 80, 16), normal(2, 40, 16)
    found = statistics(score, torch.cat([inside, outside]), indices=range(120), sigma=0.2)
    assert "energy" not in found.values and "energy" in found.missing
    from scorefield.energy.outliers import Statistics

    fitted = Reference.fit(Statistics({k: v[:40] for k, v in found.values.items()}, found.norms[:40], {}))
    scores = fitted.scores(found)
    for name in ("gradient norm", "noise levels"):
        assert float(scores[name][80:].median()) > float(scores[name][40:80].quantile(0.9)), name


def test_typicality_is_the_distance_from_the_median() -> None:
    x = normal(3, 60, 20)
    found = statistics(energy_score(), x, indices=range(60), sigma=0.1, draws=1)
    fitted = Reference.fit(found)
    scores = fitted.scores(found)
    torch.testing.assert_close(scores["typicality"], (found.values["energy"] - found.values["energy"].median()).abs())
    with pytest.raises(ValueError, match="do not determine"):
        Reference.fit(statistics(energy_score(), x[:5], indices=range(5), sigma=0.1, draws=1))


def test_energies_of_several_outputs_and_noise_off_the_ladder_are_refused() -> None:
    wide = EnergyScore(lambda x, t, c: x.square(), LADDER)
    with pytest.raises(TypeError, match="one number per example"):
        statistics(wide, normal(0, 3, 4), indices=range(3), sigma=0.1)
    with pytest.raises(ValueError, match="not among them"):
        statistics(energy_score(), normal(0, 3, 4), indices=range(3), sigma=7.0)


def test_conformal_p_values() -> None:
    held = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert conformal(held, torch.tensor([0.0, 2.0, 3.0, 9.0])).tolist() == [1.0, 0.8, 0.4, 0.2]
    with pytest.raises(ValueError, match="NaN"):
        conformal(held, torch.tensor([float("nan")]))


def test_p_values_keep_their_promise_and_uniformity_is_tested() -> None:
    """P(p <= alpha) <= alpha over calibration sets, and a shifted distribution is rejected."""
    draws = normal(4, 4000, 40)
    p = torch.stack([conformal(row[:39], row[39:]) for row in draws])[:, 0]
    for alpha in (0.05, 0.25):
        share, deviation = float((p <= alpha).double().mean()), (alpha * (1 - alpha) / 4000) ** 0.5
        assert abs(share - alpha) < 5 * deviation, "39 calibration examples: alpha (n + 1) is whole, so it is exact"
    levels = torch.tensor([uniformity(row[:20], row[20:]) for row in draws[:400]])
    assert float((levels < 0.05).double().mean()) < 0.1
    assert uniformity(normal(5, 300), normal(6, 300) + 1.0) < SIGNIFICANCE


def test_uniformity_against_a_reference() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = normal(7, 200), normal(8, 150) + 0.2
    exact = stats.ks_2samp(a.numpy(), b.numpy(), method="exact").pvalue
    assert uniformity(a, b) == pytest.approx(exact, rel=0.15)


def test_complexity_orders_flat_smooth_and_noisy() -> None:
    spec = DataSpec((1, 16, 16), 0, 255, 256)
    ramp = torch.linspace(0, 255, 16).expand(16, 16)
    noise = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) * 255
    x = torch.stack([torch.full((16, 16), 100.0), ramp, noise])[:, None]
    found = complexity(x, spec)
    for name in ("compressed length", "mean difference of neighbours"):
        flat, smooth, noisy = found[name].tolist()
        assert flat < smooth < noisy, name
    assert float(found["variance"][0]) == 0.0
    torch.testing.assert_close(found["variance"][1], (ramp / 255).double().var(correction=0), rtol=1e-6, atol=0)
    vector = complexity(normal(0, 3, 5), DataSpec((5,)))
    assert set(vector) == set(found)
