"""Modes of stacked examples: how many of K^k are covered, and how evenly (3-Stacked MNIST, Metz et al. 2017).

A stacked example is k single ones, each of one of K classes; its mode is the number with the digits of their classes.
`StackedClassifier` classifies the k parts one by one with one classifier of single examples, so that its errors in the
K^k modes are the k-fold product of a K x K confusion matrix. `StackedModes` counts each sample once and gives

    KL(q || p) = sum_m q_m ln(q_m / p_m),

q the modes of the samples and p those of the data, in nats: the published direction, with p = 1 / K^k there. Here p is
the product over the parts of the classes of the reference's parts (the parts are shuffled independently), seen through
the same classifier, so that perfect samples have KL = 0. As every function of the example, the classifier can only
lose information: KL of the true modes is no smaller (data processing inequality), and modes may be counted that only
its errors reach.

The KL of N perfect samples' histogram is about (K^k - 1) / (2 N), 999 / (2 N) for three digits, and not 0. The metric's
number is free of that bias up to terms that vanish exponentially in N / K^k, by Grassberger's entropy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield._random import philox
from scorefield.metrics.features.classifier import ClassifierFeatures
from scorefield.metrics.metric import Metric
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference

MOST = 1_000_000
"""Modes counted at most."""

ENOUGH = 2.6
"""Samples per mode from which the number's interval has its coverage."""

ITERATIONS = 200
"""Iterations of the deconvolution; at 7 % errors a stack, a mode reached only by errors falls by a factor 1e-6."""

REPLICATES = 20
"""Simulated histograms of perfect samples, for the bias of the corrected KL."""


class StackedClassifier:
    """Classes of the parts of stacked examples, by one classifier of single ones; a feature function as well.

    As features it gives the single classifier's features of all parts side by side: (B, k C, ...) -> (B, k F).

    Args:
        single: Classifier of single examples, shape (C, ...), evaluated without dropout as always here.
        confusion: (K, K) float64, row a the distribution of the class it gives to examples of class a.
        parts: k, the number of examples in one.

    Raises:
        ValueError: A confusion that is no matrix of probabilities for this classifier's classes, or too many modes.
    """

    name = "classifier of the single examples"

    def __init__(self, single: ClassifierFeatures, confusion: Tensor, parts: int):
        classes = single.facts.classes
        rows = confusion.to(torch.float64)
        probabilities = bool((rows >= 0).all()) and torch.allclose(rows.sum(dim=-1), _ONE)
        if rows.shape != (classes, classes) or not probabilities:
            raise ValueError(
                f"confusion must hold {classes} rows of {classes} probabilities, got shape {tuple(confusion.shape)};"
                " confusion_matrix(single, x, labels) makes it from held-out examples"
            )
        if parts < 1 or classes**parts > MOST:
            raise ValueError(f"{parts} parts of {classes} classes make {classes**parts} modes; 1 to {MOST} are counted")
        self.single, self.confusion, self.parts, self.classes = single, rows, parts, classes
        content = json.dumps([single.hash, parts, rows.tolist()])
        self.hash = hashlib.sha256(content.encode()).hexdigest()

    @property
    def accuracy(self) -> float:
        """Share of stacks of equally frequent classes whose parts are all classified rightly."""
        return float(self.confusion.diagonal().mean()) ** self.parts

    @property
    def note(self) -> str:
        """Size and held-out accuracy, for receipts."""
        return f"each of {self.parts} parts alone: {self.single.note}; {100 * self.accuracy:.1f} % of stacks right"

    def __call__(self, x: Tensor) -> Tensor:
        """Features of all parts, (B, k F) float32."""
        return self.single(self._apart(x)).reshape(len(x), -1)

    def modes(self, x: Tensor) -> Tensor:
        """(B, k C, ...) in data units -> (B,) int64, sum_c K^(k - 1 - c) class_c."""
        guesses = self.single.classes_of(self._apart(x)).reshape(len(x), self.parts)
        place = self.classes ** torch.arange(self.parts - 1, -1, -1)
        return (guesses * place).sum(dim=1)

    def _apart(self, x: Tensor) -> Tensor:
        shape = self.single.facts.data.shape
        if tuple(x.shape[1:]) != (self.parts * shape[0], *shape[1:]):
            raise ValueError(
                f"stacks of {self.parts} examples of shape {shape} have shape {(self.parts * shape[0], *shape[1:])};"
                f" got a batch of shape {tuple(x.shape)}"
            )
        return x.reshape(len(x) * self.parts, *shape)


_ONE = torch.ones((), dtype=torch.float64)


