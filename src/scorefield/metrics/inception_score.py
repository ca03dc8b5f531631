"""Inception score: how sure a classifier is of each sample, and how evenly samples spread over the classes.

    IS = exp( mean_i KL(p(c | x_i) || p(c)) ) = exp( H(p) - mean_i H(p(. | x_i)) ),    p = mean_i p(. | x_i),

between 1 and the number of classes. It compares with no data: the receipt's reference is what the details hold the
score of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield.metrics.energy_distance import Jackknifed
from scorefield.metrics.features.feature import Features
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference
from scorefield.metrics.rows import KeptRows, normal_interval

BLOCK = 4096
"""Rows of probabilities converted to float64 at once."""
ROUNDING = 1e-4
"""How far probabilities of float32 or less may be from a sum of 1."""


def score(probabilities: Tensor) -> Jackknifed:
    """Inception score of one split.

    Args:
        probabilities: Class probabilities, (n, K), n >= 2.

    Returns:
        The score, left out along the samples.
    """
    n = len(probabilities)
    total = torch.zeros(probabilities.shape[1], dtype=torch.float64)
    own = []
    for block in probabilities.split(BLOCK):
        p = block.to(torch.float64)
        total += p.sum(dim=0)
        own.append(torch.special.entr(p).sum(dim=1))
    each = torch.cat(own)
    number = math.exp(float(torch.special.entr(total / n).sum() - each.mean()))
    rest = [
        torch.special.entr(((total - block.to(torch.float64)) / (n - 1)).clamp_min(0.0)).sum(dim=1)
        for block in probabilities.split(BLOCK)
    ]
    left_out = (torch.cat(rest) - (each.sum() - each) / (n - 1)).exp()
    return Jackknifed(number, (left_out,))


def mean_score(probabilities: Tensor, splits: int) -> tuple[Jackknifed, Tensor]:
    """Mean of the scores of `splits` parts of equal size (to one), (n, K), and the scores."""
    parts = [score(part) for part in probabilities.tensor_split(splits)]
    values = torch.tensor([part.number for part in parts], dtype=torch.float64)
    number = float(values.mean())
    # Each split is a set of its own: without one of its samples the mean moves by 1 / splits of what the split does.
    return Jackknifed(number, tuple(number + (part.left_out[0] - part.number) / splits for part in parts)), values


class InceptionScore(KeptRows):
    """Inception score of samples under any classifier; higher is better, at most the number of classes.

    The interval is a jackknife over the samples. Like the score it is of this number of samples a split: fewer score
    lower.

    Args:
        probabilities: Class probabilities as a feature function, (B, *event) -> (B, K); `ClassProbabilities` of the
            data at hand, or any module that ends in a softmax. The published number is that of the Inception network.
        reference: Real data; the details hold their score.
        splits: Parts over which the score is averaged, 10 in the papers. Samples are put into them by their hashes.
        batch_size: Number of reference examples per call of the classifier.

    Raises:
        ValueError: No splits, or rows that are no probabilities.

    Reference: Salimans et al., "Improved techniques for training GANs", 2016, section 4.
    """

    name = "Inception score"

    def __init__(self, probabilities: Features, reference: Reference, *, splits: int = 10, batch_size: int = 256):
        if splits < 1:
            raise ValueError(f"splits={splits}; use 10 as in the papers, or any number from 1")
        self.splits = splits
        super().__init__(reference, probabilities, batch_size=batch_size)
        _check(self._real, probabilities.name)
        enough = len(self._real) >= 2 * splits
        self._of_reference = mean_score(self._real, splits)[0].number if enough else None

    def settings(self) -> Mapping[str, Any]:
        """Splits and classes."""
        return {"splits": self.splits, "classes": self._real.shape[1]}

    def compute(self) -> Value:
        """Mean over the splits.

        Raises:
            ValueError: Fewer than 2 samples a split were seen.
        """
        self._need(2 * self.splits)
        found, values = mean_score(self.rows(), self.splits)
        error = found.std_error
        low, high = normal_interval(found.number, error)
        details = {"standard error": error}
        if self.splits > 1:
            details["standard deviation over splits"] = float(values.std())
        if self._of_reference is not None:
            details[f"of the {len(self._real)} reference examples"] = self._of_reference
        return Value(found.number, (max(1.0, low), high), better="higher", details=details)

    def _accumulate(self, x: Tensor, hashes: list[int]) -> None:
        super()._accumulate(x, hashes)
        try:
            _check(self._rows[-1], self.features.name)
        except ValueError:
            self._rows.pop()
            self._row_keys.pop()
            raise


def _check(rows: Tensor, name: str) -> None:
    sums = rows.sum(dim=1, dtype=torch.float64)
    if float(rows.min()) < -ROUNDING or float((sums - 1.0).abs().max()) > ROUNDING:
        raise ValueError(
            f"{name!r} gives rows from {float(rows.min()):g} to {float(rows.max()):g} that sum to"
            f" {float(sums.min()):g} to {float(sums.max()):g}; an Inception score needs class probabilities: put a"
            " softmax after the logits"
        )
