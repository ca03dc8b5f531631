"""Checks of scores: exact ones against their densities, and what networks' outputs mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield._math import over_event, sum_event, value_and_divergence
from scorefield._typing import Condition
from scorefield.process import Process
from scorefield.score import (
    DataForm,
    EnergyForm,
    EnergyScore,
    Form,
    KarrasForm,
    NetworkEnergy,
    NetworkScore,
    NoiseForm,
    ScaledScoreForm,
    ScaledTime,
    ScoreForm,
    VelocityForm,
    tweedie,
)
from scorefield.score.oracles import EXAMPLES, Oracle, skewed_gaussian, skewed_mixture
from scorefield.selftest.check import Bench, Found, Room, largest, relative, times
from scorefield.selftest.process import PROCESSES

ROOM = Room("score", "closed forms, Tweedie's formula, and what a network's output means")

TIMES = times(0.08, 0.3, 0.62, 0.973)
_SINGLE = "float32 leaves 1e-7, divided by noise levels down to 0.03"


def _oracles(process: Process) -> dict[str, Oracle]:
    return {kind.__name__: make(process) for kind, make in EXAMPLES.items()}


def _places(bench: Bench, oracle: Oracle, t: Tensor, seed: int) -> Tensor:
    """Samples of x_t, on the bench."""
    return bench.to(oracle.sample(len(t), t, seed=seed))


@ROOM.check(
    "gradients of densities",
    claim="every exact score is the gradient of its own log density, under every process",
    by="score = grad_x log p_t(x) by automatic differentiation, at samples of p_t",
    allowed=1e-9,
    why="residuals x - alpha m are divided by sigma^2 down to 1e-3: six of sixteen digits",
    single=1e-3,
)
def _gradients(bench: Bench) -> Found:
    errors = {}
    for name, process in PROCESSES.items():
        for kind, oracle in _oracles(process).items():
            x = _places(bench, oracle, TIMES, seed=1).requires_grad_(True)
            (slope,) = torch.autograd.grad(oracle.log_prob(x, TIMES).sum(), x)
            errors[f"{kind}, {name}"] = relative(oracle(x.detach(), TIMES), slope)
    return largest(errors)


@ROOM.check(
    "Tweedie",
    claim="the posterior mean of x_0 and the score say the same",
    by="E[x_0 | x_t] = (x_t + sigma^2 score) / alpha (Efron 2011), the mean found without a division by sigma",
    allowed=1e-9,
    why="alpha is as small as 7e-3 at t = 1, and residuals cancel there",
    single=2e-2,
)
def _tweedie(bench: Bench) -> Found:
    errors = {}
    for name, process in PROCESSES.items():
        for kind, oracle in _oracles(process).items():
            x = _places(bench, oracle, TIMES, seed=2)
            errors[f"{kind}, {name}"] = relative(
                tweedie(process, x, TIMES, oracle(x, TIMES)), oracle.denoised(x, TIMES)
            )
    return largest(errors)


@ROOM.check(
    "Fokker-Planck",
    claim="density, score, drift and diffusion belong together: densities are carried by the probability flow",
    by="d log p_t / dt = -div F - F . score, F = f x - g^2 score / 2 (Song et al. 2021, appendix D), divergence exact",
    allowed=1e-6,
    why="the derivative in t is a difference of step 1e-4 and fourth order",
)
def _fokker_planck(bench: Bench) -> Found:
    errors = {}
    for name, process in PROCESSES.items():
        oracle = skewed_mixture(process)
        x = _places(bench, oracle, TIMES, seed=3)
        near, far = (
            (oracle.log_prob(x, TIMES + k * 1e-4) - oracle.log_prob(x, TIMES - k * 1e-4)) / (2e-4 * k) for k in (1, 2)
        )
        rate = (4.0 * near - far) / 3.0
        field, divergence = value_and_divergence(
            lambda u, o=oracle, p=process: p.flow_drift(u, TIMES, o(u, TIMES)), x, None
        )
        errors[name] = relative(-divergence - sum_event(field * oracle(x, TIMES)), rate)
    return largest(errors)


@ROOM.check(
    "Bayes' rule",
    claim="an oracle's posterior under a linear observation is prior times likelihood over evidence",
    by="log p(x | y) = log p(x) + log N(y; A x, s^2 I) - log p(y)",
    allowed=1e-9,
    why="sums of a few terms of size 10, one solve with a matrix of condition 1e2",
)
def _bayes(bench: Bench) -> Found:
    A, y, std = torch.tensor([[1.0, -0.6], [0.2, 0.9]], dtype=torch.float64), times(0.7, -0.2), 0.3
    errors = {}
    for name, oracle in (("Gaussian", skewed_gaussian(PROCESSES["VP"])), ("Mixture", skewed_mixture(PROCESSES["VP"]))):
        x = bench.normal(8, 2, seed=4)
        likelihood = torch.distributions.Normal(times(0.0), times(std)).log_prob(y - x.cpu().double() @ A.T).sum(1)
        evidence = oracle.log_evidence(A, y, std)
        exact = oracle.log_prob(x).cpu().double() + likelihood - evidence
        errors[name] = relative(oracle.posterior(A, y, std).log_prob(x), exact)
    return largest(errors)


class _Answers(nn.Module):
    """A network that answers with given numbers, and remembers the scale of its input."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer, self.seen = answer, answer

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        self.seen = x
        return self.answer


