"""Guidance models p_t(y | x_t): the distribution of a class or of numbers y given a noisy example, by a network.

An `Answer` states what y is and how the outputs of the network parametrise its distribution: `Category` for a class,
`Quantity` for numbers. The guidance model `NetworkGuide` gives the term grad_x log p_t(y | x) that conditioning on y
adds to a score.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._math import LOG_2PI, over_event
from scorefield._typing import Condition
from scorefield.data_spec import ConditionSpec
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.score.guidance import likelihood_and_gradient
from scorefield.score.score import Score, coefficient_times, network_dtype

SPREAD = 5.0
"""Bound on |log deviation| of a `Quantity` in its units: deviations are between e^-5 and e^5, so never zero."""


class Answer(ABC):
    """A variable y that a guidance model predicts, and the parametrisation of its distribution by network outputs.

    Attributes:
        name: Name of y among the conditions.
    """

    name: str

    @property
    @abstractmethod
    def spec(self) -> ConditionSpec:
        """The specification of y as a condition."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of network outputs that parametrise the distribution of one y."""

    @abstractmethod
    def log_prob(self, raw: Tensor, y: Tensor) -> Tensor:
        """log p(y) in the units of y, shape (B,); 0, without a gradient, where y is unknown.

        Args:
            raw: Outputs of a network, (B, outputs).
            y: Labels, shape (B,), -1 where unknown; or numbers, shape (B, size), NaN where unknown.

        Raises:
            ValueError: y has another shape, or a label is not one of the classes.
        """

    @abstractmethod
    def error(self, raw: Tensor, y: Tensor) -> Tensor:
        """Error of the most probable or mean y, shape (B,).

        The mean over examples is the error rate of a `Category`, and the mean square error of a `Quantity`.
        """


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
            raise ValueError(f"a classifier needs two or more classes; {self.name!r} has {self.size}")
        assert self.spec  # the constructor of the specification checks the class names

    @property
    def spec(self) -> ConditionSpec:
        return ConditionSpec(self.name, "class", self.size, self.class_names)

    @property
    def outputs(self) -> int:
        return self.size

    def log_prob(self, raw: Tensor, y: Tensor) -> Tensor:
        if y.shape != raw.shape[:1] or y.is_floating_point():
            raise ValueError(
                f"{self.name!r} must be {len(raw)} integers, one label per example; got {y.dtype} of shape"
                f" {tuple(y.shape)}"
            )
        if y.device.type == "cpu" and bool(((y < -1) | (y >= self.size)).any()):
            raise ValueError(
                f"{self.name!r} has labels from {int(y.min())} to {int(y.max())}; the guidance model has the classes"
                f" 0..{self.size - 1}, and -1 stands for unknown"
            )
        known = y >= 0
        chosen = raw.log_softmax(1).gather(1, torch.where(known, y, 0)[:, None])[:, 0]
        return torch.where(known, chosen, torch.zeros_like(chosen))

    def error(self, raw: Tensor, y: Tensor) -> Tensor:
        """1 where the most probable class is not y, 0 where it is."""
        return (raw.argmax(1) != y).to(raw.dtype)


@record
class Quantity(Answer):
    """y is one or more numbers, with a normal distribution given x.

    The outputs are (m, r), and with u = (y - offset) / scale

        p(u) = N(u; m, diag(e^(2 k))),    k = 5 tanh(r / 5).

    Args:
        name: Name of y among the conditions.
        offset: One number per entry of y that is subtracted, for example the mean of the training data.
        scale: One positive number per entry of y that divides, for example the standard deviation of the training data.

    Raises:
        ValueError: The numbers of offsets and scales differ or are zero, or a scale is not positive.
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
        """Whether y is known, (B,); the residual u - m, 0 where y is unknown, (B, size); and k, (B, size)."""
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
        """Mean square of y minus its mean given x, in units of the scales."""
        return self._parts(raw, y)[1].square().mean(1)


class NetworkGuide(Score):
    """A guidance model, called like a score: grad_x log p_t(y | x) of a distribution of y that a network parametrises.

    log p_t(y | x) = answer.log_prob(F(x / alpha, ln(sigma / alpha)), y), with F the network. The gradient is not the
    score of a density of x: `Guided` adds it to such a score. The condition is {answer.name: y}; the gradient is zero
    where y is not given or unknown.

    Args:
        network: A `GuideNetwork`, or a module that wraps one.
        process: Process of the noisy examples: that of a model, or the ladder on which its network was trained.
        answer: The variable y and the parametrisation of its distribution.

    Raises:
        ValueError: The process is a `GeneralSDE`, which has no alpha and sigma.
    """

    def __init__(self, network: nn.Module, process: Process | GeneralSDE, answer: Answer):
        if isinstance(process, GeneralSDE):
            raise ValueError(
                "a guidance model is conditioned on the noise level sigma / alpha, and a GeneralSDE has only a drift"
                " and a diffusion. Train the model on VE, VP, SubVP or Tabulated, or train it with the condition itself"
                " (data.conditional=true)"
            )
        self.network, self.process, self.answer = network, process, answer

    def outputs(self, x: Tensor, t: Tensor) -> Tensor:
        """Parameters of the distribution of y, (B, answer.outputs), in the network's dtype."""
        self.process.check_time(t)
        t = coefficient_times(t)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        dtype = network_dtype(self.network, x)
        c = (sigma / alpha).log().to(device=x.device, dtype=dtype).expand(len(x))
        return self.network((x / over_event(alpha, x)).to(dtype), c)

    def log_prob(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """log p_t(y | x), (B,), in the dtype of x: the log-likelihood that `Guided` takes.

        Raises:
            ValueError: y has another shape than the answer of the model, or is not one of its classes.
        """
        y = (condition or {}).get(self.answer.name)
        if y is None:
            return x.new_zeros(len(x))
        return self.answer.log_prob(self.outputs(x, t), y.to(x.device)).to(x.dtype)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """grad_x log p_t(y | x), shape of x."""
        return likelihood_and_gradient(self.log_prob, x, t, condition)[1]

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log p_t(y | x), its gradient in x) from one evaluation."""
        return likelihood_and_gradient(self.log_prob, x, t, condition)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Refused, because a guidance model has no posterior mean.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "a guidance model is only the gradient of log p(y | x) and has no posterior mean; use Guided(score,"
            " guide.log_prob), which has one"
        )

    def under(self, process: Process) -> NetworkGuide:
        """This guidance model with another process, such as the continuous process of a ladder."""
        return NetworkGuide(self.network, process, self.answer)
