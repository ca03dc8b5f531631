"""Exact scores: distributions of x_0 whose marginal at every t is known in closed form, under every process.

If x_0 has density p_0, then x_t = alpha x_0 + sigma z has p_t = (p_0 scaled by alpha) * N(0, sigma^2 I). For the
distributions below that convolution has a closed form, and with it everything that a trained model can only estimate:

    Gaussian        N(alpha m, alpha^2 C + sigma^2 I), any mean and covariance, any event shape
    GaussianField   stationary on periodic signals and images, diagonal in the Hartley basis: 64 x 64 pixels are fast
    Mixture         sum_k w_k N(alpha m_k, alpha^2 C_k + sigma^2 I); with labels, class-conditional
    Points          sum_n w_n N(alpha p_n, sigma^2 I): the empirical distribution of a data set

Each gives the score, `denoised` = E[x_0 | x_t], `log_prob` and `sample` at every t (t=None: x_0 itself), `moments`, and
`posterior(A, y, noise_std)`: the distribution of x_0 given y = A x_0 + n, an oracle again. So samplers, losses,
likelihoods and posterior samplers are tested with no network. `skewed_gaussian(process)` and its kin are small,
lopsided cases.

    gaussian, field, mixture    the distributions above
    examples                    small, asymmetric distributions for tests
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
