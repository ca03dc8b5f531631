"""Samples against real data: which metrics, against which split, through which features, and what may be compared.

named       the metrics by their short names; the one table
comparison  metrics of samples beside those of a second real split
measuring   metrics fed with samples whose features are known
stream      samples drawn part by part while the features of the part before are computed; several processes
parts       finished parts on a disk, which say what they are of
density     bits per dimension as a metric
sweep       choosing a checkpoint on data that the report does not use
alike       comparing results whose receipts allow it
"""

from scorefield.evaluation import calibration, samplers, stacked_examples
from scorefield.evaluation.accumulation import Measures, Part, first_of
from scorefield.evaluation.checkpoint_selection import Candidate, ranked, require_selecting, splits_of, steps_of
from scorefield.evaluation.checkpoint_selection import lines as sweep_lines
from scorefield.evaluation.comparability import UnlikeError, compare_results, matched, overridden, require_alike, unlike
from scorefield.evaluation.comparison import (
    LARGEST,
    Comparison,
    FeatureChoice,
    against,
    choose_features,
    compare,
    examples,
    examples_at,
    finished,
    reference_of,
    summary,
)
from scorefield.evaluation.evaluate import Evaluation, evaluate
from scorefield.evaluation.held_out_density import Densities, bits_per_dim, why_not
from scorefield.evaluation.part_files import Parts, StalePartError, others, ranges
from scorefield.evaluation.sample_stream import Given, OfModel, SampleStream
from scorefield.metrics.by_name import (
    BITS,
    NAMED,
    SELECTING,
    Ingredients,
    asked,
    functions_of,
    lacking,
    possible,
    title,
)

__all__ = [
    "BITS",
    "LARGEST",
    "NAMED",
    "SELECTING",
    "Candidate",
    "Comparison",
    "Densities",
    "Evaluation",
    "FeatureChoice",
    "Given",
    "Ingredients",
    "Measures",
    "OfModel",
    "Part",
    "Parts",
    "SampleStream",
    "StalePartError",
    "UnlikeError",
    "against",
    "asked",
    "bits_per_dim",
    "calibration",
    "choose_features",
    "compare",
    "compare_results",
    "evaluate",
    "examples",
    "examples_at",
    "finished",
    "first_of",
    "functions_of",
    "lacking",
    "matched",
    "others",
    "overridden",
    "possible",
    "ranges",
    "ranked",
    "reference_of",
    "require_alike",
    "require_selecting",
    "samplers",
    "splits_of",
    "stacked_examples",
    "steps_of",
    "summary",
    "sweep_lines",
    "title",
    "unlike",
    "why_not",
]
