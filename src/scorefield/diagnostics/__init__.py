"""The score doctor: does a score do what exact scores do, and if not, what is wrong with it?

statistics   means with intervals, and the chance that they are 0
levels       examples at noise levels, and what the score says of them
identities   what exact scores satisfy at one level, as tests and as sizes
remedies     what would mend each known fault
faults       known faults, each named when the data ask for its remedy
coverage     whether the noise levels cover the data
readings     all of it at a level, and the verdict of the level
findings     what is wrong, how large it is, and what to try, in words
examination  a whole examination

The floor of a denoising loss is the variance that x leaves in the noise. It is known where the exact score is, and not
for data. There three things stand in its place: how much of the data's variance the score explains, the loss of the
exact score of a Gaussian of the data's moments, which a model should beat, and what the remedies of known faults would
take, a lower bound of the excess.
"""

from __future__ import annotations

from scorefield.inference.doctor import (
    coverage,
    examination,
    faults,
    findings,
    identities,
    levels,
    readings,
    remedies,
    statistics,
)
from scorefield.inference.doctor.examination import Examination, examine, examine_field
from scorefield.inference.doctor.faults import MARGIN, Diagnosis, Verdict
from scorefield.inference.doctor.findings import Finding
from scorefield.inference.doctor.levels import default_times
from scorefield.inference.doctor.readings import Row
from scorefield.inference.doctor.statistics import Size

__all__ = [
    "MARGIN",
    "Diagnosis",
    "Examination",
    "Finding",
    "Row",
    "Size",
    "Verdict",
    "coverage",
    "default_times",
    "examination",
    "examine",
    "examine_field",
    "faults",
    "findings",
    "identities",
    "levels",
    "readings",
    "remedies",
    "statistics",
]
