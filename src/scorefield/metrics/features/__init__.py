"""Feature extractors phi: (B, *event) -> (B, F), whose outputs the metrics compare.

feature     the interface; raw values, any module, and features kept for the last batch
classifier  a small classifier trained on labelled real data
inception   the Inception network of 2015, by torch-fidelity
images      preparation of images for networks trained on photographs; packaged networks and ONNX files
by_name     the extractors by name
cache       features of reference data on disk
"""

from __future__ import annotations

from scorefield.metrics.features import (
    by_name,
    cache,
    classifier,
    feature,
    images,
    inception,
    networks,
)
from scorefield.metrics.features.by_name import FeatureName, features_by_name
from scorefield.metrics.features.cache import FeatureCache
from scorefield.metrics.features.classifier import ClassifierFacts, ClassifierFeatures, ClassProbabilities
from scorefield.metrics.features.feature import Features, ModuleFeatures, RawFeatures, Remembered, View
from scorefield.metrics.features.images import ImagePreparation, image_preparation
from scorefield.metrics.features.inception import InceptionFeatures
from scorefield.metrics.features.networks import OnnxFeatures, PreparedFeatures, efficientnet_lite0

__all__ = [
    "ClassProbabilities",
    "ClassifierFacts",
    "ClassifierFeatures",
    "FeatureCache",
    "FeatureName",
    "Features",
    "ImagePreparation",
    "InceptionFeatures",
    "ModuleFeatures",
    "OnnxFeatures",
    "PreparedFeatures",
    "RawFeatures",
    "Remembered",
    "View",
    "by_name",
    "cache",
    "classifier",
    "efficientnet_lite0",
    "feature",
    "features_by_name",
    "image_preparation",
    "images",
    "inception",
    "networks",
]
