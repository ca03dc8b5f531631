"""From noise to data by following a score.

A sampler is a chain of steps along decreasing times t_0 = 1 > t_1 > ... > t_N. A step is handed the score function and
moves the state from t to s, by discretising the reverse-time SDE

    dx = (f x - g^2 score) dt + g dw,

or the probability flow, dx/dt = f x - g^2 score / 2, which has the same marginals; a corrector stays at t and runs
Langevin dynamics there, x + e score + sqrt(2 e) z. Predictor-corrector sampling and annealed Langevin dynamics are
chains of those. A step that moves declares its order of accuracy, one that stays the law that it leaves invariant.

    step         the type, Chain, Repeat, Hold
    predictors   Euler-Maruyama, reverse diffusion, ancestral, flow by Euler and Heun
    langevin     correctors and the rules for their step size
    consistent   consistent annealed sampling
    metropolis   correctors that accept or reject: MALA, Hamiltonian Monte Carlo
    exponential  multistep methods of the flow, order 1 to 4
    stochastic   DDIM, multistep and Runge-Kutta methods of the reverse SDE, EDM's
    adaptive     Dormand-Prince with per-example steps
    adaptive_sde the reverse SDE with per-example steps on a Brownian tree
    temperature  Langevin dynamics of an energy at falling temperatures, and its inpainting
    on_grid      coefficients of all steps at once
    sampler      the loop, starts, and the record of a sampler
    named        samplers by name
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
from scorefield.sampling.step import Chain, Hold, Moved, Repeat, Step
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
    "Moved",
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