def confusion_matrix(single: ClassifierFeatures, x: Tensor, labels: Tensor) -> Tensor:
    """Row a: the distribution of the class given to held-out examples of class a, (K, K) float64.

    Args:
        single: The classifier.
        x: Held-out examples in data units, (N, *event).
        labels: Their classes, (N,), -1 where unknown.

    Raises:
        ValueError: A class without held-out examples: its row is not known.
    """
    known = labels >= 0
    x, labels = x[known], labels[known]
    classes = single.facts.classes
    guesses = torch.cat([single.classes_of(part) for part in x.split(512)])
    counts = torch.bincount(labels * classes + guesses, minlength=classes**2).reshape(classes, classes)
    rows = counts.sum(dim=1, keepdim=True)
    if bool((rows == 0).any()):
        missing = (rows[:, 0] == 0).nonzero()[:, 0].tolist()
        raise ValueError(f"no held-out examples of the classes {missing}: hold out more, data.held_out={len(x)} is few")
    return counts.double() / rows


# ------------------------------------------------------------------------------------------------ divergence


def divergence(counts: Tensor, law: Tensor) -> float:
    """Plug-in KL(q || p) in nats of a histogram q = counts / sum(counts), both of one shape."""
    q = counts.double() / counts.sum()
    return float(torch.special.xlogy(q, q).sum() - torch.special.xlogy(q, law).sum())


def corrected_divergence(counts: Tensor, distribution: Tensor) -> tuple[float, float]:
    """KL(q || p) without the bias of a histogram, and its standard error.

    -H(q) by Grassberger's estimator, H = ln N - (1 / N) sum_m n_m G(n_m), whose bias falls exponentially with N q_m;
    the cross term sum_m q_m ln p_m has none. The standard error is the jackknife's over samples, of the plug-in KL: G
    steps at every second count, and leaving one out would measure those steps. Simulated, 1000 modes: the error is
    within 25 percent of the true one and 1.96 of it cover 92 to 99 percent from N = 2600 on.

    Args:
        counts: Histogram, int64, two samples or more.
        distribution: p, positive, of that shape.

    Reference: Grassberger, "Entropy estimates from insufficient samplings", 2003, arXiv:physics/0307138.
    """
    seen = counts.flatten() > 0
    n, log_p = counts.flatten()[seen].double(), distribution.flatten()[seen].log()
    total = n.sum()
    g = _grassberger(int(counts.max()))[counts.flatten()[seen]]
    number = float((n * (g - log_p)).sum() / total - total.log())
    own = n * (n.log() - log_p)
    fewer = torch.special.xlogy(n - 1, n - 1) - (n - 1) * log_p
    left_out = (own.sum() - own + fewer) / (total - 1) - (total - 1).log()
    centre = (n * left_out).sum() / total
    variance = (total - 1) / total * (n * (left_out - centre).square()).sum()
    return number, math.sqrt(float(variance))


def _grassberger(most: int) -> Tensor:
    """G(0) to G(most): G(1) = -gamma - ln 2, G(2 j) = G(2 j - 1) + 2 / (2 j - 1), G(2 j + 1) = G(2 j)."""
    n = torch.arange(most + 1, dtype=torch.float64)
    even = torch.where((n >= 2) & (n % 2 == 0), 2.0 / (n - 1).clamp_min(1.0), torch.zeros_like(n))
    return float(torch.special.digamma(_ONE)) - math.log(2.0) + even.cumsum(0)


# ------------------------------------------------------------------------------------------- classifier's errors


def deconvolved(counts: Tensor, confusion: Tensor, parts: int | None = None) -> Tensor:
    """Histogram of true classes behind one of given classes: the maximum likelihood, by expectation maximisation.

    q <- q C^T (f / (C q)) from q = f, f the shares of the counts and C acting on every axis (Richardson 1972).

    Args:
        counts: Histogram over (K,) * k, or several on leading axes.
        confusion: Row a the distribution of the class given to class a.
        parts: k; all axes unless given.
    """
    k = counts.ndim if parts is None else parts
    f = counts.double() / counts.sum(dim=tuple(range(-k, 0)), keepdim=True)
    q = f.clone()
    for _ in range(ITERATIONS):
        q = q * _through(_ratio(f, _through(q, confusion, k)), confusion.T, k)
    return q


def _through(q: Tensor, matrix: Tensor, parts: int) -> Tensor:
    """sum_a q[..., a, ...] matrix[a, b] along each of the last axes."""
    for _ in range(parts):
        q = q.movedim(-parts, -1) @ matrix  # their first goes last and is contracted there
    return q


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a > 0, a / torch.where(a > 0, b, _ONE), torch.zeros_like(a))


