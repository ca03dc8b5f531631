"""Convergence diagnostics of Markov chains: split R-hat and effective sample sizes.

All functions take draws of shape (chain, draw, ...) and return one number for each entry of the remaining axes. They
are rank-normalised as in Vehtari, Gelman, Simpson, Carpenter and Buerkner, "Rank-normalization, folding, and
localization: an improved R-hat for assessing convergence of MCMC" (Bayesian Analysis 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TRUSTED_R_HAT = 1.01
"""R-hat above which chains have not mixed (Vehtari et al. 2021, section 4.1)."""


def r_hat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat: the larger of the values for the draws and for their distances from the median.

    R-hat = sqrt(((N - 1) / N W + B / N) / W) with W the variance within and B that between half chains of N draws. It
    is infinite where chains are constant and differ, and NaN where all draws are equal.

    Args:
        draws: Draws, (chain, draw, ...), with at least four draws per chain.

    Raises:
        ValueError: There are fewer than four draws per chain.
    """
    halves = _halves(draws)
    folded = (halves - _median(halves)).abs()
    return torch.maximum(_ratio(_rank_normalised(halves)), _ratio(_rank_normalised(folded)))


def ess_bulk(draws: Tensor) -> Tensor:
    """Effective sample size for the centre of the distribution, from the rank-normalised half chains."""
    return _effective(_rank_normalised(_halves(draws)))


def ess_tail(draws: Tensor) -> Tensor:
    """Effective sample size for the tails: the smaller of those for the 5 and the 95 percent quantile."""
    halves = _halves(draws)
    flat = halves.reshape(-1, *halves.shape[2:])
    sizes = [_effective((halves <= _quantile(flat, q)).double()) for q in (0.05, 0.95)]
    return torch.minimum(*sizes)


def ess_mean(draws: Tensor) -> Tensor:
    """Effective sample size for the mean, from the draws without rank normalisation.

    S / (1 + 2 sum_t rho_t) for S draws, where the autocorrelations rho_t are summed over Geyer's initial monotone
    sequence of pairs.
    """
    return _effective(_halves(draws))


@dataclass(frozen=True)
class Diagnostics:
    """Convergence diagnostics of chains at one temperature.

    Args:
        r_hat: Split R-hat of each coordinate, event shape.
        ess_bulk: Effective sample size for the centre of each coordinate, event shape.
        ess_tail: Effective sample size for the tails of each coordinate, event shape.
        energy_r_hat: Split R-hat of the energies.
        energy_ess: Effective sample size for the centre of the energies.
    """

    r_hat: Tensor
    ess_bulk: Tensor
    ess_tail: Tensor
    energy_r_hat: float
    energy_ess: float

    @classmethod
    def of(cls, x: Tensor, energy: Tensor) -> Diagnostics:
        """Compute the diagnostics of draws (chain, draw, *event) and their energies (chain, draw)."""
        return cls(r_hat(x), ess_bulk(x), ess_tail(x), float(r_hat(energy)), float(ess_bulk(energy)))

    @property
    def mixed(self) -> bool:
        """Whether the R-hat of every coordinate and of the energy is finite and at most 1.01."""
        worst = max(float(self.r_hat.max()), self.energy_r_hat)  # a NaN makes the comparison below false
        return bool(self.r_hat.isfinite().all()) and worst <= TRUSTED_R_HAT


def _halves(draws: Tensor) -> Tensor:
    """(chain, draw, ...) -> (2 chain, draw // 2, ...), float64; the middle draw of an odd number is left out."""
    draws = draws.detach().double().cpu()
    if draws.ndim < 2 or draws.shape[1] < 4:
        raise ValueError(
            "diagnostics compare half chains of at least two draws each, so they need shape (chain, draw, ...) with"
            " four"
            f" draws or more; got draws of shape {tuple(draws.shape)}"
        )
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]])


def _median(halves: Tensor) -> Tensor:
    return _quantile(halves.reshape(-1, *halves.shape[2:]), 0.5)


def _quantile(flat: Tensor, q: float) -> Tensor:
    return torch.from_numpy(np.asarray(np.quantile(flat.numpy(), q, axis=0)))


def _rank_normalised(halves: Tensor) -> Tensor:
    """Phi^-1((rank - 3/8) / (S + 1/4)) with ranks among all S draws; equal draws have the mean of their ranks."""
    flat = halves.reshape(halves.shape[0] * halves.shape[1], -1).T.contiguous()
    ordered, order = flat.sort(dim=1)
    left = torch.searchsorted(ordered, ordered)
    right = torch.searchsorted(ordered, ordered, right=True)
    ranks = torch.empty_like(flat).scatter_(1, order, 0.5 * (left + 1 + right).double())
    z = torch.special.ndtri((ranks - 0.375) / (flat.shape[1] + 0.25))
    return z.T.reshape(halves.shape)


def _ratio(halves: Tensor) -> Tensor:
    """R-hat of half chains."""
    N = halves.shape[1]
    within = halves.var(dim=1).mean(dim=0)
    between = halves.mean(dim=1).var(dim=0)
    return ((N - 1) / N + between / within).sqrt()


def _effective(halves: Tensor) -> Tensor:
    """Effective sample size of half chains; NaN where all draws are equal."""
    M, N = halves.shape[:2]
    centred = halves - halves.mean(dim=1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * N, dim=1).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * N, dim=1)[:, :N].mean(dim=0) / N  # (N, ...), averaged over chains
    within = covariance[0] * N / (N - 1)
    total = covariance[0] + halves.mean(dim=1).var(dim=0)
    rho = 1.0 - (within - covariance) / total
    rho[0] = 1.0
    pairs = rho[: N - N % 2].reshape(N // 2, 2, *rho.shape[1:]).sum(dim=1)
    positive = (pairs > 0).to(torch.long).cumprod(dim=0).bool()
    monotone = torch.where(positive, pairs, 0.0).cummin(dim=0).values
    tau = -1.0 + 2.0 * monotone.sum(dim=0)
    # Antithetic chains may have more effective draws than draws, up to a limit (Vehtari et al. 2021, section 3.2).
    return M * N / tau.clamp_min(1.0 / math.log10(M * N)) + 0.0 * total.reciprocal().sqrt()
