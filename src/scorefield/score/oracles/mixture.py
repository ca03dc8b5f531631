"""Mixtures of Gaussians and of point masses; the latter are the empirical distribution of a data set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield._math import over_event
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.score.oracles.gaussian import Gaussian, ModalGaussian
from scorefield.score.oracles.oracle import Number, Observation, Oracle


class WeightedOracle(Oracle):
    """A mixture p(x_t) = sum_k w_k p_k(x_t); with labels, p(x_t | class) is the mixture of the components of the class.

    With the responsibilities r_k = w_k p_k / sum_j w_j p_j, the score and the posterior mean are the sums of those of
    the components with weights r_k.

    Args:
        process: The process that adds noise to x_0.
        shape: Event shape.
        weights: w_k > 0, one per component; they are scaled to the sum 1.
        labels: Class of each component, or None. The condition {"class": labels of shape (B,)} selects the components
            of a class; -1 selects all.

    Raises:
        ValueError: A weight is not positive and finite, or the number of labels is not that of the weights.
    """

    def __init__(
        self, process: Process, shape: tuple[int, ...], weights: Tensor, labels: Sequence[int] | Tensor | None
    ):
        super().__init__(process, shape)
        weights = torch.as_tensor(weights, dtype=torch.float64).reshape(-1)
        if not bool(((weights > 0) & torch.isfinite(weights)).all()):
            raise ValueError("weights must be positive and finite; omit a component of weight 0")
        self.log_weights = (weights / weights.sum()).log()
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.int64).reshape(-1)
        if self.labels is not None and len(self.labels) != len(weights):
            raise ValueError(f"{len(self.labels)} labels for {len(weights)} components; give one class per component")

    @property
    def weights(self) -> Tensor:
        """w_k, shape (K,), float64."""
        return self.log_weights.exp()

    @abstractmethod
    def _component_log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p_k(x) of every component, shape (B, K)."""

    def _log_prior(self, batch: int, like: Tensor, condition: Condition | None) -> Tensor:
        """log w_k given the condition, -inf for components of other classes; shape (B, K)."""
        log_w = self.log_weights.to(like).expand(batch, -1)
        if not condition:
            return log_w
        if self.labels is None or set(condition) != {"class"}:
            raise ValueError(
                f"got the condition {sorted(condition)}; this {type(self).__name__} takes"
                + (
                    " no condition, because it was made without labels=..."
                    if self.labels is None
                    else " only {'class': labels}"
                )
            )
        classes = condition["class"].to(like.device)
        if classes.shape != (batch,):
            raise ValueError(
                f"condition 'class' has shape {tuple(classes.shape)}; give one label per example, shape ({batch},)"
            )
        member = (self.labels.to(like.device) == classes[:, None]) | (classes[:, None] == -1)
        if not bool(member.any(1).all()):
            missing = sorted({int(c) for c in classes[~member.any(1)]})
            raise ValueError(
                f"no component has class {missing}; give one of {sorted(set(self.labels.tolist()))}, or -1 for unknown"
            )
        return log_w.masked_fill(~member, -torch.inf).log_softmax(1)

    def _joint(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """log w_k p_k(x) given the condition, shape (B, K)."""
        return self._log_prior(x.shape[0], x, condition) + self._component_log_prob(x, alpha, sigma)

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        return self._joint(x, alpha, sigma, condition).logsumexp(1)

    def responsibilities(self, x: Tensor, t: Number | None, condition: Condition | None = None) -> Tensor:
        """Probability of each component given x_t = x, shape (B, K); arguments as for `log_prob`."""
        state, alpha, sigma = self._prepared(x, t)
        return self._joint(state, alpha, sigma, condition).softmax(1).to(x.dtype)

    def class_log_prob(self, x: Tensor, t: Number | None = None) -> Tensor:
        """log p(class | x_t = x) for the classes 0..max(labels), shape (B, classes): the exact noisy classifier.

        Raises:
            ValueError: The mixture was made without labels.
        """
        if self.labels is None:
            raise ValueError(f"this {type(self).__name__} has no classes; make it with labels=...")
        state, alpha, sigma = self._prepared(x, t)
        log_r = self._joint(state, alpha, sigma, None).log_softmax(1)
        classes = torch.arange(int(self.labels.max()) + 1)
        member = (self.labels[None] == classes[:, None]).to(log_r.device)  # (classes, K)
        return log_r[:, None, :].masked_fill(~member, -torch.inf).logsumexp(2).to(x.dtype)

    def _choose(self, uniform: Tensor, condition: Condition | None) -> Tensor:
        """The component of each sample, by inversion of the distribution function at uniform numbers; shape (n,)."""
        cumulative = self._log_prior(len(uniform), uniform, condition).exp().cumsum(1)
        k = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)
        return k.clamp_max(len(self.log_weights) - 1)


