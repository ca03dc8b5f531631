"""Comparison of the methods: each trained on the same data for the same time, and measured in the same way.

A method has four parts: the path x_t = alpha(t) x_0 + sigma(t) z from data to noise, the parametrisation of the score
(what the network's output means), the objective, and the sampler. `METHODS` has these four parts as published for NCSN,
NCSNv2, MDSM, ACSM (NCSNv2 with a discriminator and consistent annealing), for VE and VP with discrete levels and in
continuous time, and for sub-VP. Everything else is equal for all: data, network or number of parameters, batch size,
training time, and network evaluations per sample. A run is one method with one seed, in a run folder of its own.

A number over k seeds has the interval

    mean +- max(t s / sqrt(k), 1.96 mean standard error)

of Student's t from the spread s of the seeds, which is never narrower than the interval of a single run. Differences of
two methods are paired: the same seed, noise and held-out data. Equal time is equal compute only on an evenly loaded
machine, so that optimiser steps and load are reported as well.

    definitions  the methods as experiments: NCSN, NCSNv2, MDSM, adversarial, VE, VP and sub-VP
    sizes        the network that all score models share, and an energy with as many parameters
    running      trains, samples and measures one run; finished parts are read back and not repeated
    records      the record of a run, and estimates over seeds
    claims       the papers' claims, checked by paired differences
    objective    comparison of models with one weighting and one set of levels by their loss on the same (x, level, z)
    page         results table, JSON and HTML report
"""

from scorefield.studies.methods import claims, definitions, objective, page, records, running, sizes
from scorefield.studies.methods.claims import PAIRED_CLAIMS, check_claims, run_folder
from scorefield.studies.methods.definitions import METHODS, Method, Sampling, SharedSettings
from scorefield.studies.methods.objective import Loss, comparable_groups, compare_objectives
from scorefield.studies.methods.page import notes, result_rows, results_table, write_comparison
from scorefield.studies.methods.records import Estimate, MethodRun, Sampled, estimate_over_seeds
from scorefield.studies.methods.running import (
    EvaluationSettings,
    evaluation_settings,
    largest_data_distance,
    read_run,
    run_method,
    select_methods,
)
from scorefield.studies.methods.sizes import choose_architecture

__all__ = [
    "METHODS",
    "PAIRED_CLAIMS",
    "Estimate",
    "EvaluationSettings",
    "Loss",
    "Method",
    "MethodRun",
    "Sampled",
    "Sampling",
    "SharedSettings",
    "check_claims",
    "choose_architecture",
    "claims",
    "comparable_groups",
    "compare_objectives",
    "definitions",
    "estimate_over_seeds",
    "evaluation_settings",
    "largest_data_distance",
    "notes",
    "objective",
    "page",
    "read_run",
    "records",
    "result_rows",
    "results_table",
    "run_folder",
    "run_method",
    "running",
    "select_methods",
    "sizes",
    "write_comparison",
]
