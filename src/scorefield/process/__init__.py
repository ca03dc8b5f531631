"""What noise does to data.

A process is two functions of time t in [0, 1], t = 0 the least noise:

    x_t = alpha(t) x_0 + sigma(t) z,            z ~ N(0, I).

It is the law of the linear SDE dx = f(t) x dt + g(t) dw with f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f
sigma^2, so everything else follows (`process.Process`): the transition x_t = a x_s + b z with a = alpha_t / alpha_s and
b^2 = sigma_t^2 - a^2 sigma_s^2, the posterior of x_s given x_t and x_0 that ancestral sampling uses, the reverse-time
drift f x - g^2 score and the probability flow f x - g^2 score / 2, the prior at t = 1, the clocks log(alpha^2 /
sigma^2) and sigma.

    families    VE, VP, SubVP
    tabulated   ladders of N levels (NCSN, DDPM) and the rules between them
    grids       where a sampler's steps lie
    general     any drift f(x, t) and matrix G(x, t)
    levels      choosing noise levels from data
"""

from scorefield.process import families, general, grids, levels, process, tabulated
from scorefield.process.families import VE, VP, SubVP
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process, TimeLimits
from scorefield.process.tabulated import GeometricSigmas, Levels, LinearBetas, Tabulated

__all__ = [
    "VE",
    "VP",
    "GeneralSDE",
    "GeometricSigmas",
    "Levels",
    "LinearBetas",
    "Process",
    "SubVP",
    "Tabulated",
    "TimeLimits",
    "families",
    "general",
    "grids",
    "levels",
    "process",
    "tabulated",
]
