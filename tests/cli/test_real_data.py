"""Data brought to a trained model: of its shape and units, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scorefield.cli.console.reference_data import real_data
from scorefield.data import DataError, DataSource
from scorefield.data_spec import DataSpec

GREY = DataSpec((1, 4, 4), low=0.0, high=16.0, levels=17, model_range=(0.0, 1.0))
SOURCE = DataSource("digits", model_range=(0.0, 1.0))


def test_floats_without_a_range_are_in_the_units_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.default_rng(0).integers(0, 17, (6, 1, 4, 4)).astype(np.float32)
    np.save(tmp_path / "grey.npy", values)
    data = real_data(SOURCE, str(tmp_path / "grey.npy"), GREY)
    assert (data.spec.low, data.spec.high, data.spec.levels) == (0.0, 16.0, 17)
    assert "taken to be in the model's units, 0.0 to 16.0" in capsys.readouterr().out
    np.save(tmp_path / "unit.npy", values / 16.0)
    with pytest.raises(DataError, match="none of the 17 grey levels"):
        real_data(SOURCE, str(tmp_path / "unit.npy"), GREY)
    np.save(tmp_path / "bytes.npy", values.astype(np.uint8))
    with pytest.raises(DataError, match="across units. Arrays of floats"):
        real_data(SOURCE, str(tmp_path / "bytes.npy"), GREY)
