"""Checks of scores: exact scores against their densities, and the parametrisations of networks."""

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
from scorefield.selftest.check import Bench, CheckGroup, Measurement, derivative, largest, relative, times
from scorefield.selftest.process import PROCESSES

GROUP = CheckGroup("score", "closed forms, Tweedie's formula, and parametrisations of networks")

TIMES = times(0.08, 0.3, 0.62, 0.973)


def _oracles(process: Process) -> dict[str, Oracle]:
    return {kind.__name__: make(process) for kind, make in EXAMPLES.items()}


def _samples(bench: Bench, oracle: Oracle, t: Tensor, seed: int) -> Tensor:
    """Return samples of x_t on the bench."""
    return bench.to(oracle.sample(len(t), t, seed=seed))


@GROUP.check(
    "gradients of densities",
    claim="every exact score is the gradient of its own log density, under every process",
    by="score = grad_x log p_t(x) by automatic differentiation, at samples of p_t",
    allowed=1e-9,
    why="residuals x - alpha m are divided by sigma^2 down to 1e-3, which leaves about six of sixteen digits fewer",
    single=1e-3,
)
def _gradients(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        for kind, oracle in _oracles(process).items():
            x = _samples(bench, oracle, TIMES, seed=1).requires_grad_(True)
            (slope,) = torch.autograd.grad(oracle.log_prob(x, TIMES).sum(), x)
            errors[f"{kind}, {name}"] = relative(oracle(x.detach(), TIMES), slope)
    return largest(errors)


@GROUP.check(
    "Tweedie",
    claim="the posterior mean of x_0 and the score are related by Tweedie's formula",
    by="E[x_0 | x_t] = (x_t + sigma^2 score) / alpha (Efron 2011), where the mean is computed without a division by"
    " sigma",
    allowed=1e-9,
    why="alpha is as small as 7e-3 at t = 1, where residuals cancel",
    single=2e-2,
)
def _tweedie(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        for kind, oracle in _oracles(process).items():
            x = _samples(bench, oracle, TIMES, seed=2)
            errors[f"{kind}, {name}"] = relative(
                tweedie(process, x, TIMES, oracle(x, TIMES)), oracle.denoised(x, TIMES)
            )
    return largest(errors)


@GROUP.check(
    "Fokker-Planck",
    claim="densities, scores, drift and diffusion are consistent: the probability flow carries the densities",
    by="d log p_t / dt = -div F - F . score with F = f x - g^2 score / 2 (Song et al. 2021, appendix D) and the exact"
    " divergence",
    allowed=1e-6,
    why="the derivative in t is a fourth-order difference with step 1e-4",
)
def _fokker_planck(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        oracle = skewed_mixture(process)
        x = _samples(bench, oracle, TIMES, seed=3)
        rate = derivative(lambda t, o=oracle, at=x: o.log_prob(at, t), TIMES)
        field, divergence = value_and_divergence(
            lambda u, o=oracle, p=process: p.flow_drift(u, TIMES, o(u, TIMES)), x, None
        )
        errors[name] = relative(-divergence - sum_event(field * oracle(x, TIMES)), rate)
    return largest(errors)


@GROUP.check(
    "Bayes' rule",
    claim="the posterior of an oracle under a linear observation is prior times likelihood over evidence",
    by="log p(x | y) = log p(x) + log N(y; A x, s^2 I) - log p(y)",
    allowed=1e-9,
    why="sums of a few terms of size 10, and one solution with a matrix of condition number 1e2",
)
def _bayes(bench: Bench) -> Measurement:
    A, y, std = torch.tensor([[1.0, -0.6], [0.2, 0.9]], dtype=torch.float64), times(0.7, -0.2), 0.3
    errors = {}
    for name, oracle in (("Gaussian", skewed_gaussian(PROCESSES["VP"])), ("Mixture", skewed_mixture(PROCESSES["VP"]))):
        x = bench.normal(8, 2, seed=4)
        likelihood = torch.distributions.Normal(times(0.0), times(std)).log_prob(y - x.cpu().double() @ A.T).sum(1)
        evidence = oracle.log_evidence(A, y, std)
        exact = oracle.log_prob(x).cpu().double() + likelihood - evidence
        errors[name] = relative(oracle.posterior(A, y, std).log_prob(x), exact)
    return largest(errors)


class _ConstantNetwork(nn.Module):
    """A network that returns a given output and records its input."""

    def __init__(self, output: Tensor):
        super().__init__()
        self.output, self.input = output, output

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        self.input = x
        return self.output


@GROUP.check(
    "parametrisations",
    claim="in every parametrisation the exact network output gives the posterior mean x_0 and the score -z / sigma",
    by="F = z, sigma s, s, x_0, alpha z - sigma x_0, and EDM's preconditioned residual, for x = alpha x_0 + sigma z",
    allowed=1e-8,
    why="x_0 is computed from x at alpha = 7e-3, and scores from x_0 at sigma = 0.03",
    single=2e-2,
)
def _parametrisations(bench: Bench) -> Measurement:
    errors = {}
    x0, z = bench.normal(len(TIMES), 3, seed=5), bench.normal(len(TIMES), 3, seed=6)
    for name, process in PROCESSES.items():
        alpha, sigma = over_event(process.alpha(TIMES), x0), over_event(process.sigma(TIMES), x0)
        x, s = process.perturb(x0, TIMES, z), 0.4
        root = (sigma**2 + (alpha * s) ** 2).sqrt()
        cases: dict[str, tuple[Form, Tensor, Tensor]] = {  # parametrisation, exact output, network input
            "noise": (NoiseForm(), z, x),
            "sigma score": (ScaledScoreForm(), -z, x),
            "score": (ScoreForm(), -z / sigma, x),
            "data": (DataForm(), x0, x),
            "velocity": (VelocityForm(), alpha * z - sigma * x0, x),
            "EDM": (KarrasForm(s), (x0 - alpha * s**2 / root**2 * x) * root / (sigma * s), x / root),
        }
        for case, (form, output, expected_input) in cases.items():
            network = _ConstantNetwork(output)
            score = NetworkScore(network, process, form, ScaledTime())
            errors[f"{case}, {name}"] = max(
                relative(score.denoised(x, TIMES), x0),
                relative(score(x, TIMES) * sigma, -z),
                relative(network.input, expected_input),
            )
    return largest(errors)


class _QuarticEnergy(nn.Module):
    """The energy E = |x|^2 / 2 + |x|^4 / 4."""

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        r = sum_event(x * x)
        return 0.5 * r + 0.25 * r**2


@GROUP.check(
    "energies",
    claim="the score of an energy is its negative gradient over the temperature, (sigma / sigma_0)^2 for MDSM",
    by="score = -grad E / T, D = x - sigma_0^2 grad E (Li et al. 2019), and the energy -T log p_t of a mixture, T = 3",
    allowed=1e-9,
    why="float64 rounding of gradients at noise levels down to 0.03",
    single=1e-3,
)
def _energies(bench: Bench) -> Measurement:
    process, sigma_0 = PROCESSES["VE"], 0.2
    x = bench.normal(len(TIMES), 2, seed=7)
    sigma = over_event(process.sigma(TIMES), x)
    gradient = x * (1.0 + (x * x).sum(1, keepdim=True))
    score = NetworkEnergy(_QuarticEnergy(), process, EnergyForm(sigma_0))
    oracle = skewed_mixture(process)
    y = _samples(bench, oracle, TIMES, seed=8)
    scaled = EnergyScore(lambda u, t, c: -3.0 * oracle.log_prob(u, t), process, lambda t: torch.full_like(t, 3.0))
    return largest(
        {
            "MDSM score": relative(score(x, TIMES), -((sigma_0 / sigma) ** 2) * gradient),
            "MDSM mean": relative(score.denoised(x, TIMES), x - sigma_0**2 * gradient),
            "mixture": relative(scaled(y, TIMES), oracle(y, TIMES)),
        }
    )


@GROUP.check(
    "scores on the device",
    claim="scores on this device equal those on the CPU",
    by="every oracle under every process at the same points, device against CPU in float64",
    allowed=1e-9,
    why="sums in another order, at noise levels down to 0.03",
    single=1e-3,
    accelerator=True,
)
def _on_device(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        for kind, oracle in _oracles(process).items():
            x = oracle.sample(len(TIMES), TIMES, seed=9)
            errors[f"{kind}, {name}"] = relative(oracle(bench.to(x), TIMES), oracle(x, TIMES))
    return largest(errors)
