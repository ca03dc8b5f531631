"""Energies trained at one noise level or at many, in 2 to 3072 dimensions, and the overlap of noise shells (MDSM).

The data are a mixture of eight narrow modes on the unit cube. An energy E(x) without a noise input, with the score
-grad E / T and T = sigma^2 / sigma_0^2, is trained by denoising score matching at one level or at many, sampled by
Langevin dynamics of annealed temperature, and used to denoise from every level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from scorefield.losses import DenoisingScoreMatching
from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.process import Tabulated
from scorefield.recipes.ladders import ladder
from scorefield.recipes.mdsm import annealed
from scorefield.sampling.named import with_steps
from scorefield.score.energy import EnergyForm, NetworkEnergy
from scorefield.studies.papers.entry import BatchNoise, Claim, Drawing, Entry, Findings, Job, Table, wilson
from scorefield.studies.papers.noise_shell_overlap import Shells, overlap, shells

SIGMA_0 = 0.1
"""Reference noise level of the energy."""
MANY = (0.05, 1.2, 128)
"""Smallest level, largest level and number of levels of the multi-scale training."""
SINGLE = (0.1, 0.3, 0.6)
"""Noise levels of the single-level trainings."""
WEIGHTS = (0.25, 0.2, 0.15, 0.1, 0.1, 0.1, 0.05, 0.05)
"""Weights of the modes of the data."""
SPREAD = 0.02
"""Standard deviation of each mode."""
NEAR = 0.1
"""Distance to a mode's centre, root mean square over coordinates, up to which a sample counts as at the mode."""
DENOISED = (0.05, 0.1, 0.3, 0.6, 1.0, 1.2)
"""Noise levels from which the energies denoise."""
BATCH = 128
CHAINS = 100
"""Sampling chains of each energy."""
DRAWS = 4000
"""Draws of each level by which the overlap of shells is measured."""
LENGTH = 2700
"""Steps of a chain, as published; an effort below 1 takes fewer."""
PLAN = {2: 3000, 16: 3000, 64: 3000, 256: 1500, 3072: 500}
"""Dimension -> optimiser steps of each training."""


class PublishedHead(nn.Module):
    """Perceptron d-256-256-256 with ELU and the head of MDSM, E = (w_1.h + b_1) (w_2.h + b_2) + w_q.(h * h) + b_q.

    Like the published energies it is not bounded below; therefore chains can diverge in regions where it was not
    trained.
    """

    def __init__(self, dimension: int, width: int = 256):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, width) for a in (dimension, width, width))
        self.ln1, self.ln2, self.lq = (nn.Linear(width, 1) for _ in range(3))

    def forward(self, x: Tensor, c: Tensor, condition: object = None) -> Tensor:
        """Return the energy, (B, d) -> (B,); `c` and `condition` are not used."""
        h = x
        for k, layer in enumerate(self.layers):
            h = layer(h) if k == len(self.layers) - 1 else functional.elu(layer(h))
        return (self.ln1(h) * self.ln2(h) + self.lq(h * h))[:, 0]


@dataclass(frozen=True)
class TrainedEnergy:
    """A trained energy: its loss, where its chains ended, and its denoising errors.

    Args:
        dimension: d.
        name: The noise levels it was trained at.
        loss: |sigma score + z|^2 summed over coordinates, mean over the last tenth of the training; it is d before
            training.
        finite: Number of chains without NaN or infinity.
        near: Number of chains that ended at a mode.
        chains: Number of chains.
        modes: Number of modes at which a chain ended.
        residual: Median distance of finite chains to their nearest mode, root mean square over coordinates.
        errors: Root mean square error of the denoised data at each level of `DENOISED`.
    """

    dimension: int
    name: str
    loss: float
    finite: int
    near: int
    chains: int
    modes: int
    residual: float
    errors: tuple[float, ...]

    @property
    def share(self) -> float:
        """Share of the chains that ended at a mode."""
        return self.near / self.chains

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `share`."""
        return wilson(self.near, self.chains)

    def summary(self) -> str:
        """Return the share with its interval."""
        low, high = self.interval
        return f"{self.name} {self.share:.2f} [{low:.2f}, {high:.2f}]"


def modes(dimension: int) -> Tensor:
    """Return the centres of the modes, uniform on the unit cube, (8, d)."""
    return torch.rand(len(WEIGHTS), dimension, generator=torch.Generator().manual_seed(dimension))


def sample_data(centres: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw examples of the mixture, (count, d)."""
    chosen = torch.multinomial(torch.tensor(WEIGHTS), count, replacement=True, generator=generator)
    return centres[chosen] + SPREAD * torch.randn(count, centres.shape[1], generator=generator)


