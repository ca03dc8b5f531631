"""Experiments of the papers: their tables and figures, repeated where a laptop suffices, with a verdict on each claim.

NCSN trains one network s(x, sigma) on data perturbed by z ~ N(0, sigma^2 I) at a ladder of noise levels, with the loss
lambda(sigma) |s(x_0 + z, sigma) + z / sigma^2|^2 / 2 of denoising score matching, and samples by annealed Langevin
dynamics: at every level, T steps

    x <- x + (e / 2) s(x, sigma) + sqrt(e) z,    e proportional to sigma^2.

NCSNv2 derives the ladder and the step from the data, MDSM trains an energy E(x) with score -grad E / T in place of s,
ACSM replaces the Langevin step by consistent annealing and adds a discriminator, and Score-SDE passes to continuous
time. Each experiment below repeats one table or figure of these papers. An `Entry` names it and says what the paper
shows; its function `run` takes a `Job` and returns `Findings`: claims with verdicts, tables with intervals, and
figures. `write_findings` writes them as JSON, PNG and HTML. `ENTRIES` holds all entries by name.

    module                  experiment                                                            paper
    tiny_noise              sliced score matching with and without noise of deviation 0.01        NCSN, figure 1
    low_density             errors of estimated scores where the density is low                   NCSN, figure 2
    langevin_mode_weights   Langevin and annealed Langevin dynamics on two modes, exact scores    NCSN, figure 3
    langevin_step_settings  samples after every level; the choice of T and epsilon                NCSN, figure 4; NCSNv2
    joint_or_single_level   training at all noise levels or at one                                NCSN
    sliced_or_denoising     one network trained by two losses, quality and time                   NCSN
    energy_noise_levels     energies trained at one or at many levels, 2 to 3072 dimensions       MDSM
    noise_along_chains      noise carried by a chain against the noise its ladder prescribes      ACSM, figure 1
    acsm_ablation           denoising, consistent annealing and the discriminator                 ACSM, tables of FID
    predictors_correctors   predictors and correctors at equal numbers of network evaluations     Score-SDE, table 1
    objective_sampler       every objective with every sampler on a known mixture                 all
    accelerator_entries     experiments that need an accelerator or weights, with their commands  all

    entry                   Entry, Job, Claim, Findings; intervals; noise for many particles
    writing                 findings.json, figures and the HTML report
    digits_setup            data, network, loss, sampler and metrics of the experiments on the digits
    noise_shell_overlap     closed forms for the overlap of noise shells, used by energy_noise_levels
"""

from __future__ import annotations

from scorefield._codec import near
from scorefield.studies.papers import (
    accelerator_entries,
    acsm_ablation,
    digits_setup,
    energy_noise_levels,
    entry,
    joint_or_single_level,
    langevin_mode_weights,
    langevin_step_settings,
    low_density,
    noise_along_chains,
    noise_shell_overlap,
    objective_sampler,
    predictors_correctors,
    sliced_or_denoising,
    tiny_noise,
    writing,
)
from scorefield.studies.papers.entry import PAPERS, Claim, Drawing, Entry, Findings, Job, Table
from scorefield.studies.papers.writing import VERDICT, write_findings

_MODULES = (
    tiny_noise,
    low_density,
    langevin_mode_weights,
    joint_or_single_level,
    sliced_or_denoising,
    energy_noise_levels,
    langevin_step_settings,
    noise_along_chains,
    acsm_ablation,
    predictors_correctors,
    objective_sampler,
    accelerator_entries,
)
ENTRIES: dict[str, Entry] = {e.name: e for module in _MODULES for e in module.ENTRIES}


def find(name: str) -> Entry:
    """Return the experiment with a name.

    Raises:
        ValueError: There is no experiment of that name; the message suggests similar names.
    """
    if name not in ENTRIES:
        raise ValueError(
            f"there is no experiment {name!r}.{near(name, ENTRIES)} The names are listed by scorefield reproduce --list"
        )
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
    "accelerator_entries",
    "acsm_ablation",
    "digits_setup",
    "energy_noise_levels",
    "entry",
    "find",
    "joint_or_single_level",
    "langevin_mode_weights",
    "langevin_step_settings",
    "low_density",
    "noise_along_chains",
    "noise_shell_overlap",
    "objective_sampler",
    "predictors_correctors",
    "sliced_or_denoising",
    "tiny_noise",
    "write_findings",
    "writing",
]
