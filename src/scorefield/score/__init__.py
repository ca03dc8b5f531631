"""Things of type Score: score(x, t, condition) = grad_x log p_t(x | condition), the currency of the library.

With x_t = alpha x_0 + sigma z, the score and the posterior mean D of x_0 say the same (Tweedie):

    score = (alpha D - x) / sigma^2,        D = (x + sigma^2 score) / alpha,

and a network predicts some combination of x and D; which one is its *form*.

    score             the type, plain functions as scores, conditions bound
    parametrisation   forms of a network's output and numbers it is conditioned on
    network           a network, a process and a form make a Score
    guidance          s + w grad log p(y | x), and s + w (s(. | y) - s): scores led to a condition, Scores again
    clipped           a score whose posterior mean stays in the range of the data
    guidance_model    p_t(y | x) by a network, for classes and for numbers
    energy            p is proportional to exp(-E / T): -grad E / T as a Score, and energies alone, confined ones too
    oracles           Gaussians, mixtures, point masses, random fields: exact at every t under every process
"""

from scorefield.score import clipped, energy, guidance, guidance_model, network, oracles, parametrisation, score
from scorefield.score.clipped import Clipped
from scorefield.score.energy import Confined, Energy, EnergyForm, EnergyScore, NetworkEnergy
from scorefield.score.guidance import ClassifierFree, Guided
from scorefield.score.guidance_model import Answer, Category, NetworkGuide, Quantity
from scorefield.score.network import NetworkScore, Parametrisation, network_score
from scorefield.score.parametrisation import (
    DataForm,
    Form,
    KarrasForm,
    LevelLabel,
    LogRatio,
    LogScaledTime,
    LogSigma,
    NoiseForm,
    ScaledScoreForm,
    ScaledTime,
    ScoreForm,
    TimeInput,
    VelocityForm,
)
from scorefield.score.score import BoundScore, FunctionScore, Score, tweedie

__all__ = [
    "Answer",
    "BoundScore",
    "Category",
    "ClassifierFree",
    "Clipped",
    "Confined",
    "DataForm",
    "Energy",
    "EnergyForm",
    "EnergyScore",
    "Form",
    "FunctionScore",
    "Guided",
    "KarrasForm",
    "LevelLabel",
    "LogRatio",
    "LogScaledTime",
    "LogSigma",
    "NetworkEnergy",
    "NetworkGuide",
    "NetworkScore",
    "NoiseForm",
    "Parametrisation",
    "Quantity",
    "ScaledScoreForm",
    "ScaledTime",
    "Score",
    "ScoreForm",
    "TimeInput",
    "VelocityForm",
    "clipped",
    "energy",
    "guidance",
    "guidance_model",
    "network",
    "network_score",
    "oracles",
    "parametrisation",
    "score",
    "tweedie",
]
