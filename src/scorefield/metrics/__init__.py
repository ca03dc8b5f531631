"""Sample-quality metrics with confidence intervals and provenance records.

A metric compares samples x_1 .. x_N, in data units and not clipped, with real data, through a feature function
phi: (B, *event) -> (B, F). It is an accumulator (`update`, `merge`, `compute`) in float64, so that it can be fed
batch by batch and merged across processes, and `result` returns the value with its receipt: N, the hashes of samples,
reference and features, how the samples were made, and the software.

* `FrechetDistance`: squared 2-Wasserstein distance of the Gaussians fitted to phi(samples) and phi(reference),
  |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)). Over Inception features this is the FID; here phi
  is what you choose. Biased upwards by (F + F^2 / 4) (1 / N + 1 / M) for F features of unit variance and M real
  examples, so it compares at equal numbers only; `FrechetInfinity` extrapolates that away.
* `KernelDistance` (over Inception features the KID), `GaussianDiscrepancy`: MMD^2, unbiased at any N.
* `Precision`, `Recall`, `Density`, `Coverage`: shares of samples that lie where data lie, and the other way round.
* `InceptionScore`, `VendiScore`: of samples alone, of class probabilities and of the diversity of features.
* `SlicedWasserstein`: one-dimensional optimal transport averaged over directions, in data units; no features, no
  Gaussians.
* `EnergyDistance`: squared energy distance in data units, unbiased, with a standard error; differences of samplers
  that shared their noise are sharper than the values.
* `NearestNeighbours`: how far samples are from the training data, and which examples are nearest to each.
* `MemorisationRatio`: that distance over the distance of held-out data: about 1 is right, 0 is copies; with a test.
* `StackedModes`: KL of the modes of stacked examples (3-Stacked MNIST) and how many are covered, by a classifier of the
  single ones; one count for each sample, and no bias (K^k - 1) / (2 N) of a histogram.
* `detection`: AUROC, FPR at 95 %, AUPR of outlier scores, ties and intervals included; larger is more outlying.

* `paired_difference`: of one metric between sets of samples that shared their noise, much sharper than the values.

Every one states a 95 % interval where its numbers allow one. Over examples alone: biases that N leaves are not in it.

Feature functions: `RawFeatures` (the values), `ClassifierFeatures` (a small classifier trained on the labelled real
data at hand), `StackedClassifier` (the same of each part of a stack), `ModuleFeatures` (any module); and of images,
prepared as an `ImagePreparation` states, `InceptionFeatures`, `efficientnet_lite0` and `OnnxFeatures`. Nothing is
downloaded but the weights of Inception, where none are given.

The network runs once: a `Reference` keeps its features for all metrics, on disk too where it has a `FeatureCache`, and
`measure_all` feeds metrics together, whose features are one `Remembered`. `read_statistics` reads a reference of which
only features, or their mean and covariance, are at hand.

>>> import torch
>>> held_out = Reference(torch.tensor([[0.0], [1.0], [2.0]]), name="numbers", split="held-out")
>>> result = measure(SlicedWasserstein(held_out, projections=1), torch.tensor([[1.0], [2.0], [3.0]]))
>>> float(result), result.receipt.count
(1.0, 3)

    metric      the interface; by_name, the table of metrics; receipt, provenance; reference, real data
    features    feature extractors
    frechet, kernels, manifolds, energy_distance, sliced_wasserstein, inception_score, vendi, neighbours, stacked
                the metrics
    paired      differences of a metric between sets of samples that share their noise
    detection   AUROC and others for outlier scores
    coupling, rows, statistics
                linear algebra of Frechet distances, features kept by row, and references without data
"""

from scorefield.metrics import by_name
from scorefield.metrics.detection import Detection, advantage, auroc, clopper_pearson, detection
from scorefield.metrics.energy_distance import EnergyDistance, Jackknifed
from scorefield.metrics.features.by_name import FeatureName, features_by_name
from scorefield.metrics.features.cache import FeatureCache
from scorefield.metrics.features.classifier import ClassifierFacts, ClassifierFeatures, ClassProbabilities
from scorefield.metrics.features.feature import Features, ModuleFeatures, RawFeatures, Remembered, View
from scorefield.metrics.features.images import ImagePreparation, image_preparation
from scorefield.metrics.features.inception import InceptionFeatures
from scorefield.metrics.features.networks import OnnxFeatures, PreparedFeatures, efficientnet_lite0
from scorefield.metrics.frechet import FrechetDistance, FrechetInfinity, Moments, frechet_distance
from scorefield.metrics.inception_score import InceptionScore
from scorefield.metrics.kernels import GaussianDiscrepancy, KernelDistance
from scorefield.metrics.manifolds import Coverage, Density, Precision, Recall
from scorefield.metrics.metric import Metric, measure, measure_all
from scorefield.metrics.neighbours import MemorisationRatio, NearestNeighbours, Neighbours, nearest
from scorefield.metrics.paired import PairedDifference, contributions, paired_difference
from scorefield.metrics.receipt import (
    FeatureFacts,
    MetricResult,
    Receipt,
    ReferenceFacts,
    SampleSource,
    Value,
    data_hash,
    module_hash,
)
from scorefield.metrics.reference import FeatureRows, Reference
from scorefield.metrics.rows import KeptRows
from scorefield.metrics.sliced_wasserstein import SlicedWasserstein, random_directions, wasserstein_1d
from scorefield.metrics.stacked import (
    StackedClassifier,
    StackedModes,
    confusion_matrix,
    corrected_divergence,
    deconvolved,
    divergence,
)
from scorefield.metrics.statistics import ReferenceMoments, ReferenceRows, read_statistics
from scorefield.metrics.vendi import VendiScore

__all__ = [
    "ClassProbabilities",
    "ClassifierFacts",
    "ClassifierFeatures",
    "Coverage",
    "Density",
    "Detection",
    "EnergyDistance",
    "FeatureCache",
    "FeatureFacts",
    "FeatureName",
    "FeatureRows",
    "Features",
    "FrechetDistance",
    "FrechetInfinity",
    "GaussianDiscrepancy",
    "ImagePreparation",
    "InceptionFeatures",
    "InceptionScore",
    "Jackknifed",
    "KeptRows",
    "KernelDistance",
    "MemorisationRatio",
    "Metric",
    "MetricResult",
    "ModuleFeatures",
    "Moments",
    "NearestNeighbours",
    "Neighbours",
    "OnnxFeatures",
    "PairedDifference",
    "Precision",
    "PreparedFeatures",
    "RawFeatures",
    "Recall",
    "Receipt",
    "Reference",
    "ReferenceFacts",
    "ReferenceMoments",
    "ReferenceRows",
    "Remembered",
    "SampleSource",
    "SlicedWasserstein",
    "StackedClassifier",
    "StackedModes",
    "Value",
    "VendiScore",
    "View",
    "advantage",
    "auroc",
    "by_name",
    "clopper_pearson",
    "confusion_matrix",
    "contributions",
    "corrected_divergence",
    "data_hash",
    "deconvolved",
    "detection",
    "divergence",
    "efficientnet_lite0",
    "features_by_name",
    "frechet_distance",
    "image_preparation",
    "measure",
    "measure_all",
    "module_hash",
    "nearest",
    "paired_difference",
    "random_directions",
    "read_statistics",
    "wasserstein_1d",
]
