"""Posteriors of an energy prior under an observation with Gaussian noise: another energy, for the same chains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from scorefield._math import LOG_2PI, sum_event
from scorefield.score.energy import Energy
from scorefield.score.score import Score


@dataclass(frozen=True)
class GaussianObservation:
    """y = A(x) + n, n ~ N(0, std^2 I).

    Args:
        operator: A, differentiable: (B, *event) -> (B, *observed), model units in.
        observed: y, shape (*observed).
        noise_std: std of each entry, positive.

    Raises:
        ValueError: A noise that is not positive; an exact observation has no density over x.
    """

    operator: Callable[[Tensor], Tensor]
    observed: Tensor
    noise_std: float

    def __post_init__(self) -> None:
        if not 0.0 < self.noise_std < math.inf:
            raise ValueError(
                f"noise_std={self.noise_std} must be positive: without noise the posterior has no density that chains"
                " could follow. State the noise of the measurement, in model units of A(x)"
            )

    @classmethod
    def linear(cls, matrix: Tensor, observed: Tensor, noise_std: float) -> GaussianObservation:
        """With A(x) = matrix x, matrix of shape (M, D) over the flattened event."""

        def operator(x: Tensor) -> Tensor:
            return x.flatten(1) @ matrix.to(x).flatten(1).T

        return cls(operator, observed.reshape(-1), noise_std)

    def misfit(self) -> Energy:
        """-log p(y | x) = |y - A(x)|^2 / (2 std^2) + (M / 2) log(2 pi std^2), with its constant."""

        def negative_log_likelihood(x: Tensor) -> Tensor:
            predicted = self.operator(x)
            if predicted.shape[1:] != self.observed.shape:
                raise ValueError(
                    f"the operator gives {tuple(predicted.shape[1:])} for each example and {tuple(self.observed.shape)}"
                    " was observed; they must be alike"
                )
            squares = sum_event((self.observed.to(predicted) - predicted) ** 2)
            constant = 0.5 * self.observed.numel() * (LOG_2PI + 2.0 * math.log(self.noise_std))
            return 0.5 * squares / self.noise_std**2 + constant

        return Energy(negative_log_likelihood)


def posterior_energy(
    prior: Energy | Score | Callable[[Tensor], Tensor], observation: GaussianObservation, temperature: float = 1.0
) -> Energy:
    """The energy whose law at temperature T is the posterior: E(x) - T log p(y | x).

    exp(-(E - T log p(y | x)) / T) = exp(-E / T) p(y | x): the prior is tempered, the observation is not. Run chains of
    it at the same T.

    Args:
        prior: E.
        observation: What was seen.
        temperature: T of the prior.
    """
    energy, misfit = Energy.of(prior), observation.misfit()

    def with_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        (e, slope), (m, push) = energy.with_gradient(x), misfit.with_gradient(x)
        return e + temperature * m, slope + temperature * push

    def value(x: Tensor) -> Tensor:
        return energy(x) + temperature * misfit(x)

    return Energy(value, sigma_0=energy.sigma_0, with_gradient=with_gradient)