class Mixture(WeightedOracle):
    """A mixture of Gaussians, each with its own full covariance.

    Args:
        process: The process that adds noise to x_0.
        weights: w_k > 0, shape (K,); they are scaled to the sum 1.
        means: m_k, shape (K, *event), model units.
        covariances: C_k, shape (K, D, D); or variances, shape (K, *event) or (K,). Model units squared.
        labels: Class of each component, for conditional scores; None for an unconditional distribution.

    Raises:
        ValueError: The numbers of components differ, or a weight or a covariance is not valid.
    """

    def __init__(
        self,
        process: Process,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        labels: Sequence[int] | Tensor | None = None,
    ):
        means, covariances = torch.as_tensor(means), torch.as_tensor(covariances)
        if len(covariances) != len(means):
            raise ValueError(f"{len(covariances)} covariances for {len(means)} means; give one per component")
        self._fill(process, weights, [Gaussian(process, m, c) for m, c in zip(means, covariances, strict=True)], labels)

    @classmethod
    def of(
        cls,
        process: Process,
        weights: Tensor,
        components: Sequence[ModalGaussian],
        labels: Sequence[int] | Tensor | None = None,
    ) -> Mixture:
        """A mixture of Gaussian oracles of the same event shape, which may be random fields."""
        mixture = object.__new__(cls)
        mixture._fill(process, weights, components, labels)
        return mixture

    def _fill(
        self,
        process: Process,
        weights: Tensor,
        components: Sequence[ModalGaussian],
        labels: Sequence[int] | Tensor | None,
    ) -> None:
        shapes = {c.shape for c in components}
        if len(shapes) != 1:
            raise ValueError(f"components must share one event shape; got {sorted(shapes)}")
        WeightedOracle.__init__(self, process, shapes.pop(), weights, labels)
        self.components = tuple(components)
        if len(self.components) != len(self.log_weights):
            raise ValueError(
                f"{len(self.log_weights)} weights for {len(self.components)} components; give one per component"
            )

    def _component_log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.stack([c._log_prob(x, alpha, sigma, None) for c in self.components], dim=1)

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        r = self._joint(x, alpha, sigma, condition).softmax(1)
        return _weighted_sum(r, [c._score(x, alpha, sigma, None) for c in self.components])

    def _denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        r = self._joint(x, alpha, sigma, condition).softmax(1)
        return _weighted_sum(r, [c._denoised(x, alpha, sigma, None) for c in self.components])

    def _sample_data(self, z: Tensor, uniform: Tensor, condition: Condition | None) -> Tensor:
        chosen, x = self._choose(uniform, condition), torch.empty_like(z)
        for k, component in enumerate(self.components):
            x[chosen == k] = component._sample_data(z[chosen == k], uniform[chosen == k], None)
        return x

    def data_moments(self) -> tuple[Tensor, Tensor]:
        parts = [c.data_moments() for c in self.components]
        means = torch.stack([m.reshape(-1) for m, _ in parts])
        mean = self.weights @ means
        within = torch.einsum("k,kij->ij", self.weights, torch.stack([C for _, C in parts]))
        centred = means - mean
        return mean.reshape(self.shape), within + centred.T @ (self.weights[:, None] * centred)

    def _given(self, observation: Observation) -> Mixture:
        """Each component given y; its weight is multiplied by its evidence N(y; A m_k, A C_k A' + R)."""
        weights = _normalised_weights(self.log_weights + self._evidences(observation))
        return Mixture.of(self.process, weights, [c._given(observation) for c in self.components], self.labels)

    def _log_evidence(self, observation: Observation) -> Tensor:
        return (self.log_weights + self._evidences(observation)).logsumexp(0)

    def _evidences(self, observation: Observation) -> Tensor:
        return torch.stack([c._log_evidence(observation) for c in self.components])


