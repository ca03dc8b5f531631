"""A trained network as a Score: the wrapper between the network and the process."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield._math import over_event
from scorefield._typing import Condition
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.energy import EnergyForm, NetworkEnergy
from scorefield.score.parametrisation import Form, LogScaledTime, ScaledTime, ScoreForm, TimeInput
from scorefield.score.score import Score, coefficient_times, network_dtype, require_alpha_sigma


class NetworkScore(Score):
    """score = skip x + out F(c_in x, c, condition) with the coefficients of a `Form`.

    Under a `GeneralSDE`, which has no alpha and sigma, F is the score itself (`ScoreForm`).

    x may be float64 while the network is float32: coefficients are computed in float64, the network runs in its own
    dtype, and the score is returned in the dtype of x. Where spatial sizes are not multiples of `network.multiple`, the
    input of the network is padded with zeros at the end of each spatial axis and its output is cropped.

    Args:
        network: Maps (x, c, condition) to the shape of x. Its attribute `multiple`, if it has one, holds one number per
            spatial axis, of which the size must be a multiple.
        process: The process whose marginals the score belongs to.
        form: The meaning of the network's output.
        time_input: The number c that the network is conditioned on.
        levels: A ladder that replaces the process in the conversion of F and in c, for models trained on a ladder of a
            continuous process; None uses the process itself.

    Raises:
        ValueError: The form or the time input needs alpha and sigma, and the process is a `GeneralSDE`.
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
        # A GeneralSDE is stored too; code that needs alpha and sigma checks for it (`require_alpha_sigma`).
        self.process = process  # type: ignore[assignment]
        self.levels = levels if levels is not None else (process if isinstance(process, Tabulated) else None)
        if isinstance(process, GeneralSDE):
            _check_scaleless(form, time_input)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score; see `Score`."""
        skip, out, raw = self._evaluate(x, t, condition, "score")
        return over_event(skip, x) * x + over_event(out, x) * raw

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The posterior mean, computed from the form without a division by sigma."""
        require_alpha_sigma(self.process)
        skip, out, raw = self._evaluate(x, t, condition, "denoised")
        return over_event(skip, x) * x + over_event(out, x) * raw

    def _evaluate(self, x: Tensor, t: Tensor, condition: Condition | None, what: str) -> tuple[Tensor, Tensor, Tensor]:
        """(skip, out, F) of the "score" or of the "denoised" example skip x + out F."""
        # A ladder is used for the check too: its level 0 is at t = 0, where the continuous process may not be defined.
        process = self.process if self.levels is None else self.levels
        process.check_time(t)
        t = coefficient_times(t)
        if isinstance(process, GeneralSDE):
            alpha = sigma = torch.ones_like(t)  # the score coefficients of ScoreForm do not depend on them
        else:
            alpha, sigma = process.alpha(t), process.sigma(t)
        coefficients = self.form.score_coefficients if what == "score" else self.form.denoised_coefficients
        skip, out = coefficients(alpha, sigma)
        dtype = network_dtype(self.network, x)
        scaled = (over_event(self.form.c_in(alpha, sigma), x) * x).to(dtype)
        c = self.time_input(process, t)
        # One shared c stays on the CPU and fills a tensor, because copying it would make the host wait for the device.
        one = c.numel() == 1 and c.device.type == "cpu"
        c = x.new_full((len(x),), c.item(), dtype=dtype) if one else c.to(device=x.device, dtype=dtype)
        raw = self._padded(scaled, c, condition)
        return skip, out, raw.to(x.dtype)

    def _padded(self, x: Tensor, c: Tensor, condition: Condition | None) -> Tensor:
        """The network's output for x, with its spatial axes padded for the network and cropped after it."""
        bare = self.network.module if isinstance(self.network, nn.parallel.DistributedDataParallel) else self.network
        sizes = x.shape[2:]
        multiple = getattr(bare, "multiple", (1,) * len(sizes))
        extra = [-n % m for n, m in zip(sizes, multiple, strict=True)]
        if not any(extra):
            return self.network(x, c, condition)
        pads = [p for n in reversed(extra) for p in (0, n)]
        padded = None
        if condition is not None:  # image conditions have the spatial sizes of x and are padded like x
            padded = {
                name: nn.functional.pad(v, pads) if v.ndim == x.ndim and v.shape[2:] == sizes else v
                for name, v in condition.items()
            }
        y = self.network(nn.functional.pad(x, pads), c, padded)
        return y[(slice(None), slice(None), *(slice(0, n) for n in sizes))]


def _check_scaleless(form: Form, time_input: TimeInput) -> None:
    """Refuse a form or a time input that needs alpha and sigma.

    Raises:
        ValueError: The form is not `ScoreForm`, or the time input is not a function of t alone.
    """
    if not isinstance(form, ScoreForm):
        raise ValueError(
            f"{type(form).__name__} needs alpha and sigma, and a GeneralSDE has only a drift and a diffusion; let the"
            " network predict the score itself, form=ScoreForm()"
        )
    if not isinstance(time_input, (ScaledTime, LogScaledTime)):
        raise ValueError(
            f"{type(time_input).__name__} needs alpha and sigma, and a GeneralSDE has only a drift and a diffusion;"
            " condition the network on the time itself, time_input=ScaledTime()"
        )


Parametrisation = Form | EnergyForm
"""The meaning of a network\'s output: that of a vector field (`Form`) or of an energy (`EnergyForm`)."""


def network_score(
    network: nn.Module,
    process: Process | GeneralSDE,
    form: Parametrisation,
    time_input: TimeInput,
    levels: Tabulated | None = None,
) -> NetworkScore | NetworkEnergy:
    """The score of a trained network.

    Args:
        network: A network with the output shape of x, or an energy network for an `EnergyForm`.
        process: The process whose marginals the score belongs to.
        form: The meaning of the network's output.
        time_input: The number c that the network is conditioned on; ignored for an `EnergyForm`.
        levels: A ladder that replaces the process, as in `NetworkScore`; ignored for an `EnergyForm`.

    Raises:
        ValueError: The process does not fit the form or the time input.
    """
    if isinstance(form, EnergyForm):
        return NetworkEnergy(network, process, form)
    return NetworkScore(network, process, form, time_input, levels)
