"""Whether posterior samples are to be trusted: problems whose truths are known, and what solvers make of them.

problems    truths, their simulated measurements, and what is asked about them
measuring   answers of each solver, and their calibration
page        the table, the curves and the histograms
"""

from scorefield.lab.trust import measuring, page, problems
from scorefield.lab.trust.measuring import SolverRow, answers, exact_answers, judge
from scorefield.lab.trust.problems import (
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
    "measuring",
    "model_subject",
    "oracle_subject",
    "page",
    "problems",
    "simulate",
]
