"""Posteriors of an energy prior under an observation: another energy, for the same chains."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from scorefield.inverse.observation import Observation
from scorefield.score.energy import Energy
from scorefield.score.score import Score


def misfit(observation: Observation) -> Energy:
    """-log p(y | x) as an energy, with its constant.

    Args:
        observation: In model units, with noise: an exact one has no density over x.
    """
    return Energy(lambda x: -observation.log_likelihood(x))


def posterior_energy(
    prior: Energy | Score | Callable[[Tensor], Tensor], observation: Observation, temperature: float = 1.0
) -> Energy:
    """The energy whose law at temperature T is the posterior: E(x) - T log p(y | x).

    exp(-(E - T log p(y | x)) / T) = exp(-E / T) p(y | x): the prior is tempered, the observation is not. Run chains of
    it at the same T.

    Args:
        prior: E.
        observation: y = A(x) + noise, in model units, with noise.
        temperature: T of the prior.
    """
    energy, missed = Energy.of(prior), misfit(observation)

    def with_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        (e, slope), (m, push) = energy.with_gradient(x), missed.with_gradient(x)
        return e + temperature * m, slope + temperature * push

    def value(x: Tensor) -> Tensor:
        return energy(x) + temperature * missed(x)

    return Energy(value, sigma_0=energy.sigma_0, with_gradient=with_gradient)
