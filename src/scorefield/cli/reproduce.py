"""`scorefield reproduce`: the papers' tables and figures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from scorefield.cli.console.arguments import Flag, Number, Out, Seed

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from scorefield.studies.papers import Entry


@dataclass(frozen=True)
class Reproduce:
    """Run a table or figure of the papers: numbers with intervals, a figure, and whether its claims hold here."""

    name: Positional[
        Annotated[str | None, arg(metavar="NAME", help="Which table or figure; --list shows all names.")]
    ] = None
    list: Flag = False
    """List every table and figure: whether it runs here, needs CUDA or needs weights, with time and memory."""
    effort: Number = 1.0
    """Factor on particles, samples and training steps; claims are judged at 1."""
    seed: Seed = 0
    out: Out = None
    """Output folder. Default: reproduced/NAME."""


def run(command: Reproduce) -> None:
    """Carry out the command.

    Raises:
        ValueError: No such experiment, one that does not run here, or an effort that is not positive.
    """
    from scorefield.cli.console.progress import bar
    from scorefield.studies.papers import VERDICT, Job, find, write_findings

    if command.list:
        _list()
        return
    if command.name is None:
        raise ValueError("which experiment? scorefield reproduce NAME; scorefield reproduce --list names all")
    entry = find(command.name)
    if entry.run is None:
        steps = "\n  ".join(entry.instead)
        raise ValueError(
            f"{entry.name} ({entry.paper}, {entry.item}) {entry.state} and is not run by this command. Where there are,"
            f" these do it:\n  {steps}"
        )
    if command.effort <= 0 or command.seed < 0:
        raise ValueError(f"effort={command.effort} must be positive and seed={command.seed} not negative")
    out = command.out or Path("reproduced") / entry.name
    started = time.perf_counter()
    print(f"{entry.title}: {entry.paper}, {entry.item}; about {_minutes(entry, command.effort)}", flush=True)
    with bar() as progress:
        findings = entry.run(Job(out, command.seed, command.effort, _Display(progress)))
    page = write_findings(entry, findings, out, time.perf_counter() - started)
    for claim in findings.claims:
        print(f"{VERDICT[claim.held]:>12}: {claim.statement}\n              {claim.found}")
    print(page)


def _minutes(entry: Entry, effort: float) -> str:
    return f"{max(1, round((entry.minutes or 1) * effort))} min, {entry.memory:g} GiB"


def _list() -> None:
    """Every table and figure with its state."""
    from scorefield.studies.papers import ENTRIES, PAPERS

    width = max(len(name) for name in ENTRIES)
    for paper in PAPERS:
        print(f"{paper}: {PAPERS[paper]}")
        for e in (e for e in ENTRIES.values() if e.paper == paper):
            cost = f"{e.minutes:g} min, {e.memory:g} GiB" if e.run is not None else ""
            print(f"  {e.name:{width}}  {e.state:13}  {cost:16}  {e.item}: {e.title}")


class _Display:
    """Messages as lines; the steps of trainings as a bar."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._task: TaskID | None = None

    def message(self, text: str) -> None:
        """A line."""
        print(text, flush=True)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._progress.add_task("training", total=steps)
        self._progress.update(self._task, total=steps, completed=step)

    def row(self, row: dict[str, Any]) -> None:
        """Nothing: the run folder has it."""
