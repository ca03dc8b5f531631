"""Noise processes: how data become noise as time t runs from 0 (least noise) to 1 (most noise).

A `Process` is given by two functions of t, the scale alpha of the data and the standard deviation sigma of the noise:

    x_t = alpha(t) x_0 + sigma(t) z,            z ~ N(0, I).

x_t has the distribution of the solution of the linear SDE dx = f(t) x dt + g(t) dw with

    f = d log alpha / dt,                       g^2 = d sigma^2 / dt - 2 f sigma^2.

The base class derives the following from alpha and sigma:

* the transition x_t = a x_s + b z for s <= t, with a = alpha_t / alpha_s and b^2 = sigma_t^2 - a^2 sigma_s^2;
* the posterior of x_s given x_t and x_0, which ancestral sampling uses;
* the drift of the reverse-time SDE, f x - g^2 score, and that of the probability flow, f x - g^2 score / 2;
* the prior at t = 1, and the times at which sigma or log(alpha^2 / sigma^2) has a given value.

A `GeneralSDE` has any drift f(x, t) and matrix G(x, t), dx = f(x, t) dt + G(x, t) dw. Its reverse drift is
f - div(G G') - G G' score, and its probability flow has half of the last two terms. If f = A(t) x + b(t) and G = G(t),
x_t given x_0 is N(Phi x_0 + m, P) with dPhi/dt = A Phi, dm/dt = A m + b and dP/dt = A P + P A' + G G'. Otherwise x_t is
simulated.

    module     contents
    process    the base class Process and the time limits of a process
    families   the continuous processes VE, VP and SubVP
    tabulated  discrete processes on a ladder of N noise levels (NCSN, DDPM), and interpolation between the levels
    grids      time grids: the times at which a sampler takes its steps
    general    GeneralSDE, any drift and diffusion, and its normal prior
    affine     exact normal distributions of a GeneralSDE with an affine drift
    levels     noise levels and Langevin step sizes chosen from data (Techniques 1, 2 and 4 of NCSNv2)
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
