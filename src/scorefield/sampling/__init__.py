"""Sampling: from noise to data along a score.

A sampler moves a state along decreasing times t_0 = 1 > t_1 > ... > t_N by one step between each two. Steps that move
from t to s discretise the reverse-time SDE

    dx = (f x - g^2 score) dt + g dw,

or the probability flow, which has the same marginals,

    dx/dt = f x - g^2 score / 2.

Steps that stay at t are correctors. They run Langevin dynamics, x + e score + sqrt(2 e) z, which leaves p_t invariant
as e -> 0. Predictor-corrector sampling and annealed Langevin dynamics are chains of both kinds. Solvers of higher order
use that with lambda = log(alpha / sigma) both equations are linear in x except for the posterior mean
D(x, t) = (x + sigma^2 score) / alpha, integrate the linear part exactly, and replace D by a polynomial in lambda.

A step is called with the score function, so it can evaluate the score where it needs to. Steps that move declare their
order of accuracy; correctors declare the distribution that they leave invariant.

    module        contents
    step          the interface `Step` and its result, with the compositions Chain, Repeat and Hold
    predictors    Euler-Maruyama, reverse diffusion, ancestral sampling, the probability flow by Euler and Heun
    exponential   exponential multistep methods of the probability flow, order 1 to 4
    stochastic    DDIM, multistep and Runge-Kutta methods of the reverse SDE, the sampler of EDM
    adaptive      the probability flow by Dormand-Prince with steps for each example
    adaptive_sde  the reverse SDE with steps for each example on a Brownian tree
    langevin      Langevin correctors and the rules for their step size
    metropolis    correctors with a Metropolis test: MALA and Hamiltonian Monte Carlo
    consistent    consistent annealed sampling
    temperature   Langevin dynamics of an energy at decreasing temperatures, and its inpainting
    sampler       the sampling loop, the starts of a chain, and the record `Sampler`
    named         samplers by name
    on_grid       process coefficients cached at the times of a grid
"""

from scorefield.sampling import (
    adaptive,
    adaptive_sde,
    consistent,
    exponential,
    langevin,
    metropolis,
    named,
    on_grid,
    predictors,
    sampler,
    step,
    stochastic,
    temperature,
)
from scorefield.sampling.adaptive import AdaptiveFlow
from scorefield.sampling.adaptive_sde import AdaptiveSDE
from scorefield.sampling.consistent import Consistent
from scorefield.sampling.exponential import ExponentialMultistep
from scorefield.sampling.langevin import LadderScaled, Langevin, NoiseScaled, NormRatio
from scorefield.sampling.metropolis import HMC, MALA
from scorefield.sampling.predictors import Ancestral, EulerMaruyama, FlowEuler, FlowHeun, ReverseDiffusion
from scorefield.sampling.sampler import DataStart, PriorStart, Progress, Sampler, UniformStart, drive
from scorefield.sampling.step import Chain, Hold, Repeat, Step, StepResult
from scorefield.sampling.stochastic import DDIM, KarrasHeun, StochasticHeun, StochasticMultistep, StochasticRungeKutta
from scorefield.sampling.temperature import InpaintingLangevin, NormalStart, TemperatureLangevin, TemperatureSchedule

__all__ = [
    "DDIM",
    "HMC",
    "MALA",
    "AdaptiveFlow",
    "AdaptiveSDE",
    "Ancestral",
    "Chain",
    "Consistent",
    "DataStart",
    "EulerMaruyama",
    "ExponentialMultistep",
    "FlowEuler",
    "FlowHeun",
    "Hold",
    "InpaintingLangevin",
    "KarrasHeun",
    "LadderScaled",
    "Langevin",
    "StepResult",
    "NoiseScaled",
    "NormRatio",
    "NormalStart",
    "PriorStart",
    "Progress",
    "Repeat",
    "ReverseDiffusion",
    "Sampler",
    "Step",
    "StochasticHeun",
    "StochasticMultistep",
    "StochasticRungeKutta",
    "TemperatureLangevin",
    "TemperatureSchedule",
    "UniformStart",
    "adaptive",
    "adaptive_sde",
    "consistent",
    "drive",
    "exponential",
    "langevin",
    "metropolis",
    "named",
    "on_grid",
    "predictors",
    "sampler",
    "step",
    "stochastic",
    "temperature",
]