def fit(centres: Tensor, levels: Tabulated, steps: int, seed: int) -> tuple[PublishedHead, float]:
    """Train an energy by denoising score matching, with levels stratified over the batch.

    Args:
        centres: Modes of the data, (8, d).
        levels: Noise levels.
        steps: Optimiser steps.
        seed: Seed of the weights and of the training.

    Returns:
        The network, and the mean of twice its loss over the last tenth of the steps.
    """
    torch.manual_seed(seed)
    network = PublishedHead(centres.shape[1])
    score = NetworkEnergy(network, levels, EnergyForm(SIGMA_0))
    objective = DenoisingScoreMatching(reduce="half_sum", stratified=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=1e-6)
    generator, last_losses = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        x0 = sample_data(centres, BATCH, generator)
        loss = objective(score, x0, objective.draw(levels, x0, generator)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= 0.9 * steps:
            last_losses.append(2.0 * float(loss.detach()))
    return network, sum(last_losses) / len(last_losses)


def evaluate(network: PublishedHead, centres: Tensor, name: str, loss: float, steps: int, job: Job) -> TrainedEnergy:
    """Sample an energy by Langevin dynamics of annealed temperature as published, and denoise from every level.

    With fewer `steps` than the published 2,700 the chain passes through the same temperatures faster.

    Args:
        network: The trained energy.
        centres: Modes of the data, (8, d).
        name: The noise levels it was trained at.
        loss: Its final loss.
        steps: Steps of a chain.
        job: Effort and seed.
    """
    chains, seed = job.scaled(CHAINS, 8), job.seed
    d = centres.shape[1]
    # The energy has no noise input, so that one ladder serves energies trained at any levels.
    many = ladder(*MANY, "linear")
    score = NetworkEnergy(network, many, EnergyForm(SIGMA_0))
    sampler = with_steps(annealed(SIGMA_0), steps)
    x = sampler.run(score, (d,), indices=range(chains), noise=BatchNoise(seed)).x
    finite = torch.isfinite(x).all(dim=1)
    distance = torch.cdist(x[finite].double(), centres.double()) / d**0.5
    residual, nearest = distance.min(dim=1) if len(distance) else (torch.full((1,), torch.inf), torch.zeros(1))
    at = residual <= NEAR
    generator, errors = torch.Generator().manual_seed(seed), []
    clean = sample_data(centres, 512, generator)
    for sigma in DENOISED:
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        with torch.no_grad():
            found = score.denoised(noisy, many.time_at_sigma(torch.full((len(noisy),), sigma, dtype=torch.float64)))
        errors.append(float((found - clean).square().mean().sqrt()))
    return TrainedEnergy(
        d,
        name,
        loss,
        int(finite.sum()),
        int(at.sum()),
        chains,
        len(set(nearest[at].tolist())),
        float(residual.median()),
        tuple(errors),
    )


def energies(d: int, length: int, job: Job) -> list[TrainedEnergy]:
    """Train and evaluate one energy of many levels and three of a single level, in d dimensions."""
    steps, centres, found = job.scaled(PLAN[d], 10), modes(d), []
    trained_at = {f"{MANY[0]:g} to {MANY[1]:g}": ladder(*MANY, "linear")}
    trained_at |= {f"{s:g}": ladder(s, s, 1, "geometric") for s in SINGLE}
    for name, process in trained_at.items():
        job.observer.message(f"{d} dimensions, trained at {name}: {steps} steps, chains of {length}")
        network, loss = fit(centres, process, steps, job.seed)
        found.append(evaluate(network, centres, name, loss, length, job))
    return found


def mdsm_levels(job: Job) -> Findings:
    """Compute the shells of two ladders, and train energies at one level and at many in every dimension."""
    chains, draws, length = job.scaled(CHAINS, 8), job.scaled(DRAWS, 100), min(LENGTH, job.scaled(LENGTH))
    ladders = {"linear": ladder(*MANY, "linear"), "geometric": ladder(*MANY, "geometric")}
    shell_rows = {name: [shells(process, d, draws, job.seed) for d in PLAN] for name, process in ladders.items()}
    found = {d: energies(d, length, job) for d in PLAN}
    return Findings(
        claims=(
            _shell_claim(shell_rows["linear"]),
            *(_sampling_claim(d, found[d]) for d in PLAN),
            _denoising_claim(found),
        ),
        tables=(_shell_table(shell_rows, draws), _chain_table(found), _error_table(found)),
        drawings=(
            Drawing(
                "shells",
                "Overlap of noise shells",
                "Common mass of the distributions of |sigma z| at two levels whose ratio is 1.02, 1.1, 2 and 12,"
                " against the dimension; dots mark the dimensions of this experiment.",
                _shell_figure,
            ),
            Drawing(
                "chains",
                "Share of chains that end at a mode",
                "By dimension and by the levels at which the energy was trained; bars are 95 % intervals.",
                lambda theme: _chain_figure(theme, found),
            ),
            Drawing(
                "denoising",
                "Error of one denoising step",
                "Root mean square error against the noise level; each panel is a dimension. The dotted line is the"
                " noise itself: an error above it means that denoising made the data worse.",
                lambda theme: _error_figure(theme, {d: found[d] for d in (2, 64, 3072)}),
            ),
        ),
        settings={
            "modes": f"8, centres uniform on the cube, deviation {SPREAD}, weights {WEIGHTS}",
            "network": "perceptron d-256-256-256, ELU, published quadratic head",
            "training": f"steps {job.effort:g} x {PLAN}, {BATCH} examples, Adam 1e-3 with cosine decay,"
            f" sigma_0 = {SIGMA_0}",
            "sampling": f"{length} steps, T = 100 to 1 to 0, step 0.02, final denoising step, as published",
            "chains": chains,
            "seed": job.seed,
        },
    )


def _shell_claim(found: list[Shells]) -> Claim:
    first, last = found[0], found[-1]
    return Claim(
        "In high dimensions the noise of a level lies on a thin shell, and the shells of distant levels do not overlap",
        f"the relative width is {first.width:.2f} in 2 dimensions and {last.width:.4f} in {last.dimension}; levels 0.3"
        f" and 0.6 overlap by {overlap(0.3, 0.6, 2):.2f} and {overlap(0.3, 0.6, last.dimension):.1e}; neighbours of the"
        f" 128 levels overlap by {last.least:.2g} to {last.most:.2f} in {last.dimension} dimensions",
        overlap(0.3, 0.6, last.dimension) < 0.01 < 0.1 < overlap(0.3, 0.6, 2),
    )


def _sampling_claim(d: int, found: list[TrainedEnergy]) -> Claim:
    """Return the claim that many levels are needed for samples: the intervals must differ by a factor of 2."""
    many, *single = found
    low, high = many.interval
    if low > 0.5 and all(s.interval[1] < low / 2 for s in single):
        held = True
    elif any(s.interval[0] > high / 2 for s in single):
        held = False
    else:
        held = None
    return Claim(
        f"{d} dimensions: an energy must be trained at many levels; trained at a single level it gives no samples"
        " (here: less than half as many chains end at a mode)",
        "share of chains that end at a mode, by training levels: " + "; ".join(t.summary() for t in found),
        held,
    )


def _denoising_claim(found: dict[int, list[TrainedEnergy]]) -> Claim:
    """Return the claim about denoising far from the level of training; errors at that level are given beside it."""
    k, far, own = len(DENOISED) - 1, [], []
    for many, *single in found.values():
        far.append(min(s.errors[k] / many.errors[k] for s in single[:2]))
        own.append(single[1].errors[2] / many.errors[2])
    return Claim(
        "An energy trained at one level denoises near that level only; one trained at many denoises at all of them",
        "error at 1.2 of the energy trained at 0.1 or 0.3, whichever is better, over that of many levels: "
        + ", ".join(f"{r:.2f} (d = {d})" for r, d in zip(far, found, strict=True))
        + "; ratio of errors at 0.3 for the energy trained at 0.3: "
        + ", ".join(f"{r:.2f}" for r in own),
        True if min(far) > 1.5 else False if max(far) < 1.0 else None,
    )


def _shell_table(shell_rows: dict[str, list[Shells]], draws: int) -> Table:
    rows = [
        (name, s.dimension, s.width, s.least, s.most, s.exact, s.measured, *s.interval)
        for name, each in shell_rows.items()
        for s in each
    ]
    columns = ("ladder", "d", "width", "least", "most", "middle", "measured", "95 % from", "to")
    return Table(
        columns,
        tuple(rows),
        f"Noise shells of 128 levels from {MANY[0]} to {MANY[1]}: relative width of a shell, and overlap of"
        " neighbouring levels (smallest, largest, middle pair) in closed form; measured: overlap of the middle pair"
        f" from {draws} draws of each level, with its interval.",
    )


def _chain_table(found: dict[int, list[TrainedEnergy]]) -> Table:
    rows = [
        (d, t.name, t.loss, t.finite / t.chains, t.share, *t.interval, t.modes, t.residual)
        for d, each in found.items()
        for t in each
    ]
    columns = ("d", "levels", "loss", "finite", "at a mode", "95 % from", "to", "modes hit", "median residual")
    return Table(
        columns,
        tuple(rows),
        "Energies of data with eight modes, one training each. Loss: sigma^-2 |x_0 - x + sigma_0^2 grad E|^2, which is"
        f" d before training. At a mode: share of chains that end within {NEAR} of a centre, root mean square over"
        " coordinates. Residual: distance of a chain to its nearest centre.",
    )


def _error_table(found: dict[int, list[TrainedEnergy]]) -> Table:
    rows = [(d, t.name, *t.errors) for d, each in found.items() for t in each]
    columns = ("d", "levels", *(f"at {s:g}" for s in DENOISED))
    return Table(columns, tuple(rows), "Root mean square error of one denoising step from each noise level.")


def _shell_figure(theme: Theme) -> Figure:
    figure, (ax,) = grid_of_axes(theme, 1, 1, (4.2, 2.6), below=0.5)
    dims = [round(2.0 * 1536.0 ** (k / 60)) for k in range(61)]
    for k, ratio in enumerate((1.02, 1.1, 2.0, 12.0)):
        ax.plot(dims, [overlap(1.0, ratio, d) for d in dims], color=theme.series[k], lw=1.4, label=f"ratio {ratio:g}")
        ax.scatter(list(PLAN), [overlap(1.0, ratio, d) for d in PLAN], color=theme.series[k], s=14, linewidths=0)
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("dimensions", labelpad=2)
    ax.legend(fontsize=7.5, frameon=False, labelcolor=theme.ink)
    return figure


def _chain_figure(theme: Theme, found: dict[int, list[TrainedEnergy]]) -> Figure:
    figure, (ax,) = grid_of_axes(theme, 1, 1, (4.6, 2.6), below=0.5)
    for k, name in enumerate([t.name for t in next(iter(found.values()))]):
        chosen = [each[k] for each in found.values()]
        spans = [
            [max(0.0, t.share - t.interval[0]) for t in chosen],
            [max(0.0, t.interval[1] - t.share) for t in chosen],
        ]
        # Shifted sideways, so that equal shares do not hide each other.
        x = [t.dimension * 1.06 ** (k - 1.5) for t in chosen]
        ax.errorbar(
            x, [t.share for t in chosen], yerr=spans, color=theme.series[k], lw=1.3, marker="o", ms=3.5, label=name
        )
    ax.set_xscale("log")
    ax.set_ylim(-0.05, 1.05)
    ax.set_xlabel("dimensions", labelpad=2)
    legend = ax.legend(fontsize=7.5, frameon=False, labelcolor=theme.ink, title="trained at", title_fontsize=7.5)
    legend.get_title().set_color(theme.ink)
    return figure


def _error_figure(theme: Theme, found: dict[int, list[TrainedEnergy]]) -> Figure:
    figure, axes = grid_of_axes(theme, 1, len(found), (2.3, 2.2), above=0.3, below=0.5)
    for ax, (d, each) in zip(axes, found.items(), strict=True):
        for k, t in enumerate(each):
            ax.plot(DENOISED, t.errors, color=theme.series[k], lw=1.3, marker="o", ms=3, label=t.name)
        ax.plot(DENOISED, DENOISED, color=theme.ink, linestyle=":", lw=1.2)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(f"{d} dimensions", fontsize=9, color=theme.ink)
        ax.set_xlabel("noise level", labelpad=2)
    axes[0].legend(fontsize=7.5, frameon=False, labelcolor=theme.ink)
    return figure


ENTRIES = (
    Entry(
        name="mdsm-levels",
        paper="MDSM",
        item="section 3 and the comparison with one level",
        title="Energies trained at one noise level and at many, and the shells on which noise lies",
        shows="In high dimensions the noise of one level lies on a thin shell, so that an energy trained at one level"
        " is not constrained elsewhere: it denoises near that level only and gives no realistic samples. Trained at"
        " many levels, it denoises at all of them and gives realistic samples.",
        minutes=13.0,
        memory=0.6,
        run=mdsm_levels,
    ),
)