class StackedModes(Metric):
    """KL(modes of samples || modes of data) in nats, without small-sample bias; details hold the modes covered.

    Details: `modes` covered and `modes of perfect samples` (expected at this N); `plug-in KL` of the histogram, its
    `bias` (K^k - 1) / (2 N) and `plug-in KL to uniform`, sum q ln(K^k q), which is the published number; with
    the classifier's confusion taken out, `KL corrected` (plug-in, less the mean of simulated perfect samples of this
    N). That takes off too much where many modes are missing and N is a few samples a mode: there it is no better than
    the number. `modes` is not corrected, and errors only add to it: a mode that they alone reach looks like one with
    few samples.

    Args:
        reference: Real stacks, held out from the classifier.
        features: Classifies the parts.

    Raises:
        ValueError: The classifier gives one of the parts' classes to no reference example; p would be 0 there.

    Reference: Metz et al., "Unrolled generative adversarial networks", 2017; Lin et al., "PacGAN", 2018.
    """

    name = "KL of modes"

    def __init__(self, reference: Reference, features: StackedClassifier):
        self.classifier = features
        self._shape = (features.classes,) * features.parts
        super().__init__(reference, features)
        counts = torch.zeros(self._shape, dtype=torch.int64)
        for x in reference.batches(1024):
            counts += self._histogram(x)
        axes = range(features.parts)
        marginals = [counts.double().sum(dim=[b for b in axes if b != a]) / len(reference) for a in axes]
        if bool((torch.stack(marginals) == 0).any()):
            raise ValueError(
                f"no example of the reference {reference.facts.name!r} ({len(reference)} stacks) has one of the"
                f" {features.classes} classes in some place; give more real data, of every class"
            )
        self._law = _product(marginals)
        self._true_law = _product([deconvolved(m, features.confusion) for m in marginals])

    def settings(self) -> Mapping[str, Any]:
        """Classes and parts."""
        return {"classes": self.classifier.classes, "parts": self.classifier.parts, "direction": "samples || data"}

    def histogram(self) -> Tensor:
        """Samples seen per mode, int64 (K,) * k; one count for each sample."""
        return self._counts.clone()

    def compute(self) -> Value:
        """KL with its 95 % interval (jackknife over samples).

        Raises:
            ValueError: Fewer than 2 samples were seen.
        """
        self._need(2)
        counts, law = self._counts, self._law
        number, error = corrected_divergence(counts, law)
        modes = counts.numel()
        perfect = float((1.0 - (1.0 - law).pow(self.count)).sum())
        uniform = torch.full_like(law, 1.0 / modes)
        details = {
            "modes": float((counts > 0).sum()),
            "modes of perfect samples": perfect,
            "plug-in KL": divergence(counts, law),
            "bias of the plug-in KL": (modes - 1) / (2 * self.count),
            "plug-in KL to uniform": divergence(counts, uniform),
            "standard error": error,
            **self._corrected(),
            "stacks classified rightly": self.classifier.accuracy,
        }
        warnings: tuple[str, ...] = ()
        if self.count < ENOUGH * modes:
            warnings = (
                f"{self.count} samples are few for {modes} modes: perfect ones cover {perfect:.0f} and the KL keeps a"
                f" bias upwards; draw {round(ENOUGH * modes)} or more (evaluate -n {round(ENOUGH * modes)})",
            )
        interval = (max(0.0, number - 1.96 * error), max(0.0, number + 1.96 * error))
        return Value(number, interval, unit="nats", better="lower", warnings=warnings, details=details)

    def _corrected(self) -> dict[str, float]:
        """KL with the classifier's errors taken out."""
        confusion, law = self.classifier.confusion, self._true_law
        found = deconvolved(self._counts, confusion)
        draws = philox(0, 0).multinomial(self.count, _flat(self._law), size=REPLICATES)
        many = deconvolved(torch.from_numpy(draws).reshape(-1, *self._shape), confusion, len(self._shape))
        null = [divergence(q, law) for q in many]
        return {
            "KL corrected": divergence(found, law) - sum(null) / len(null),
        }

    def _histogram(self, x: Tensor) -> Tensor:
        modes = self.classifier.modes(x)
        return torch.bincount(modes, minlength=self.classifier.classes**self.classifier.parts).reshape(self._shape)

    def _clear(self) -> None:
        self._counts = torch.zeros(self._shape, dtype=torch.int64)

    def _accumulate(self, x: Tensor, hashes: list[int]) -> None:
        self._counts += self._histogram(x)

    def _tensors(self) -> dict[str, Tensor]:
        return {"counts": self._counts.clone()}

    def _absorb(self, tensors: Mapping[str, Tensor], count: int) -> None:
        self._counts += tensors["counts"]


def _product(marginals: list[Tensor]) -> Tensor:
    law = marginals[0]
    for marginal in marginals[1:]:
        law = law[..., None] * marginal
    return law / law.sum()


def _flat(law: Tensor) -> Any:
    p = law.flatten().numpy()
    return p / p.sum()
