"""Calibration of posterior solvers on simulated problems whose true examples are known.

problems     true examples and their simulated measurements
measurement  posterior samples of each solver, and their calibration
page         the table, the curves and the histograms as a report
"""

from scorefield.evaluation.calibration import measurement, page, problems
from scorefield.evaluation.calibration.measurement import SolverRow, answers, exact_answers, judge
from scorefield.evaluation.calibration.problems import (
    ORACLES,
    Problems,
    Subject,
    default_operator,
    model_subject,
    oracle_subject,
    simulate,
)

__all__ = [
    "ORACLES",
    "Problems",
    "SolverRow",
    "Subject",
    "answers",
    "default_operator",
    "exact_answers",
    "judge",
    "measurement",
    "model_subject",
    "oracle_subject",
    "page",
    "problems",
    "simulate",
]
