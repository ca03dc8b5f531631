"""A trained network as a Score: the one wrapper that knows both the network and the process."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield._math import once, over_event
from scorefield._typing import Condition
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.energy import EnergyForm, NetworkEnergy
from scorefield.score.parametrisation import Form, LogScaledTime, ScaledTime, ScoreForm, TimeInput
from scorefield.score.score import Score, check_scales


class NetworkScore(Score):
    """score = skip x + out F(c_in x, c, condition) with the coefficients of a `Form`.

    Under a `GeneralSDE`, which has no alpha and sigma, F is the score itself (`ScoreForm`).

    The state may be float64 around a float32 network: coefficients are computed in float64, the network runs in its own
    dtype, and the score comes back in the dtype of x. Where the network needs sizes that the data have not, its input
    is padded with zeros at the end of each spatial axis and its output cropped; the event shape stays the data's.

    Args:
        network: Maps (x, c, condition) to the shape of x; its attribute `multiple`, if it has one, says of what each
            spatial size must be a multiple.
        process: The process whose marginals the score is of.
        form: What the network's output means.
        time_input: What number it is conditioned on.
        levels: A table that replaces the process in the conversion of F and in c, for models trained on a discrete
            ladder of a continuous process; None to use the process itself.

    Raises:
        ValueError: A form or a time input made of alpha and sigma, under a `GeneralSDE`.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process | GeneralSDE,
        form: Form,
        time_input: TimeInput,
        levels: Tabulated | None = None,
    ):
        self.network, self.form, self.time_input = network, form, time_input
        self.process = process  # type: ignore[assignment]  # those who need alpha and sigma look for a GeneralSDE
        self.levels = levels if levels is not None else (process if isinstance(process, Tabulated) else None)
        if isinstance(process, GeneralSDE):
            _check_scaleless(form, time_input)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score; see `Score`."""
        skip, out, raw = self._evaluate(x, t, condition, "score")
        return over_event(skip, x) * x + over_event(out, x) * raw

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The posterior mean from the form directly, without a division by sigma."""
        check_scales(self.process)
        skip, out, raw = self._evaluate(x, t, condition, "denoised")
        return over_event(skip, x) * x + over_event(out, x) * raw

    def _evaluate(self, x: Tensor, t: Tensor, condition: Condition | None, what: str) -> tuple[Tensor, Tensor, Tensor]:
        # Level 0 of a table lies at t = 0, where the process it belongs to may have no noise.
        clock = self.process if self.levels is None else self.levels
        clock.check_time(t)
        t = once(t).to(torch.float64) if t.device.type == "cpu" else t
        if isinstance(clock, GeneralSDE):
            alpha = sigma = torch.ones_like(t)  # of which the coefficients of ScoreForm's score are free
        else:
            alpha, sigma = clock.alpha(t), clock.sigma(t)
        coefficients = self.form.score_coefficients if what == "score" else self.form.denoised_coefficients
        skip, out = coefficients(alpha, sigma)
        dtype = next((p.dtype for p in self.network.parameters()), x.dtype)
        scaled = (over_event(self.form.c_in(alpha, sigma), x) * x).to(dtype)
        c = self.time_input(clock, t)
        one = c.numel() == 1 and c.device.type == "cpu"
        c = x.new_full((len(x),), c.item(), dtype=dtype) if one else c.to(device=x.device, dtype=dtype)
        raw = self._padded(scaled, c, condition)
        return skip, out, raw.to(x.dtype)

    def _padded(self, x: Tensor, c: Tensor, condition: Condition | None) -> Tensor:
        bare = self.network.module if isinstance(self.network, nn.parallel.DistributedDataParallel) else self.network
        sizes = x.shape[2:]
        multiple = getattr(bare, "multiple", (1,) * len(sizes))
        extra = [-n % m for n, m in zip(sizes, multiple, strict=True)]
        if not any(extra):
            return self.network(x, c, condition)
        pads = [p for n in reversed(extra) for p in (0, n)]
        padded = None
        if condition is not None:  # image conditions live on the event's grid and are padded with it
            padded = {
                name: nn.functional.pad(v, pads) if v.ndim == x.ndim and v.shape[2:] == sizes else v
                for name, v in condition.items()
            }
        y = self.network(nn.functional.pad(x, pads), c, padded)
        return y[(slice(None), slice(None), *(slice(0, n) for n in sizes))]


def _check_scaleless(form: Form, time_input: TimeInput) -> None:
    """Refuse what is made of alpha and sigma."""
    if not isinstance(form, ScoreForm):
        raise ValueError(
            f"{type(form).__name__} is made of alpha and sigma, and a GeneralSDE has a drift and a diffusion only; let"
            " the network give the score itself, form=ScoreForm()"
        )
    if not isinstance(time_input, (ScaledTime, LogScaledTime)):
        raise ValueError(
            f"{type(time_input).__name__} is made of alpha and sigma, and a GeneralSDE has a drift and a diffusion"
            " only; give the network the time itself, time_input=ScaledTime()"
        )


Parametrisation = Form | EnergyForm
"""Meaning of a network's output: a vector field, or an energy."""


def network_score(
    network: nn.Module,
    process: Process | GeneralSDE,
    form: Parametrisation,
    time_input: TimeInput,
    levels: Tabulated | None = None,
) -> NetworkScore | NetworkEnergy:
    """The score of a trained network; arguments as for `NetworkScore`."""
    if isinstance(form, EnergyForm):
        return NetworkEnergy(network, process, form)
    return NetworkScore(network, process, form, time_input, levels)
