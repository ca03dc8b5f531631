"""Settings of all tests: one thread, no network, no display, reproducible Hypothesis runs, and larger test data."""

from __future__ import annotations

import os
from pathlib import Path

# Set before torch, matplotlib or a hub client is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# There is no deadline, because other load can stall a test. Derandomised runs give the same verdict for the same code.
settings.register_profile(
    "scorefield", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("scorefield")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of larger test data, named by SCOREFIELD_TEST_DATA; tests that need it are skipped without it."""
    folder = os.environ.get("SCOREFIELD_TEST_DATA")
    if not folder:
        pytest.skip("SCOREFIELD_TEST_DATA, the folder of larger test data, is not set")
    return Path(folder)
