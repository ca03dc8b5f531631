"""The score doctor: tests of the identities that exact scores satisfy, and the name of the fault where one fails.

statistics   means with intervals, and the chance that they are 0
levels       examples at noise levels, and what the score says of them
identities   what exact scores satisfy at one level, as tests and as sizes
remedies     what would mend each known fault
faults       known faults, each named when the data ask for its remedy
coverage     whether the noise levels cover the data
readings     all of it at a level, and the verdict of the level
findings     what is wrong, how large it is, and what to try, as sentences
examination  a whole examination

The floor of a denoising loss is the variance that x leaves in the noise. It is known where the exact score is, and not
for data. There three things stand in its place: how much of the data's variance the score explains, the loss of the
exact score of a Gaussian of the data's moments, which a model should beat, and what the remedies of known faults would
take, a lower bound of the excess.

Of models: other weights, the age of averages, receipts and the page.

records       a checkup and what it depends on
ema_age       how much of its initial weights an average still holds
checkup       examining a model, or a distribution that is known exactly
page          a checkup as a table and as a page
planted_faults known faults put into any score, for seeing that they are named
"""

from __future__ import annotations

from scorefield.diagnostics import (
    checkup,
    coverage,
    ema_age,
    examination,
    faults,
    findings,
    identities,
    levels,
    page,
    planted_faults,
    readings,
    records,
    remedies,
    statistics,
)
from scorefield.diagnostics.checkup import Examples, Settings, examine_model, examine_oracle
from scorefield.diagnostics.ema_age import AverageAge, average_age
from scorefield.diagnostics.examination import Examination, examine, examine_field
from scorefield.diagnostics.faults import MARGIN, Diagnosis, Verdict
from scorefield.diagnostics.findings import Finding
from scorefield.diagnostics.levels import default_times
from scorefield.diagnostics.readings import Row
from scorefield.diagnostics.records import Checkup, DoctorReceipt
from scorefield.diagnostics.statistics import Size

__all__ = [
    "AverageAge",
    "Checkup",
    "Diagnosis",
    "DoctorReceipt",
    "Examination",
    "Examples",
    "Finding",
    "MARGIN",
    "Row",
    "Settings",
    "Size",
    "Verdict",
    "average_age",
    "checkup",
    "coverage",
    "default_times",
    "ema_age",
    "examination",
    "examine",
    "examine_field",
    "examine_model",
    "examine_oracle",
    "faults",
    "findings",
    "identities",
    "levels",
    "page",
    "planted_faults",
    "readings",
    "records",
    "remedies",
    "statistics",
]
