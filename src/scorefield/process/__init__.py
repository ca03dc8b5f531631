"""What noise does to data.

A process is two functions of time t in [0, 1], t = 0 the least noise:

    x_t = alpha(t) x_0 + sigma(t) z,            z ~ N(0, I).

It is the distribution of the linear SDE dx = f(t) x dt + g(t) dw with

    f = d log alpha / dt,                       g^2 = d sigma^2 / dt - 2 f sigma^2,

so everything else follows (`process.Process`): the transition x_t = a x_s + b z with a = alpha_t / alpha_s and
b^2 = sigma_t^2 - a^2 sigma_s^2; the posterior of x_s given x_t and x_0 that ancestral sampling uses; backwards in time
the drift f x - g^2 score with the same noise, or the probability flow f x - g^2 score / 2 with none; the prior at
t = 1; and two clocks, log(alpha^2 / sigma^2) and sigma, with their inverses.

A general SDE dx = f(x, t) dt + G(x, t) dw has f - div(G G') - G G' score, and half of the last two for its flow. If
f = A(t) x + b(t) and G = G(t), x_t given x_0 is N(Phi x_0 + m, P) with dPhi/dt = A Phi, dm/dt = A m + b and
dP/dt = A P + P A' + G G'; else it is simulated.

    families    VE, VP, SubVP
    tabulated   ladders of N levels (NCSN, DDPM) and the rules between them
    grids       where a sampler's steps lie
    general     any drift f(x, t) and matrix G(x, t)
    affine      the exact distributions of an affine one
    levels      choosing noise levels from data
"""

from scorefield.process import affine, families, general, grids, levels, process, tabulated
from scorefield.process.families import VE, VP, SubVP
from scorefield.process.general import GeneralSDE, NormalPrior
from scorefield.process.levels import LevelChoice, choose_levels
from scorefield.process.process import Process, TimeLimits
from scorefield.process.tabulated import GeometricSigmas, Levels, LinearBetas, LinearSigmas, Tabulated

__all__ = [
    "VE",
    "VP",
    "GeneralSDE",
    "GeometricSigmas",
    "LevelChoice",
    "Levels",
    "LinearBetas",
    "LinearSigmas",
    "NormalPrior",
    "Process",
    "SubVP",
    "Tabulated",
    "TimeLimits",
    "affine",
    "choose_levels",
    "families",
    "general",
    "grids",
    "levels",
    "process",
    "tabulated",
]
