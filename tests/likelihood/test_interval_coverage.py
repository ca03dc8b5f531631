"""Coverage of intervals against exact densities, from the table of `benchmarks/likelihood.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from scorefield.likelihood.probability_flow import FlowSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """Import benchmarks/likelihood.py, which is not part of a package."""
    path = Path(__file__).parents[2] / "benchmarks" / "likelihood.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_likelihood", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.mark.parametrize("D", [2, 16, 64, 256])
@pytest.mark.parametrize("name", ["VP", "VE"])
def test_intervals_cover_and_are_no_wider_than_the_errors(benchmark: ModuleType, name: str, D: int) -> None:
    """Coverage of 200 points within binomial error, and a half-width of at most three median errors."""
    row = benchmark.coverage(name, D, 200, FlowSettings(probes=8))
    assert row["covered"] >= row["limit"]
    assert row["half / median"] <= benchmark.TARGETS["half / median"]
    if D == 2:
        # No tolerance removes what is left: of the terms, the prior's explains it.
        assert row["std_error"] == 0.0 and row["prior_mismatch"] > 10 * row["solver_error"]
        assert row["median width"] < 2 * row["median error"]
