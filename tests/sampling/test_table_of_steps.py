"""The table of steps in docs/sampling.md against the classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scorefield.sampling import Chain, Consistent, Hold, InpaintingLangevin, Langevin, Repeat, TemperatureLangevin
from scorefield.sampling.step import Step

PAGE = Path(__file__).parents[2] / "docs" / "sampling.md"
BUILT = {
    Chain: Chain((Langevin(), Hold())),
    Repeat: Repeat(Langevin(), 3),
    Consistent: Consistent(0.5),
    InpaintingLangevin: InpaintingLangevin(TemperatureLangevin(), torch.tensor([True, False])),
}
"""Instances of the steps whose constructors need arguments."""


def steps(cls: type[Step] = Step) -> Iterator[type[Step]]:
    for sub in cls.__subclasses__():
        if not inspect.isabstract(sub) and sub.__module__.startswith("scorefield.sampling."):
            yield sub
        yield from steps(sub)


def table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in rows}


def test_every_step_has_its_row() -> None:
    assert set(table()) == {cls.__name__ for cls in steps()}


CLASSES = {cls.__name__: cls for cls in sorted(set(steps()), key=lambda c: c.__name__)}


@pytest.mark.parametrize("cls", CLASSES.values(), ids=list(CLASSES))
def test_rows_say_what_the_classes_declare(cls: type[Step]) -> None:
    equation, order, calls, processes, source = table()[cls.__name__]
    step = BUILT[cls] if cls in BUILT else cls()
    assert equation and re.search(r"\b(19|20)\d\d\b", source)
    if step.order is not None:
        assert order == str(step.order)
    else:
        assert order.startswith("invariant: ") and step.invariant is not None
        assert step.invariant.startswith(order.removeprefix("invariant: "))
    if cls not in (Chain, Repeat):
        made = step.calls_per_step()
        assert calls == ("adaptive" if made is None else str(made))
        assert processes == {"nothing": "any"}.get(step.needs, step.needs)