class Points(WeightedOracle):
    """Point masses: x_0 is one of N points.

    For the points of a data set, this is the score of a model that is trained perfectly on it.

    score = -(x - alpha D) / sigma^2 with D = sum_n r_n p_n, r_n ~ w_n exp(-|x - alpha p_n|^2 / (2 sigma^2))
    (Karras et al. 2022, appendix B.3).

    Args:
        process: The process that adds noise to x_0.
        points: p_n, shape (N, *event), model units.
        weights: w_n > 0, shape (N,); they are scaled to the sum 1. None for equal weights.
        labels: Class of each point, for conditional scores; None for an unconditional distribution.

    Raises:
        ValueError: There is no point, or the numbers of points, weights and labels differ.
    """

    def __init__(
        self,
        process: Process,
        points: Tensor,
        weights: Tensor | None = None,
        labels: Sequence[int] | Tensor | None = None,
    ):
        points = torch.as_tensor(points, dtype=torch.float64)
        if points.ndim < 2 or len(points) == 0:
            raise ValueError(f"points have shape {tuple(points.shape)}; give (N, *event) with N >= 1")
        weights = torch.ones(len(points), dtype=torch.float64) if weights is None else torch.as_tensor(weights)
        if weights.numel() != len(points):
            raise ValueError(f"{weights.numel()} weights for {len(points)} points; give one per point")
        super().__init__(process, tuple(points.shape[1:]), weights, labels)
        self.points = points

    def _component_log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if bool((sigma <= 0).any()):
            raise ValueError("point masses have no density without noise; give a time t at which sigma > 0")
        flat, points = x.flatten(1)[:, None], self.points.to(x).flatten(1)
        # From differences, not from a matrix product, so that the distance of the nearest point keeps its digits at
        # small sigma; in chunks of points, so that the memory stays bounded.
        rows = max(1, 2**22 // max(flat.numel(), 1))
        squared = torch.cat([((flat - alpha[:, None, None] * p) ** 2).sum(2) for p in points.split(rows)], dim=1)
        variance = sigma[:, None] ** 2
        return -0.5 * (squared / variance + self.dimension * (2.0 * torch.pi * variance).log())

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        D = self._denoised(x, alpha, sigma, condition)
        return -(x - over_event(alpha, x) * D) / over_event(sigma, x) ** 2

    def _denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        r = self._joint(x, alpha, sigma, condition).softmax(1)
        return (r @ self.points.to(x).flatten(1)).reshape(x.shape)

    def _sample_data(self, z: Tensor, uniform: Tensor, condition: Condition | None) -> Tensor:
        return self.points.to(z)[self._choose(uniform, condition)]

    def data_moments(self) -> tuple[Tensor, Tensor]:
        flat = self.points.flatten(1)
        mean = self.weights @ flat
        return mean.reshape(self.shape), (flat - mean).T @ (self.weights[:, None] * (flat - mean))

    def _given(self, observation: Observation) -> Points:
        """The points, with each weight multiplied by its likelihood N(y; A p_n, R); R must be regular."""
        weights = _normalised_weights(self.log_weights + self._likelihoods(observation))
        return Points(self.process, self.points, weights, self.labels)

    def _log_evidence(self, observation: Observation) -> Tensor:
        return (self.log_weights + self._likelihoods(observation)).logsumexp(0)

    def _likelihoods(self, observation: Observation) -> Tensor:
        L = observation.factor(torch.zeros(self.dimension, self.dimension, dtype=torch.float64))
        return observation.log_prob(self.points.flatten(1), L)


def _normalised_weights(log_weights: Tensor) -> Tensor:
    """Weights with sum 1; one that underflows is set to the smallest positive number, so that no component is lost."""
    return log_weights.softmax(0).clamp_min(torch.finfo(torch.float64).tiny)


def _weighted_sum(r: Tensor, parts: list[Tensor]) -> Tensor:
    """sum_k r_k part_k, with r of shape (B, K) and parts of shape (B, *event)."""
    total = torch.zeros_like(parts[0])
    for k, part in enumerate(parts):
        total = total + over_event(r[:, k], part) * part
    return total
