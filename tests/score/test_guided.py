"""Guided scores: exact where the likelihood is, Scores in every respect, example by example."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from score.laws import PROCESSES, over, times
from scorefield._typing import Condition
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets import MLP, GuideMLP
from scorefield.process import VE, Process
from scorefield.score import (
    Category,
    ClassifierFree,
    Guided,
    LogRatio,
    NetworkGuide,
    NetworkScore,
    NoiseForm,
    Quantity,
    Score,
    oracles,
    tweedie,
)
from tolerance import FINITE_DIFFERENCE, FLOAT32, FLOAT64, ORACLE_SCORE

LABELS = (0, 1, 1, 2)


def mixture(process: Process) -> oracles.Mixture:
    """Four components of three classes in the plane, one class of two components."""
    means = torch.tensor([[-1.0, 0.3], [0.4, 0.9], [1.2, -0.8], [0.1, -0.2]], dtype=torch.float64)
    variances = torch.tensor([[0.2, 0.5], [0.3, 0.1], [0.4, 0.4], [0.6, 0.2]], dtype=torch.float64)
    return oracles.Mixture(process, torch.tensor([0.3, 0.2, 0.4, 0.1]), means, variances, LABELS)


def class_likelihood(oracle: oracles.Mixture):
    """The oracle's exact log p_t(class | x), 0 where the class is not known."""

    def log_prob(x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        labels = (condition or {})["class"]
        known = oracle.class_log_prob(x, t).gather(1, labels.clamp_min(0)[:, None])[:, 0]
        return torch.where(labels < 0, torch.zeros_like(known), known)

    return log_prob


def points(oracle: oracles.Mixture, process: Process) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and labels: every class, and unknown, at five times."""
    t = times(process, 5).repeat_interleave(4)
    labels = torch.tensor([0, 1, 2, -1]).repeat(5)
    return oracle.sample(len(t), t, seed=3), t, labels


@pytest.mark.parametrize("name", PROCESSES)
def test_with_the_exact_posterior_the_guided_score_is_the_conditional_one(name: str) -> None:
    process = PROCESSES[name]
    oracle = mixture(process)
    x, t, labels = points(oracle, process)
    guided = Guided(oracle, class_likelihood(oracle), names=("class",))
    condition = {"class": labels}
    exact, sigma = oracle(x, t, condition), over(process.sigma(t), x)
    # Both sides are residuals over sigma^2, so sigma times their difference is what rounding leaves.
    error = sigma * (guided(x, t, condition) - exact)
    assert error.abs().max() <= ORACLE_SCORE
    assert (guided.denoised(x, t, condition) - oracle.denoised(x, t, condition)).abs().max() <= ORACLE_SCORE
    mutant = Guided(oracle, class_likelihood(oracle), 1.01, names=("class",))
    assert (sigma * (mutant(x, t, condition) - exact)).abs().max() > 1e3 * ORACLE_SCORE
    deaf = oracle(x, t)  # an unknown class is no guidance
    assert torch.equal(guided(x, t, condition)[labels < 0], deaf[labels < 0])


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("name", PROCESSES)
def test_classifier_free_is_the_guided_score(name: str, scale: float) -> None:
    """s + w (s(. | y) - s) is s + w grad log p(y | x), by Bayes' rule; both denoise by Tweedie's formula."""
    process = PROCESSES[name]
    oracle = mixture(process)
    x, t, labels = points(oracle, process)
    condition, sigma = {"class": labels}, over(process.sigma(t), x)
    free = ClassifierFree(oracle, scale)
    guided = Guided(oracle, class_likelihood(oracle), scale, names=("class",))
    for score in (free, guided):
        value = score(x, t, condition)
        off = score.denoised(x, t, condition) - tweedie(process, x, t, value)
        assert (over(process.alpha(t), x) * off).abs().max() <= ORACLE_SCORE
    assert (sigma * (free(x, t, condition) - guided(x, t, condition))).abs().max() <= ORACLE_SCORE * max(scale, 1.0)
    expected = {0.0: oracle(x, t), 1.0: oracle(x, t, condition)}
    if scale in expected:
        assert torch.equal(free(x, t, condition), expected[scale])


class Counted(Score):
    """An oracle that counts its calls."""

    def __init__(self, oracle: oracles.Mixture):
        self.oracle, self.process, self.asked = oracle, oracle.process, 0

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        self.asked += 1
        return self.oracle(x, t, condition)


@pytest.mark.parametrize(("scale", "known", "calls"), [(0.0, True, 1), (1.0, True, 1), (2.0, True, 2), (2.0, False, 1)])
def test_evaluations_are_counted_as_made(scale: float, known: bool, calls: int) -> None:
    oracle = mixture(VE(0.01, 5.0))
    counted = Counted(oracle)
    x, t = torch.zeros(2, 2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    condition = {"class": torch.tensor([0, 1])} if known else None
    free = ClassifierFree(counted, scale)
    free.bind(condition)(x, t)
    assert counted.asked == free.evaluations(condition) == free.bind(condition).evaluations() == calls
    guided = Guided(free, lambda x, t, condition: -x.square().sum(1), 1.0)
    assert guided.evaluations(condition) == calls + 1 and Guided(free, guided.log_likelihood, 0.0).evaluations() == 1


def test_density_follows_the_score() -> None:
    oracle = mixture(VE(0.01, 5.0))
    guided = Guided(oracle, class_likelihood(oracle), 3.0, names=("class",))
    x, t = oracle.sample(4, 0.4, seed=1), torch.full((4,), 0.4, dtype=torch.float64)
    condition = {"class": torch.tensor([0, 1, 2, 1])}
    value, score = guided.with_density(x, t, condition)
    h, direction = 1e-5, torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    ahead, behind = (guided.with_density(x + k * h * direction, t, condition)[0] for k in (1, -1))
    slope = (ahead - behind) / (2 * h)
    assert ((score * direction).sum(1) - slope).abs().max() <= FINITE_DIFFERENCE * slope.abs().max() * 10
    assert torch.equal(score, guided(x, t, condition))
    with pytest.raises(TypeError, match="score without a density"):
        ClassifierFree(oracle, 2.0).with_density(x, t, condition)


# ------------------------------------------------------------------------------------------------ networks


def guide(answer: Category | Quantity, process: Process) -> NetworkGuide:
    torch.manual_seed(0)
    network = GuideMLP(width=16, depth=1, dropout=0.0).build(DataSpec((2,)), answer.outputs)
    return NetworkGuide(network.eval(), process, answer)


ANSWERS = {
    "class": (Category("class", 3), torch.tensor([2, 0, 1, -1])),
    "numbers": (
        Quantity("y", (0.5, -1.0), (2.0, 0.3)),
        torch.tensor([[0.1, -1.2], [3.0, 0.4], [0.0, 0.0], [math.nan, 1.0]]),
    ),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", PROCESSES)
def test_examples_do_not_see_each_other(name: str, answer: str) -> None:
    """A row depends on no other row: not on its values, its label or its presence; a row without a label is free."""
    process = PROCESSES[name]
    made, y = ANSWERS[answer]
    one = guide(made, process)
    guided = Guided(mixture(process), one.log_prob, 2.0, names=(made.name,))
    t = times(process, 4)
    x = mixture(process).sample(4, t, seed=2)
    whole = guided(x, t, {made.name: y})
    assert torch.isfinite(whole).all()
    for i in range(4):
        row = slice(i, i + 1)
        alone = guided(x[row], t[row], {made.name: y[row]})
        assert (alone - whole[row]).abs().max() <= FLOAT32 * whole[row].abs().max()
        others = torch.arange(4) != i
        moved, told = x.clone(), y.clone()
        moved[others] += 1.0
        told[others] = told[others].flip(0)
        kept = guided(moved, t, {made.name: told})
        assert torch.equal(kept[row], whole[row]) and not torch.equal(kept[others], whole[others])
    assert torch.equal(whole[3], mixture(process)(x, t)[3])
    bound = guided.bind({made.name: y})  # what adaptive solvers do with finished examples
    keep = torch.tensor([2, 0])
    assert (bound.rows(keep)(x[keep], t[keep]) - whole[keep]).abs().max() <= FLOAT32 * whole[keep].abs().max()


def test_laws_of_answers_are_normalised() -> None:
    generator = torch.Generator().manual_seed(4)
    classes = Category("class", 5)
    raw = torch.randn(1, 5, generator=generator, dtype=torch.float64).expand(5, -1)
    assert float(classes.log_prob(raw, torch.arange(5)).exp().sum()) == pytest.approx(1.0, rel=FLOAT64)
    assert classes.error(raw, torch.arange(5)).sum() == 4
    numbers = Quantity("y", (0.5, -1.0), (2.0, 0.3))
    raw = torch.tensor([[0.3, -0.7, 0.2, -0.4]], dtype=torch.float64)
    m, r = raw[0].chunk(2)
    scale, offset = (torch.tensor(v, dtype=torch.float64) for v in (numbers.scale, numbers.offset))
    law = torch.distributions.Normal(offset + scale * m, scale * (5 * (r / 5).tanh()).exp())
    y = torch.tensor([[0.9, -1.3]], dtype=torch.float64)
    expected = float(law.log_prob(y[0]).sum())
    assert float(numbers.log_prob(raw, y)) == pytest.approx(expected, rel=FLOAT64)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_guidance_model_takes_the_example_in_the_scale_of_the_data(name: str) -> None:
    """c = ln(sigma / alpha), x / alpha: finite at every time, and the gradient is that of the stated distribution."""
    process = PROCESSES[name]
    t = times(process, 5)
    one = guide(Category("class", 3), process)
    seen: list[tuple[Tensor, Tensor]] = []
    one.network.register_forward_hook(lambda _, given, __: seen.append(given))  # type: ignore[arg-type]
    x = mixture(process).sample(5, t, seed=1)
    value, gradient = one.with_density(x, t, {"class": torch.tensor([0, 1, 2, 0, 1])})
    assert (seen[0][1].double() + 0.5 * process.log_snr(t)).abs().max() <= FLOAT32 * 20
    assert (seen[0][0].double() - x / over(process.alpha(t), x)).abs().max() <= FLOAT32 * seen[0][0].abs().max()
    assert value.dtype == gradient.dtype == torch.float64 and torch.isfinite(gradient).all()
    assert torch.equal(gradient, one(x, t, {"class": torch.tensor([0, 1, 2, 0, 1])})) and gradient.abs().min() > 0
    with pytest.raises(TypeError, match="has no posterior mean"):
        one.denoised(x, t)


CONDITIONS = {
    "class": (ConditionSpec("k", "class", 3), torch.tensor([2, 0]), torch.tensor([-1, -1])),
    "vector": (ConditionSpec("k", "vector", 4), torch.rand(2, 4), torch.full((2, 4), math.nan)),
    "image": (ConditionSpec("k", "image", 2), torch.rand(2, 2, 5), torch.full((2, 2, 5), math.nan)),
}


@pytest.mark.parametrize("kind", CONDITIONS)
def test_what_is_not_given_is_what_training_drops(kind: str) -> None:
    """Labels -1, vectors and images of NaN are the unknown values of training; guidance passes no condition."""
    spec, known, dropped = CONDITIONS[kind]
    torch.manual_seed(1)
    data = DataSpec((1, 5), conditions=(spec,))
    network = MLP(width=16, depth=1).build(data).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # the last layer starts at zero, and so does what is said of the unknown
            parameter.add_(0.2 * torch.randn(parameter.shape))
    score = NetworkScore(network, VE(0.01, 5.0), NoiseForm(), LogRatio())
    x, t = torch.randn(2, 1, 5), torch.tensor([0.3, 0.8], dtype=torch.float64)
    given, unknown = score(x, t, {"k": known}), score(x, t, {"k": dropped})
    assert (given - unknown).abs().max() > 1e3 * FLOAT32
    guided = ClassifierFree(score, 3.0)
    expected = unknown + 3.0 * (given - unknown)
    assert (guided(x, t, {"k": known}) - expected).abs().max() <= FLOAT32 * expected.abs().max()
    assert torch.equal(guided(x, t), unknown) and torch.equal(ClassifierFree(score, 0.0)(x, t, {"k": known}), unknown)
    mixed = torch.stack([known[0], dropped[1]])  # one example's condition is known, the other's not
    assert (guided(x, t, {"k": mixed})[1] - unknown[1]).abs().max() <= FLOAT32 * unknown.abs().max()


# ------------------------------------------------------------------------------------------------ refusals


def test_refusals() -> None:
    oracle = mixture(VE(0.01, 5.0))
    x, t = torch.zeros(2, 2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    for scale in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite number, not negative"):
            Guided(oracle, class_likelihood(oracle), scale)
        with pytest.raises(ValueError, match="finite number, not negative"):
            ClassifierFree(oracle, scale)
    with pytest.raises(ValueError, match=r"has shape \(2, 2\); guidance takes one number"):
        Guided(oracle, lambda x, t, condition: x)(x, t)
    classes = guide(Category("class", 3), VE(0.01, 5.0))
    with pytest.raises(ValueError, match=r"labels from 0 to 3; the guidance model has the classes 0..2"):
        classes(x, t, {"class": torch.tensor([0, 3])})
    with pytest.raises(ValueError, match="2 integers, one label per example; got torch.float32"):
        classes(x, t, {"class": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"2 numbers for each of 2 examples; got shape \(2, 3\)"):
        guide(Quantity("y", (0.0, 0.0), (1.0, 1.0)), VE(0.01, 5.0))(x, t, {"y": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="two or more classes; 'class' has 1"):
        Category("class", 1)
    with pytest.raises(ValueError, match="one positive scale per number"):
        Quantity("y", (0.0,), (0.0,))
