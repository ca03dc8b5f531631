"""Posterior samples of a model in data units."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inverse.exact_posterior import NOISE, OPERATOR, PRIOR, Exact, problems
from scorefield.data_spec import DataSpec
from scorefield.inverse import Observation, PiGDM, TwistedParticles, posterior
from scorefield.models.posterior import HasPosterior


class Fake(HasPosterior):
    """An oracle in the place of a network."""

    experiment: Any = SimpleNamespace(levels=None)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __init__(self, spec: DataSpec):
        self.data = spec

    def as_score(self) -> Any:
        return PRIOR

    def prior(self) -> Any:
        """Its data have no bounds, whatever the spec of the test says."""
        return PRIOR

    def condition(self, given: Any, n: int) -> Any:
        return None

    def sampler(self, sampler: Any = None, steps: int | None = None) -> Any:
        return sampler


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec((4,), low=0.0, high=255.0),
        DataSpec((4,), low=-1.0, high=1.0),
        DataSpec((4,), low=None, high=None, offset=3.0, scale=0.01),
    ],
)
def test_units_of_the_data_do_not_change_the_posterior(spec: DataSpec) -> None:
    """The same y of the same quantity: samples are the same points in other units, with the same residuals."""
    _, there = problems(2)
    slope, intercept = (v.double()[0] for v in spec.affine())  # model = slope data + intercept
    shifted = there.observed - OPERATOR(intercept.expand(2, 4))
    here = Observation(OPERATOR, shifted / slope, type(NOISE)(NOISE.std / float(slope)))
    found = Fake(spec).posterior(here, 3, solver=Exact(), seed=1, start=5)
    expected = posterior(PRIOR, there, 3, solver=Exact(), seed=1, start=5)
    torch.testing.assert_close(spec.to_model(found.x.flatten(0, 1)).reshape(2, 3, 4), expected.x, rtol=1e-4, atol=1e-4)
    assert found.residual.p_value is not None and expected.residual.p_value is not None
    torch.testing.assert_close(found.residual.p_value, expected.residual.p_value, rtol=1e-2, atol=1e-3)
    assert found.start == 5 and found.why == "as asked"


def test_what_a_solver_leaves_open_is_filled_in_from_the_data() -> None:
    bounded = DataSpec((4,), low=0.0, high=255.0, model_range=(0.0, 1.0))
    _, there = problems(2)
    found = Fake(bounded).posterior(there, 1, solver="pigdm")
    assert found.solver == PiGDM(prior_std=0.25)
    assert PiGDM(prior_std=0.7).for_data(bounded, there) == PiGDM(prior_std=0.7)
    assert PiGDM().for_data(DataSpec((4,)), there) == PiGDM()
    assert TwistedParticles(4).for_data(bounded, there) == TwistedParticles(4, twist=PiGDM(prior_std=0.25))
