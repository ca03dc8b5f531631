"""Guidance models p_t(y | x_t) of a noisy example, for a class or for numbers y, by a noise-conditional network.

What y is decides what the outputs of the network mean (`Category`, `Quantity`); the network decides nothing else. A
guidance model is the term that y adds to a score, grad_x log p_t(y | x), and is called like one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._math import LOG_2PI, once, over_event
from scorefield._typing import Condition
from scorefield.data_spec import ConditionSpec
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.score.guidance import value_and_gradient
from scorefield.score.score import Score

SPREAD = 5.0
"""A `Quantity` has deviations between e^-5 and e^5 of its unit: a network cannot promise certainty."""


class Answer(ABC):
    """Description of y, and how the outputs of a network parametrise its distribution."""

    name: str

    @property
    @abstractmethod
    def spec(self) -> ConditionSpec:
        """y as a condition, under its name."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of network outputs that parametrise the distribution of one y."""

    @abstractmethod
    def log_prob(self, raw: Tensor, y: Tensor) -> Tensor:
        """log p(y) in the units of y, (B,); 0, and no gradient, where y is not known.

        Args:
            raw: Outputs of a network, (B, outputs).
            y: Labels (B,), -1 not known, or numbers (B, size), NaN not known.

        Raises:
            ValueError: y does not have that shape, or is no class.
        """

    @abstractmethod
    def error(self, raw: Tensor, y: Tensor) -> Tensor:
        """How wrong the best guess of y is, (B,): what its root of the mean square, or mean, is reported of."""


@record
class Category(Answer):
    """y is one of several classes; the outputs are logits: p(y = k) = exp(l_k) / sum_j exp(l_j).

    Args:
        name: Name of y among the conditions.
        size: Number of classes, at least 2.
        class_names: Names of the classes, if known.
    """

    name: str
    size: int
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"a classifier tells two or more classes apart; {self.name!r} has {self.size}")
        assert self.spec  # which checks the names

    @property
    def spec(self) -> ConditionSpec:
        return ConditionSpec(self.name, "class", self.size, self.class_names)

    @property
    def outputs(self) -> int:
        return self.size

    def log_prob(self, raw: Tensor, y: Tensor) -> Tensor:
        if y.shape != raw.shape[:1] or y.is_floating_point():
            raise ValueError(f"{self.name!r} must be {len(raw)} whole numbers; got {y.dtype} of shape {tuple(y.shape)}")
        if y.device.type == "cpu" and bool(((y < -1) | (y >= self.size)).any()):
            raise ValueError(
                f"{self.name!r} has labels from {int(y.min())} to {int(y.max())}; the guidance model knows the classes"
                f" 0..{self.size - 1}, and -1 for not known"
            )
        known = y >= 0
        chosen = raw.log_softmax(1).gather(1, torch.where(known, y, 0)[:, None])[:, 0]
        return torch.where(known, chosen, torch.zeros_like(chosen))

    def error(self, raw: Tensor, y: Tensor) -> Tensor:
        """1 where another class is the most probable one."""
        return (raw.argmax(1) != y).to(raw.dtype)


@record
class Quantity(Answer):
    """y is one or more numbers, normal given x.

    The outputs are (m, r), and with u = (y - offset) / scale

        p(u) = N(u; m, diag(e^(2 k))),    k = 5 tanh(r / 5).

    Args:
        name: Name of y among the conditions.
        offset: One number per entry of y, for example the mean of the training data.
        scale: Number by which y is divided, for example its deviation; positive.

    Raises:
        ValueError: Numbers of another count, or a scale that is not positive.
    """

    name: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale) or not self.offset or not min(self.scale) > 0:
            raise ValueError(f"give one offset and one positive scale per number of y; got {self.offset}, {self.scale}")

    @property
    def spec(self) -> ConditionSpec:
        return ConditionSpec(self.name, "vector", len(self.offset))

    @property
    def outputs(self) -> int:
        return 2 * len(self.offset)

    def _parts(self, raw: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which are known, (B,); the residual u - m, 0 where not known, and k, both (B, size)."""
        if y.shape != (len(raw), len(self.offset)):
            raise ValueError(
                f"{self.name!r} must be {len(self.offset)} numbers for each of {len(raw)} examples; got shape"
                f" {tuple(y.shape)}"
            )
        known = ~y.isnan().any(1)
        u = (y.to(raw) - raw.new_tensor(self.offset)) / raw.new_tensor(self.scale)
        m, r = raw.chunk(2, dim=1)
        return known, torch.where(known[:, None], u, m.detach()) - m, SPREAD * torch.tanh(r / SPREAD)

    def log_prob(self, raw: Tensor, y: Tensor) -> Tensor:
        known, residual, k = self._parts(raw, y)
        units = len(self.scale) * LOG_2PI / 2 + sum(math.log(s) for s in self.scale)
        value = -0.5 * (residual * (-k).exp()).square().sum(1) - k.sum(1) - units
        return torch.where(known, value, torch.zeros_like(value))

    def error(self, raw: Tensor, y: Tensor) -> Tensor:
        """Mean square of y - (its mean given x), in units of the scales."""
        return self._parts(raw, y)[1].square().mean(1)


class NetworkGuide(Score):
    """grad_x log p_t(y | x) of a network F: log p_t(y | x) = answer(F(x / alpha, ln(sigma / alpha)), y).

    Not a score by itself: `Guided` adds it to one. Its condition is {answer.name: y}; where y is not given, or not
    known, it is zero.

    Args:
        network: A `GuideNetwork`, or what wraps one.
        process: Process of the noisy examples: a model's process, or the ladder its network was trained on.
        answer: What y is.

    Raises:
        ValueError: A `GeneralSDE`, which has no one alpha and sigma.
    """

    def __init__(self, network: nn.Module, process: Process | GeneralSDE, answer: Answer):
        if isinstance(process, GeneralSDE):
            raise ValueError(
                "a guidance model is conditioned on the noise level sigma / alpha, and a GeneralSDE has a drift and a"
                " diffusion only;"
                " train the model on VE, VP, SubVP or Tabulated, or with the condition itself (data.conditional=true)"
            )
        self.network, self.process, self.answer = network, process, answer

    def outputs(self, x: Tensor, t: Tensor) -> Tensor:
        """Parameters of the distribution of y, (B, answer.outputs), in the network's dtype."""
        self.process.check_time(t)
        t = once(t).to(torch.float64) if t.device.type == "cpu" else t
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        dtype = next((p.dtype for p in self.network.parameters()), x.dtype)
        c = (sigma / alpha).log().to(device=x.device, dtype=dtype).expand(len(x))
        return self.network((x / over_event(alpha, x)).to(dtype), c)

    def log_prob(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """log p_t(y | x), (B,), in the dtype of x: what `Guided` takes.

        Raises:
            ValueError: y does not fit the guidance model.
        """
        y = (condition or {}).get(self.answer.name)
        if y is None:
            return x.new_zeros(len(x))
        return self.answer.log_prob(self.outputs(x, t), y.to(x.device)).to(x.dtype)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The gradient, shape of x."""
        return value_and_gradient(self.log_prob, x, t, condition)[1]

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log p_t(y | x), its gradient) by one evaluation."""
        return value_and_gradient(self.log_prob, x, t, condition)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """There is none.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "a guidance model is only the gradient of log p(y | x) and has no posterior mean; Guided(score,"
            " guide.log_prob)"
        )

    def under(self, process: Process) -> NetworkGuide:
        """This guidance model for a score with another time axis, such as the process beside its ladder."""
        return NetworkGuide(self.network, process, self.answer)
