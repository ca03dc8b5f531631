"""The wrapper around a network: precision, padding, tables, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from score.laws import over, times
from scorefield._typing import Condition
from scorefield.process import VE, VP, LinearBetas, Tabulated
from scorefield.score import (
    LevelLabel,
    LogSigma,
    NetworkScore,
    NoiseForm,
    ScaledScoreForm,
    ScaledTime,
    Score,
    ScoreForm,
)
from tolerance import FLOAT32, FLOAT64


class Recorder(nn.Module):
    """A network that records its inputs; its output is a fixed function of them."""

    def __init__(self, multiple: tuple[int, ...] | None = None, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.5, dtype=dtype))
        if multiple is not None:
            self.multiple = multiple

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        self.x, self.c, self.condition = x, c, dict(condition or {})
        return self.weight * x + over(c, x)


def test_float64_state_around_a_float32_network() -> None:
    process = VE(1e-4, 50.0)
    network = Recorder()
    score = NetworkScore(network, process, NoiseForm(), LogSigma())
    t = times(process, 5)
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    found, denoised = score(x, t), score.denoised(x, t)
    assert network.x.dtype == network.c.dtype == torch.float32
    assert found.dtype == denoised.dtype == torch.float64
    # The state keeps its digits: the network's rounding enters the posterior mean times sigma.
    sigma = over(process.sigma(t), x)
    exact = x - sigma * (0.5 * x + sigma.log())
    assert bool(((denoised - exact).abs() <= FLOAT64 + FLOAT32 * sigma * (1 + sigma.log().abs())).all())
    assert score(x.float(), t.float()).dtype == torch.float32


def test_coefficients_are_float64_with_float32_times() -> None:
    process = VE()
    score = NetworkScore(Recorder(dtype=torch.float64), process, ScaledScoreForm(), ScaledTime(1.0))
    t = torch.tensor([0.3], dtype=torch.float32)
    x = torch.ones(1, 2, dtype=torch.float64)
    assert torch.allclose(score(x, t), (0.5 * x + t.double()) / process.sigma(t.double()), rtol=FLOAT64)
    assert score(x.float(), t).dtype == score.denoised(x.float(), t).dtype == torch.float32  # also around float64


def test_denoised_by_the_form_is_tweedie() -> None:
    score = NetworkScore(Recorder(dtype=torch.float64), VP(), NoiseForm(), ScaledTime())
    t = times(VP(), 5)
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    assert torch.allclose(score.denoised(x, t), Score.denoised(score, x, t), rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)


@pytest.mark.parametrize(
    ("shape", "multiple", "padded"),
    [
        ((1, 5, 6), (4, 4), (8, 8)),
        ((2, 8, 4), (4, 4), (8, 4)),
        ((2, 7, 9), (2, 8), (8, 16)),
        ((3, 13), (8,), (16,)),
        ((1, 3, 5, 2), (2, 4, 2), (4, 8, 2)),
        ((6,), (), ()),
        ((2, 5, 5), None, (5, 5)),
    ],
)
def test_sizes_are_padded_and_cropped(shape, multiple, padded) -> None:
    network = Recorder(multiple, dtype=torch.float64)
    score = NetworkScore(network, VE(), ScoreForm(), ScaledTime(0.0))
    x = torch.linspace(1, 2, 2 * torch.Size(shape).numel(), dtype=torch.float64).reshape(2, *shape)
    t = torch.tensor([0.2, 0.8], dtype=torch.float64)
    condition = {"class": torch.tensor([0, 1]), "vector": torch.ones(2, 3), "image": torch.ones(2, 4, *shape[1:])}
    found = score(x, t, condition)
    assert found.shape == x.shape and torch.allclose(found, 0.5 * x)
    assert tuple(network.x.shape) == (2, shape[0], *padded)
    inside = (slice(None), slice(None), *(slice(0, n) for n in shape[1:]))
    assert torch.equal(network.x[inside], x)
    assert float(network.x.sum()) == pytest.approx(float(x.sum()))  # zeros outside
    if shape[1:]:
        assert tuple(network.condition["image"].shape) == (2, 4, *padded)
        assert float(network.condition["image"].sum()) == condition["image"].sum()
    for name in ("class", "vector"):
        assert network.condition[name] is condition[name]
    assert tuple(condition["image"].shape) == (2, 4, *shape[1:])  # the caller's dictionary is untouched


def test_unknown_images_stay_unknown_when_padded() -> None:
    network = Recorder((4, 4))
    score = NetworkScore(network, VE(), ScoreForm(), ScaledTime())
    image = torch.ones(2, 1, 5, 5)
    image[1] = torch.nan
    score(torch.zeros(2, 1, 5, 5), torch.full((2,), 0.5), {"image": image})
    unknown = network.condition["image"].flatten(1).isnan().any(1)
    assert unknown.tolist() == [False, True]


def test_padding_is_that_of_a_padded_convolution() -> None:
    """The padding of the wrapper has no effect on a convolution that pads with zeros itself."""

    class Convolution(nn.Conv2d):
        multiple = (4, 4)

        def forward(self, x: Tensor, c: Tensor, condition=None) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    torch.manual_seed(0)
    network = Convolution(1, 1, 3, padding=1, bias=False)
    score = NetworkScore(network, VE(), ScoreForm(), ScaledTime())
    x = torch.linspace(-1, 1, 35).reshape(1, 1, 5, 7)
    assert torch.allclose(
        score(x, torch.ones(1)), nn.functional.conv2d(x, network.weight, padding=1), rtol=FLOAT32, atol=FLOAT32
    )


def test_a_table_replaces_the_process_in_the_conversion() -> None:
    """Imported discrete models keep their continuous process; score and label come from the table."""
    table = Tabulated(LinearBetas(levels=100), between="floor")
    network = Recorder(dtype=torch.float64)
    score = NetworkScore(network, VP(), NoiseForm(), LevelLabel(between="linear"), levels=table)
    t = torch.tensor([0.105, 0.5], dtype=torch.float64)
    x = torch.ones(2, 3, dtype=torch.float64)
    found = score(x, t)
    assert score.process == VP()
    assert torch.allclose(network.c, 99 * t)
    assert torch.allclose(
        found, -(0.5 * x + over(99 * t, x)) / over(table.ladder.table()[1][[10, 49]], x), rtol=FLOAT64
    )
    on_ladder = NetworkScore(network, Tabulated(LinearBetas(levels=100)), NoiseForm(), LevelLabel())
    on_ladder(x, torch.tensor([0.0, 1.0]))
    assert network.c.tolist() == [0.0, 99.0]
    with pytest.raises(ValueError, match="between two of the 100 levels"):
        on_ladder(x, t)


def test_times_outside_the_process_are_refused() -> None:
    score = NetworkScore(Recorder(), VP(), NoiseForm(), ScaledTime())
    for bad in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="outside"):
            score(torch.zeros(1, 2), torch.full((1,), bad))
        with pytest.raises(ValueError, match="outside"):
            score.denoised(torch.zeros(1, 2), torch.full((1,), bad))


def test_gradients_reach_the_network_and_the_state() -> None:
    network = Recorder((4, 4), dtype=torch.float64)
    score = NetworkScore(network, VE(), ScoreForm(), ScaledTime())
    x = torch.ones(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    score(x, torch.ones(1)).sum().backward()
    assert network.weight.grad is not None and float(network.weight.grad) == pytest.approx(9.0)
    assert x.grad is not None and torch.allclose(x.grad, torch.full_like(x, 0.5))
