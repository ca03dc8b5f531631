"""The score doctor: tests of identities that every exact score satisfies, and the name of the fault where they fail.

If the score is exact, the residual noise w = z + sigma score(x, t) satisfies E[w . u(x)] = 0 for every function u.
Each known fault has a remedy h -> h + u of the predicted noise h = -sigma score, and the coefficient
b = E[w . u] / E|u|^2 is 0 for an exact score and 1 for a score with exactly this fault. The lowest possible denoising
loss is the variance of the noise given x, which is known where the exact score is known, and not for data. For data
three numbers take its place: the share of the data's variance that the score explains, the loss of the exact score of
a Gaussian with the moments of the data, and how much the remedies reduce the loss, a lower bound of the excess loss.

    examination     all measurements of a score
    levels          noisy examples at noise levels, and the score at them
    identities      the identities at one level, as tests and as magnitudes
    remedies        the correction of each known fault
    faults          known faults, each identified by its remedy
    coverage        whether the noise levels cover the data
    readings        all measurements at one level, and the verdict of the level
    findings        what is wrong, how large it is, and what to try, as sentences
    statistics      means with intervals, and tests that they are 0
    checkup         the examination of a trained model, or of a score known in closed form
    ema_age         the share of the initial weights that an average still contains
    records         the results and their provenance
    page            the results as a table and as a report
    planted_faults  known faults put into any score, to test that they are identified
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
