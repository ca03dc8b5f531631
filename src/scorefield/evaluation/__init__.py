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

from scorefield.lab.evaluation.alike import UnlikeError, compare_results, matched, overridden, require_alike, unlike
from scorefield.lab.evaluation.comparison import (
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
from scorefield.lab.evaluation.density import Densities, bits_per_dim, why_not
from scorefield.lab.evaluation.measuring import Measures, Part, first_of
from scorefield.lab.evaluation.named import (
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
from scorefield.lab.evaluation.parts import Parts, StalePartError, others, ranges
from scorefield.lab.evaluation.stream import Given, OfModel, SampleStream
from scorefield.lab.evaluation.sweep import Candidate, ranked, require_selecting, splits_of, steps_of
from scorefield.lab.evaluation.sweep import lines as sweep_lines

__all__ = [
    "BITS",
    "LARGEST",
    "NAMED",
    "SELECTING",
    "Candidate",
    "Comparison",
    "Densities",
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
    "choose_features",
    "compare",
    "compare_results",
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
    "splits_of",
    "steps_of",
    "summary",
    "sweep_lines",
    "title",
    "unlike",
    "why_not",
]
