"""Scores: functions score(x, t, condition) = grad_x log p_t(x | condition) of type `Score`.

Samplers, losses and likelihoods take any `Score`. With x_t = alpha x_0 + sigma z, the score and the posterior mean D of
x_0 given x_t = x determine each other (Tweedie's formula):

    score = (alpha D - x) / sigma^2,        D = (x + sigma^2 score) / alpha.

A network predicts a combination of x and D. Its *form* states which one, by D = skip x + out F, with coefficients that
depend on alpha and sigma.

Guidance adds the gradient of a log-likelihood to a score, and the result is a `Score` again:

    s(x, t) + w grad_x log p_t(y | x)       with a guidance model of y,
    s(x, t) + w (s(x, t | y) - s(x, t))     classifier-free.

An energy E with temperature T has the score -grad_x E / T of the density proportional to exp(-E / T).

    module           contents
    score            the type Score, plain functions as scores, scores with their condition bound
    parametrisation  forms of a network's output, and the numbers c that condition a network on the noise level
    network          NetworkScore: a network, a process, a form and a time input make a Score
    guidance         Guided and ClassifierFree
    guidance_model   guidance models p_t(y | x): a network for a class or for numbers y
    clipped          Clipped: a score whose posterior mean is clipped to the range of the data
    energy           energies as scores, energies without a time, and energies confined to a box or a ball
    oracles          closed forms for Gaussians, mixtures, point masses and random fields, exact under every process
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
