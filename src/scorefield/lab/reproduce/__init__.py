"""The papers' experiments: every table and figure, and what became of its claims here.

An `Entry` names a table or figure, what the paper shows, whether it runs on any machine, and the function that does it;
that function returns `Findings`: the paper's claims with what was found and whether they held, tables with intervals,
and figures. `write_findings` makes JSON, pictures and a page of them.

    two_modes   Langevin against annealed Langevin dynamics with exact scores (NCSN, figure 3)
    noise_kept  the noise that annealed Langevin dynamics and consistent annealing carry (ACSM, figure 1)
    elsewhere   what needs an accelerator or weights, with the commands that do it
"""

from __future__ import annotations

from scorefield._codec import near
from scorefield.lab.reproduce import elsewhere, entry, noise_kept, two_modes, writing
from scorefield.lab.reproduce.entry import PAPERS, Claim, Drawing, Entry, Findings, Job, Table
from scorefield.lab.reproduce.writing import VERDICT, write_findings

ENTRIES: dict[str, Entry] = {e.name: e for module in (two_modes, noise_kept, elsewhere) for e in module.ENTRIES}


def find(name: str) -> Entry:
    """The entry of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in ENTRIES:
        raise ValueError(f"there is no experiment {name!r}.{near(name, ENTRIES)} scorefield reproduce --list says more")
    return ENTRIES[name]


__all__ = [
    "ENTRIES",
    "PAPERS",
    "VERDICT",
    "Claim",
    "Drawing",
    "Entry",
    "Findings",
    "Job",
    "Table",
    "elsewhere",
    "entry",
    "find",
    "noise_kept",
    "two_modes",
    "write_findings",
    "writing",
]
