"""Evaluation of samples against real data: metrics, reference splits, feature extractors, and what may be compared.

Values of a metric can be compared if they were measured in the same way. Every value carries a receipt of what it
depends on, and `compare_results` refuses values whose receipts differ in more than what is compared.

    evaluate              `sf.evaluate`: metrics of a model or of samples in memory
    comparison            metrics of samples beside those of a second real split
    accumulation          metrics fed with samples whose features are known
    sample_stream         samples drawn in parts while features of the previous part are computed
    part_files            finished parts on disk, each with a hash of what it depends on
    held_out_density      bits per dimension as a metric
    checkpoint_selection  choosing a checkpoint on data that the report does not use
    comparability         comparing results whose receipts allow it
    stacked_examples      the classifier that counts the modes of stacked examples
    samplers              comparison and tuning of samplers
    calibration           calibration of posterior solvers on simulated problems
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
