"""One lineage, one comparison: every method trained on the same data for the same time, and measured alike.

Methods differ in four parts: the path from data to noise, what the network's output means, the objective and the
sampler. `methods` has them as published; network or number of parameters, data, batch, training time and calls of a
sample are equal. A run is a method with a seed, in a run folder of its own:

    methods    NCSN, NCSNv2, MDSM, adversarial + CAS, VE, VP and sub-VP, on levels and in continuous time
    sizes      the network that scores share, and an energy of as many parameters
    running    train, sample, measure; what is finished is found again
    records    what a run left behind; numbers over seeds
    claims     the papers' claims, by paired differences
    objective  models of one weighting and one set of levels, by their loss on the same (x, level, z)
    page       table, JSON and page

A number over k seeds has Student's interval from their spread, never narrower than one run's own. Differences are taken
seed by seed with the same noise and held-out data. Equal time is equal compute only on an evenly loaded machine, so
steps and load are stated.
"""

from scorefield.studies.methods import claims, lineage, objective, page, records, running, sizes
from scorefield.studies.methods.claims import STATEMENTS, judged, run_folder
from scorefield.studies.methods.lineage import METHODS, Method, Sampling, Terms
from scorefield.studies.methods.objective import Loss, alike, compare_objectives
from scorefield.studies.methods.page import lines_of, notes, results_table, write_comparison
from scorefield.studies.methods.records import Estimate, MethodRun, Sampled, over_seeds
from scorefield.studies.methods.running import Judge, farthest, fitting, judge_of, read_run, run_method
from scorefield.studies.methods.sizes import body_of

__all__ = [
    "METHODS",
    "STATEMENTS",
    "Estimate",
    "Judge",
    "Loss",
    "Method",
    "MethodRun",
    "Sampled",
    "Sampling",
    "Terms",
    "alike",
    "body_of",
    "claims",
    "compare_objectives",
    "farthest",
    "fitting",
    "judge_of",
    "judged",
    "lines_of",
    "lineage",
    "notes",
    "objective",
    "over_seeds",
    "page",
    "read_run",
    "records",
    "results_table",
    "run_folder",
    "run_method",
    "running",
    "sizes",
    "write_comparison",
]
