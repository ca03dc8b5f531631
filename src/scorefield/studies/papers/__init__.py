"""The papers' experiments: every table and figure, and what became of its claims here.

An `Entry` names a table or figure, what the paper shows, whether it runs on any machine, and the function that does it;
that function returns `Findings`: the paper's claims with what was found and whether they held, tables with intervals,
and figures. `write_findings` makes JSON, pictures and a page of them.

    tiny_noise  sliced score matching with and without tiny noise (NCSN, figure 1)
    low_density estimated scores where there are few data (NCSN, figure 2)
    two_modes   Langevin against annealed Langevin dynamics with exact scores (NCSN, figure 3)
    joint_or_single       training at all noise levels or at one (NCSN)
    sliced_or_denoising   one network by two losses (NCSN); on_digits is what these two share
    energy_levels         energies of one level and of many, by dimension (MDSM); shells are its closed forms
    noise_kept  the noise that annealed Langevin dynamics and consistent annealing carry (ACSM, figure 1)
    annealed_settings     samples on the way (NCSN, figure 4), and the choice of T and epsilon (NCSNv2)
    denoised_consistent   and with a critic or without (ACSM's tables)
    predictors_correctors at equal calls (Score-SDE, table 1)
    objective_sampler     every objective with every sampler, on a mixture whose law is known
    elsewhere   what needs an accelerator or weights, with the commands that do it
"""

from __future__ import annotations

from scorefield._codec import near
from scorefield.studies.papers import (
    annealed_settings,
    denoised_consistent,
    energy_levels,
    entry,
    joint_or_single,
    low_density,
    needs_hardware,
    noise_kept,
    objective_sampler,
    on_digits,
    predictors_correctors,
    shells,
    sliced_or_denoising,
    tiny_noise,
    two_modes,
    writing,
)
from scorefield.studies.papers.entry import PAPERS, Claim, Drawing, Entry, Findings, Job, Table
from scorefield.studies.papers.writing import VERDICT, write_findings

_HERE = (
    tiny_noise,
    low_density,
    two_modes,
    joint_or_single,
    sliced_or_denoising,
    energy_levels,
    annealed_settings,
    noise_kept,
    denoised_consistent,
    predictors_correctors,
    objective_sampler,
)
ENTRIES: dict[str, Entry] = {e.name: e for module in (*_HERE, needs_hardware) for e in module.ENTRIES}


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
    "annealed_settings",
    "denoised_consistent",
    "needs_hardware",
    "energy_levels",
    "entry",
    "find",
    "joint_or_single",
    "low_density",
    "noise_kept",
    "objective_sampler",
    "on_digits",
    "predictors_correctors",
    "shells",
    "sliced_or_denoising",
    "tiny_noise",
    "two_modes",
    "write_findings",
    "writing",
]
