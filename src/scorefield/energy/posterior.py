"""The posterior of an energy-based prior under an observation, as another energy for the same chains."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from scorefield.inverse.observation import Observation
from scorefield.score.energy import Energy
from scorefield.score.score import Score


def misfit(observation: Observation) -> Energy:
    """-log p(y | x) as an energy of x, including its constant.

    Args:
        observation: The observation in model units. It must have noise, because an exact observation has no likelihood
            function of x.
    """
    return Energy(lambda x: -observation.log_likelihood(x))


def posterior_energy(
    prior: Energy | Score | Callable[[Tensor], Tensor], observation: Observation, temperature: float = 1.0
) -> Energy:
    """The energy whose distribution at temperature T is the posterior: E(x) - T log p(y | x).

    exp(-(E - T log p(y | x)) / T) = exp(-E / T) p(y | x), so the prior is tempered and the likelihood is not. Chains of
    this energy must be run at the same T.

    Args:
        prior: E.
        observation: y = A(x) + noise, in model units, with noise.
        temperature: T of the prior.
    """
    energy, data_term = Energy.of(prior), misfit(observation)

    def with_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        (e, e_gradient), (m, m_gradient) = energy.with_gradient(x), data_term.with_gradient(x)
        return e + temperature * m, e_gradient + temperature * m_gradient

    def value(x: Tensor) -> Tensor:
        return energy(x) + temperature * data_term(x)

    return Energy(value, sigma_0=energy.sigma_0, with_gradient=with_gradient)