@ROOM.check(
    "meanings of outputs",
    claim="a network that answers perfectly in any parametrisation has the posterior mean x_0 and the score -z / sigma",
    by="F = z, sigma s, s, x_0, alpha z - sigma x_0, and EDM's preconditioned residual, for x = alpha x_0 + sigma z",
    allowed=1e-8,
    why="x_0 out of x at alpha = 7e-3, scores out of x_0 at sigma = 0.03",
    single=2e-2,
)
def _meanings(bench: Bench) -> Found:
    errors = {}
    x0, z = bench.normal(len(TIMES), 3, seed=5), bench.normal(len(TIMES), 3, seed=6)
    for name, process in PROCESSES.items():
        alpha, sigma = over_event(process.alpha(TIMES), x0), over_event(process.sigma(TIMES), x0)
        x, s = process.perturb(x0, TIMES, z), 0.4
        root = (sigma**2 + (alpha * s) ** 2).sqrt()
        answers: dict[str, tuple[Form, Tensor, Tensor]] = {
            "noise": (NoiseForm(), z, x),
            "sigma score": (ScaledScoreForm(), -z, x),
            "score": (ScoreForm(), -z / sigma, x),
            "data": (DataForm(), x0, x),
            "velocity": (VelocityForm(), alpha * z - sigma * x0, x),
            "EDM": (KarrasForm(s), (x0 - alpha * s**2 / root**2 * x) * root / (sigma * s), x / root),
        }
        for form, (meaning, answer, wanted) in answers.items():
            network = _Answers(answer)
            score = NetworkScore(network, process, meaning, ScaledTime())
            errors[f"{form}, {name}"] = max(
                relative(score.denoised(x, TIMES), x0),
                relative(score(x, TIMES) * sigma, -z),
                relative(network.seen, wanted),
            )
    return largest(errors)


class _Bowl(nn.Module):
    """E = |x|^2 / 2 + |x|^4 / 4."""

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        r = sum_event(x * x)
        return 0.5 * r + 0.25 * r**2


@ROOM.check(
    "energies",
    claim="the score of an energy is its negative gradient over the temperature, (sigma / sigma_0)^2 for MDSM",
    by="score = -grad E / T, D = x - sigma_0^2 grad E (Li et al. 2019), and -grad of -log p_t of a mixture",
    allowed=1e-9,
    why="rounding of float64 gradients over noise levels down to 0.03",
    single=1e-3,
)
def _energies(bench: Bench) -> Found:
    process, sigma_0 = PROCESSES["VE"], 0.2
    x = bench.normal(len(TIMES), 2, seed=7)
    sigma = over_event(process.sigma(TIMES), x)
    gradient = x * (1.0 + (x * x).sum(1, keepdim=True))
    score = NetworkEnergy(_Bowl(), process, EnergyForm(sigma_0))
    oracle = skewed_mixture(process)
    at = _places(bench, oracle, TIMES, seed=8)
    cooled = EnergyScore(lambda u, t, c: -3.0 * oracle.log_prob(u, t), process, lambda t: torch.full_like(t, 3.0))
    return largest(
        {
            "MDSM score": relative(score(x, TIMES), -((sigma_0 / sigma) ** 2) * gradient),
            "MDSM mean": relative(score.denoised(x, TIMES), x - sigma_0**2 * gradient),
            "mixture": relative(cooled(at, TIMES), oracle(at, TIMES)),
        }
    )


@ROOM.check(
    "scores on the device",
    claim="scores on this device are those of the CPU",
    by="every oracle under every process at the same points, device against CPU in float64",
    allowed=1e-9,
    why="another order of sums, over noise levels down to 0.03",
    single=1e-3,
    accelerator=True,
)
def _on_device(bench: Bench) -> Found:
    errors = {}
    for name, process in PROCESSES.items():
        for kind, oracle in _oracles(process).items():
            x = oracle.sample(len(TIMES), TIMES, seed=9)
            errors[f"{kind}, {name}"] = relative(oracle(bench.to(x), TIMES), oracle(x, TIMES))
    return largest(errors)
