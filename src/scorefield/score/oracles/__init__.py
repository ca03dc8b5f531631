"""Oracles: exact scores of distributions of x_0 whose marginal at every t is known in closed form.

If x_0 has the density p_0, then x_t = alpha x_0 + sigma z has the density of alpha x_0 convolved with N(0, sigma^2 I).
For the distributions below the convolution has a closed form, and so has everything that a trained model only
estimates:

    class          distribution of x_t
    Gaussian       N(alpha m, alpha^2 C + sigma^2 I), with any mean, covariance and event shape
    GaussianField  a stationary random field on periodic signals or images, diagonal in the Hartley basis and therefore
                   fast for large images
    Mixture        sum_k w_k N(alpha m_k, alpha^2 C_k + sigma^2 I); class-conditional if it has labels
    Points         sum_n w_n N(alpha p_n, sigma^2 I): the empirical distribution of a data set

An oracle gives the score, the posterior mean `denoised` = E[x_0 | x_t], `log_prob`, `sample` and `moments` at every t
(t=None for x_0 itself), and `posterior(A, y, noise_std)`, the distribution of x_0 given y = A x_0 + n, which is an
oracle again. Samplers, losses, likelihoods and posterior samplers are tested with oracles in place of networks.

    module    contents
    oracle    the base class Oracle, and linear observations
    gaussian  Gaussian, and its base class ModalGaussian
    field     GaussianField, the Hartley transform and Matern spectra
    mixture   Mixture, Points, and their base class WeightedOracle
    examples  small asymmetric oracles for tests, such as skewed_gaussian(process)
"""

from scorefield.score.oracles import examples, field, gaussian, mixture, oracle
from scorefield.score.oracles.examples import EXAMPLES, skewed_field, skewed_gaussian, skewed_mixture, skewed_points
from scorefield.score.oracles.field import GaussianField
from scorefield.score.oracles.gaussian import Gaussian, ModalGaussian
from scorefield.score.oracles.mixture import Mixture, Points, WeightedOracle
from scorefield.score.oracles.oracle import Oracle

__all__ = [
    "EXAMPLES",
    "Gaussian",
    "GaussianField",
    "Mixture",
    "ModalGaussian",
    "Oracle",
    "Points",
    "WeightedOracle",
    "examples",
    "field",
    "gaussian",
    "mixture",
    "oracle",
    "skewed_field",
    "skewed_gaussian",
    "skewed_mixture",
    "skewed_points",
]
