"""The table of metrics by short name, and what each needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scorefield._codec import near
from scorefield._plugins import Table
from scorefield.metrics.energy_distance import EnergyDistance
from scorefield.metrics.features.feature import Features
from scorefield.metrics.frechet import FrechetDistance, FrechetInfinity
from scorefield.metrics.inception_score import InceptionScore
from scorefield.metrics.kernels import GaussianDiscrepancy, KernelDistance
from scorefield.metrics.manifolds import Coverage, Density, Precision, Recall
from scorefield.metrics.metric import Metric
from scorefield.metrics.neighbours import MemorisationRatio, NearestNeighbours
from scorefield.metrics.receipt import MetricResult
from scorefield.metrics.reference import Reference
from scorefield.metrics.sliced_wasserstein import SlicedWasserstein
from scorefield.metrics.stacked import StackedClassifier, StackedModes
from scorefield.metrics.statistics import ReferenceMoments, Statistics
from scorefield.metrics.vendi import VendiScore

BITS = "bits-per-dim"
"""Name of the metric of a model, not of its samples; see `evaluation.held_out_density`."""


@dataclass(frozen=True)
class Ingredients:
    """Inputs from which metrics are built.

    Args:
        features: Feature extractor of the metrics that use features.
        reference: The real data.
        train: What the model saw; None where it is not known.
        probabilities: Class probabilities, for the Inception score; None where there is no classifier.
        classifier: Classifier of the parts of stacked examples; None for data that are not stacked.
        seed: Seed of random projections.
    """

    features: Features
    reference: Reference
    train: Reference | None = None
    probabilities: Features | None = None
    classifier: StackedClassifier | None = None
    seed: int = 0


Need = Literal["train", "probabilities", "classifier"]
_WITHOUT: Mapping[Need, str] = {
    "train": "needs the training data, and they are not known here",
    "probabilities": "needs a classifier's probabilities: --features classifier (data with labels) or inception",
    "classifier": "counts the modes of stacked examples, and these data are not stacked (data.stack)",
}


@dataclass(frozen=True)
class Named:
    """A metric under its short name.

    Args:
        metric: The class.
        build: Makes it of the ingredients.
        needs: The optional ingredient that it needs.
        through: The feature extractor that it uses; None for the values themselves.
        selects: Whether it can choose between checkpoints: better is lower or higher, and differences are known.
    """

    metric: type[Metric]
    build: Callable[[Ingredients], Metric]
    needs: Need | None = None
    through: Literal["features", "probabilities"] | None = "features"
    selects: bool = True


def _infinity(i: Ingredients) -> Metric:
    alone = isinstance(i.reference, ReferenceMoments)  # which cannot be halved
    return FrechetInfinity(i.features, i.reference, reference_is="population" if alone else "sample")


def _memorisation(i: Ingredients) -> Metric:
    assert i.train is not None
    return MemorisationRatio(i.train, i.reference)


def _neighbours(i: Ingredients) -> Metric:
    assert i.train is not None
    return NearestNeighbours(i.train)


def _inception_score(i: Ingredients) -> Metric:
    assert i.probabilities is not None
    return InceptionScore(i.probabilities, i.reference)


def _stacked_modes(i: Ingredients) -> Metric:
    assert i.classifier is not None
    return StackedModes(i.reference, i.classifier)


NAMED: Table[Named] = Table(
    "metric",
    {
        "fid": Named(FrechetDistance, lambda i: FrechetDistance(i.features, i.reference)),
        "fid-infinity": Named(FrechetInfinity, _infinity),
        "kid": Named(KernelDistance, lambda i: KernelDistance(i.features, i.reference)),
        "mmd": Named(GaussianDiscrepancy, lambda i: GaussianDiscrepancy(i.reference, i.features)),
        "precision": Named(Precision, lambda i: Precision(i.features, i.reference)),
        "recall": Named(Recall, lambda i: Recall(i.features, i.reference)),
        "density": Named(Density, lambda i: Density(i.features, i.reference), selects=False),
        "coverage": Named(Coverage, lambda i: Coverage(i.features, i.reference)),
        "inception-score": Named(InceptionScore, _inception_score, "probabilities", "probabilities"),
        "vendi": Named(VendiScore, lambda i: VendiScore(i.features, i.reference)),
        "sliced-wasserstein": Named(
            SlicedWasserstein, lambda i: SlicedWasserstein(i.reference, seed=i.seed), through=None
        ),
        "energy-distance": Named(EnergyDistance, lambda i: EnergyDistance(i.reference), through=None),
        "memorisation": Named(MemorisationRatio, _memorisation, "train", None, selects=False),
        "neighbours": Named(NearestNeighbours, _neighbours, "train", None, selects=False),
        "stacked-modes": Named(StackedModes, _stacked_modes, "classifier", None, selects=False),
    },
)
"""Every metric of the package; a test compares the two."""

DEFAULT = ("fid", "fid-infinity", "kid", "sliced-wasserstein", "stacked-modes", "memorisation")
"""Metrics measured by default, as far as the data allow."""
SELECTING = tuple(name for name, entry in NAMED.items() if entry.selects)


def asked(text: str) -> tuple[str, ...]:
    """The names in "default", "all" or "NAME,NAME,...", in the order of the table.

    Raises:
        ValueError: A name that no metric has.
    """
    if text in ("default", "all"):
        return DEFAULT if text == "default" else (*NAMED, BITS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = (*NAMED, BITS)
    for name in names:
        if name not in known:
            raise ValueError(f"no metric is called {name!r}.{near(name, known)} All: {', '.join(known)}")
    if not names:
        raise ValueError(f"--metrics names none; give default, all, or some of {', '.join(known)}")
    return tuple(name for name in known if name in names)


def lacking(name: str, i: Ingredients) -> str | None:
    """Why a metric cannot be measured of these ingredients, None where it can."""
    entry, need = NAMED[name], NAMED[name].needs
    of_moments = issubclass(entry.metric, FrechetDistance)
    if isinstance(i.reference, ReferenceMoments) and not of_moments and name != "neighbours":
        return f"{name} needs real examples, and {i.reference.facts.name!r} is the mean and covariance of features"
    if isinstance(i.reference, Statistics) and entry.through != "features" and name != "neighbours":
        return f"{name} needs real examples, and {i.reference.facts.name!r} holds features of them alone"
    return None if need is None or getattr(i, need) is not None else f"{name} {_WITHOUT[need]}"


def possible(text: str, ingredients: Ingredients) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics to measure, and why others of "all" are left out; `BITS` is passed through.

    Raises:
        ValueError: An unknown name, or one asked for by name that these ingredients do not allow.
    """
    names, reasons = [], []
    for name in asked(text):
        reason = None if name == BITS else lacking(name, ingredients)
        if reason is None:
            names.append(name)
        elif text not in ("default", "all"):
            raise ValueError(reason)
        else:
            reasons.append(reason)
    return tuple(names), tuple(reasons) if text == "all" else ()


def functions_of(names: Sequence[str], ingredients: Ingredients) -> list[Features]:
    """The feature extractors that some metrics use, each once."""
    wanted = [NAMED[name].through for name in names if name != BITS]
    given = {"features": ingredients.features, "probabilities": ingredients.probabilities}
    return [function for key, function in given.items() if key in wanted and function is not None]


FID = "Inception 2015, pool 3"
"""How the name of the papers' features begins."""


def title(result: MetricResult) -> str:
    """Title of a result: its metric and feature extractor. Only the papers' Inception network gives the FID."""
    receipt = result.receipt
    entry = next((e for e in NAMED.values() if e.metric.name == receipt.metric), None)
    if entry is None or entry.through != "features":
        return receipt.metric
    features, note = receipt.features.name, receipt.features.note or ""
    published = features.startswith(FID) and "the published weights" in note and "not the published" not in note
    if published and entry.metric is FrechetDistance:
        return f"FID ({features})"
    return f"{receipt.metric} (features {features})"
