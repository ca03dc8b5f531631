"""The table of solvers: complete, current in the documents, and true of what the solvers do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scorefield.inverse import (
    Function,
    GaussianNoise,
    LaplaceNoise,
    Matrix,
    Observation,
    all_solvers,
    choose,
    posterior,
)
from scorefield.inverse.solvers.table import (
    PREFERRED,
    as_markdown,
    calls_of,
    legal_samplers,
    refusals,
    solver_named,
    table,
)
from scorefield.process import VP
from scorefield.sampling.named import with_steps
from scorefield.score.oracles import skewed_gaussian

PRIOR = skewed_gaussian(VP(), 2)
ROW = Matrix(torch.tensor([[1.0, 0.5]]), (2,))
SEEN = Observation(ROW, torch.tensor([0.3]), GaussianNoise(0.2))
PAGE = Path(__file__).parents[2] / "docs" / "posteriors.md"


def test_documents_hold_the_table() -> None:
    """Write it anew with: python -m pytest tests/inverse/test_solver_table.py; the failure shows it whole."""
    current = as_markdown(table(PRIOR, SEEN))
    assert current in PAGE.read_text(), current


def test_every_solver_is_used_by_its_name_alone() -> None:
    assert {name for name, _ in PREFERRED} <= set(all_solvers())
    for name, cls in all_solvers().items():
        assert solver_named(name) == cls() and cls.exact
        assert not refusals(cls(), PRIOR, SEEN), name


@pytest.mark.parametrize("name", sorted(all_solvers()))
def test_calls_are_those_that_are_made(name: str) -> None:
    solver = solver_named(name)
    few = with_steps(solver.default_sampler(PRIOR), 6)
    told, made = calls_of(solver, PRIOR, SEEN, few), int(posterior(PRIOR, SEEN, 1, solver=solver, sampler=few).nfe)
    assert told == made or (told is None and made > 2 * 6 and name == "repaint")


@pytest.mark.parametrize(
    ("observation", "chosen"),
    [
        (SEEN, "pigdm"),
        (Observation(ROW, torch.tensor([0.3]), GaussianNoise(0.0)), "pigdm"),
        (Observation(ROW, torch.tensor([0.3]), LaplaceNoise(0.2)), "dps"),
        (Observation(Function(lambda x: x**2, (2,)), torch.ones(2), GaussianNoise(0.2)), "dps"),
        (Observation(Function(lambda x: x**2, (2,)), torch.ones(2), GaussianNoise(0.0)), "diffpir"),
    ],
)
def test_auto_chooses_what_fits_and_says_why_not_the_others(observation: Observation, chosen: str) -> None:
    found = choose(PRIOR, observation)
    assert found.solver.name == chosen and found.why.startswith(f"{chosen}: ")
    before = [name for name, _ in PREFERRED][: [name for name, _ in PREFERRED].index(chosen)]
    assert all(f"not {name}: {name} " in found.why for name in before)


def test_an_illegal_pair_names_the_legal_ones() -> None:
    with pytest.raises(ValueError) as refused:
        posterior(PRIOR, SEEN, 1, solver="twisted", sampler="ode")
    told = str(refused.value)
    assert "twisted goes with the steps Ancestral" in told and "ancestral" in told.split("goes with here: ")[1]
    takers = told.split("solvers that take this observation and sampler: ")[1].split(";")[0].split(", ")
    assert "dps" in takers and "twisted" not in takers and "replacement" not in takers
    assert "ode" not in legal_samplers(solver_named("twisted"), PRIOR, SEEN)
