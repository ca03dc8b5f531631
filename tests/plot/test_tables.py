"""Tables of examples: named columns, the scale below, and the same examples in a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scorefield.data_spec import DataSpec
from scorefield.plot.pictures import image_grid
from scorefield.plot.tables import example_table

GREY = DataSpec((1, 8, 8), low=0.0, high=16.0)


def test_table_is_the_grid_between_names_and_scale() -> None:
    torch.manual_seed(0)
    truth, mean = torch.rand(3, 1, 8, 8) * 16, torch.rand(3, 1, 8, 8) * 16
    image = np.asarray(example_table({"truth": truth, "mean": mean}, GREY, caption="White is 3 mK."))
    rows = torch.stack([truth, mean], dim=1).flatten(0, 1)
    grid = np.asarray(image_grid(rows, GREY, 2))
    tops = [i for i in range(len(image)) if np.array_equal(image[i : i + len(grid), : grid.shape[1]], grid)]
    assert len(tops) == 1  # the examples are drawn exactly as image_grid draws them
    (top,) = tops
    assert (image[:top] < 128).any() and (image[top + len(grid) :] < 150).any()  # ink above and below
    left, right = image[:top, : grid.shape[1] // 2], image[:top, grid.shape[1] // 2 : grid.shape[1]]
    assert (left < 128).any() and (right < 128).any()  # each column has a name


def test_rows_are_bounded_and_columns_wide_enough_for_their_names() -> None:
    x = torch.zeros(40, 1, 8, 8)
    few, many = example_table({"x": x[:16]}, GREY), example_table({"x": x}, GREY)
    assert few.size == many.size
    name = "a name far wider than one small image of eight pixels"
    assert example_table({name: x[:1], "b": x[:1]}, GREY).width > 400


@pytest.mark.parametrize("shape", [(2, 12), (4, 6, 6), (1, 4, 6, 6)], ids=["signals", "channels", "volumes"])
def test_other_shapes(shape: tuple[int, ...]) -> None:
    spec = DataSpec(shape, units="mK")
    image = example_table({"a": torch.randn(2, *shape), "b": torch.randn(2, *shape)}, spec)
    assert np.asarray(image).std() > 0


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sf\.plot\.samples"):
        example_table({"x": torch.zeros(2, 3)}, DataSpec((3,)))
