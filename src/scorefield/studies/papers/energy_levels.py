"""Energies of one noise level and of many, from 2 to 3072 dimensions, with the overlap of noise shells (MDSM)."""

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
from scorefield.studies.papers.entry import Claim, Crowd, Drawing, Entry, Findings, Job, Table, wilson
from scorefield.studies.papers.shells import Shells, overlap, shells

SIGMA_0 = 0.1
MANY = (0.05, 1.2, 128)
SINGLE = (0.1, 0.3, 0.6)
WEIGHTS = (0.25, 0.2, 0.15, 0.1, 0.1, 0.1, 0.05, 0.05)
SPREAD = 0.02
"""Deviation of each mode."""
NEAR = 0.1
"""Root mean square over coordinates within which a sample belongs to a mode."""
DENOISED = (0.05, 0.1, 0.3, 0.6, 1.0, 1.2)
BATCH = 128
CHAINS = 100
DRAWS = 4000
LENGTH = 2700
"""Steps of a chain, as published; a smaller effort takes fewer."""
PLAN = {2: 3000, 16: 3000, 64: 3000, 256: 1500, 3072: 500}
"""Dimension -> training steps."""


class PublishedHead(nn.Module):
    """A perceptron d-256-256-256 with ELU and the head of MDSM, (w_1.h + b_1) (w_2.h + b_2) + w_q.(h * h) + b_q.

    Not bounded below, like the published energies; that is why chains can run away where it was not trained.
    """

    def __init__(self, dimension: int, width: int = 256):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, width) for a in (dimension, width, width))
        self.ln1, self.ln2, self.lq = (nn.Linear(width, 1) for _ in range(3))

    def forward(self, x: Tensor, c: Tensor, condition: object = None) -> Tensor:
        """(B, d) -> (B,)."""
        h = x
        for k, layer in enumerate(self.layers):
            h = layer(h) if k == len(self.layers) - 1 else functional.elu(layer(h))
        return (self.ln1(h) * self.ln2(h) + self.lq(h * h))[:, 0]


@dataclass(frozen=True)
class Trained:
    """An energy and what came of it.

    Args:
        dimension: d.
        name: Of the levels it was trained at.
        loss: |sigma score + z|^2 summed over coordinates, mean over the last tenth of the training; d at its begin.
        finite: Chains without a bad number.
        near: Chains that ended at a mode.
        chains: Of all.
        modes: How many modes have a chain.
        residual: Median root mean square distance of finite chains to their nearest mode.
        errors: Root mean square error of the denoised at each of `DENOISED`.
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
        """Of the chains that ended at a mode."""
        return self.near / self.chains

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %."""
        return wilson(self.near, self.chains)

    def words(self) -> str:
        """The share with its interval."""
        low, high = self.interval
        return f"{self.name} {self.share:.2f} [{low:.2f}, {high:.2f}]"


def modes(dimension: int) -> Tensor:
    """Centres of the modes, uniform on the cube, (8, d)."""
    return torch.rand(len(WEIGHTS), dimension, generator=torch.Generator().manual_seed(dimension))


def draw(centres: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Examples of the mixture, (count, d)."""
    chosen = torch.multinomial(torch.tensor(WEIGHTS), count, replacement=True, generator=generator)
    return centres[chosen] + SPREAD * torch.randn(count, centres.shape[1], generator=generator)


def fit(centres: Tensor, levels: Tabulated, steps: int, seed: int) -> tuple[PublishedHead, float]:
    """Multi-scale denoising score matching, each level once in a batch; the network and its last losses' mean."""
    torch.manual_seed(seed)
    network = PublishedHead(centres.shape[1])
    score = NetworkEnergy(network, levels, EnergyForm(SIGMA_0))
    objective = DenoisingScoreMatching(reduce="half_sum", stratified=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.95))
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=1e-6)
    generator, last = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        x0 = draw(centres, BATCH, generator)
        loss = objective(score, x0, objective.draw(levels, x0, generator)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        fall.step()
        if step >= 0.9 * steps:
            last.append(2.0 * float(loss.detach()))
    return network, sum(last) / len(last)


def judged(network: PublishedHead, centres: Tensor, name: str, loss: float, steps: int, job: Job) -> Trained:
    """Sample by annealed-temperature Langevin dynamics as published, and denoise at every level.

    With fewer `steps` than the published 2,700 the chain goes through the same temperatures faster.
    """
    chains, seed = job.scaled(CHAINS, 8), job.seed
    d = centres.shape[1]
    many = ladder(*MANY, "linear")  # an energy knows no level, so that one clock serves them all
    score = NetworkEnergy(network, many, EnergyForm(SIGMA_0))
    sampler = with_steps(annealed(SIGMA_0), steps)
    x = sampler.run(score, (d,), indices=range(chains), noise=Crowd(seed)).x
    finite = torch.isfinite(x).all(dim=1)
    distance = torch.cdist(x[finite].double(), centres.double()) / d**0.5
    residual, nearest = distance.min(dim=1) if len(distance) else (torch.full((1,), torch.inf), torch.zeros(1))
    at = residual <= NEAR
    generator, errors = torch.Generator().manual_seed(seed), []
    clean = draw(centres, 512, generator)
    for sigma in DENOISED:
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        with torch.no_grad():
            found = score.denoised(noisy, many.time_at_sigma(torch.full((len(noisy),), sigma, dtype=torch.float64)))
        errors.append(float((found - clean).square().mean().sqrt()))
    return Trained(
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


def energies(d: int, length: int, job: Job) -> list[Trained]:
    """One energy of many levels and three of one, trained and judged in d dimensions."""
    steps, centres, found = job.scaled(PLAN[d], 10), modes(d), []
    trained_at = {f"{MANY[0]:g} to {MANY[1]:g}": ladder(*MANY, "linear")}
    trained_at |= {f"{s:g}": ladder(s, s, 1, "geometric") for s in SINGLE}
    for name, process in trained_at.items():
        job.observer.message(f"{d} dimensions, trained at {name}: {steps} steps, chains of {length}")
        network, loss = fit(centres, process, steps, job.seed)
        found.append(judged(network, centres, name, loss, length, job))
    return found


def levels(job: Job) -> Findings:
    """Shells in closed form and measured; one and many levels in every dimension."""
    chains, draws, length = job.scaled(CHAINS, 8), job.scaled(DRAWS, 100), min(LENGTH, job.scaled(LENGTH))
    ladders = {"linear": ladder(*MANY, "linear"), "geometric": ladder(*MANY, "geometric")}
    around = {name: [shells(made, d, draws, job.seed) for d in PLAN] for name, made in ladders.items()}
    found = {d: energies(d, length, job) for d in PLAN}
    return Findings(
        claims=(_thin(around["linear"]), *(_needed(d, found[d]) for d in PLAN), *_denoising(found)),
        tables=(_shell_table(around, draws), _toy_table(found), _error_table(found)),
        drawings=(
            Drawing(
                "shells",
                "Overlap of shells",
                "Common mass of the laws of |x| at two levels whose ratio is 1.02, 1.1, 2 and 12; dots mark 2 to 3072"
                " dimensions.",
                _shell_figure,
            ),
            Drawing(
                "chains",
                "Chains that end at a mode",
                "By dimension and by the levels that the energy was trained at; bars are 95 % intervals.",
                lambda theme: _chain_figure(theme, found),
            ),
            Drawing(
                "denoising",
                "Error of one denoising step",
                "Over the noise level, each panel a dimension; the dotted line is the noise itself, an error above it"
                " is worse than doing nothing.",
                lambda theme: _error_figure(theme, {d: found[d] for d in (2, 64, 3072)}),
            ),
        ),
        settings={
            "modes": f"8, centres uniform on the cube, deviation {SPREAD}, weights {WEIGHTS}",
            "network": "perceptron d-256-256-256, ELU, published quadratic head",
            "training": f"steps {job.effort:g} x {PLAN}, {BATCH} examples, Adam 1e-3 on a cosine, sigma_0 = {SIGMA_0}",
            "sampling": f"{length} steps, T = 100 to 1 to 0, step 0.02, final denoising step, as published",
            "chains": chains,
            "seed": job.seed,
        },
    )


def _thin(found: list[Shells]) -> Claim:
    first, last = found[0], found[-1]
    return Claim(
        "In high dimensions the noise of a level lies on a thin shell, and levels apart do not overlap",
        f"relative width {first.width:.2f} in 2 dimensions and {last.width:.4f} in {last.dimension}; levels 0.3 and 0.6"
        f" overlap by {overlap(0.3, 0.6, 2):.2f} and {overlap(0.3, 0.6, last.dimension):.1e}, neighbours of the 128 by"
        f" {last.least:.2g} at least and {last.most:.2f} at most in {last.dimension}",
        overlap(0.3, 0.6, last.dimension) < 0.01 < 0.1 < overlap(0.3, 0.6, 2),
    )


def _needed(d: int, found: list[Trained]) -> Claim:
    """Whether many levels gave samples, and no one level as many: judged by intervals, an order of 2 apart."""
    many, *single = found
    low, high = many.interval
    if low > 0.5 and all(s.interval[1] < low / 2 for s in single):
        held = True
    elif any(s.interval[0] > high / 2 for s in single):
        held = False
    else:
        held = None
    return Claim(
        f"{d} dimensions: an energy needs many levels; trained at one it gives no samples (here: less than half as many"
        " chains end at a mode)",
        "; ".join(t.words() for t in found),
        held,
    )


def _denoising(found: dict[int, list[Trained]]) -> tuple[Claim, ...]:
    """Far from its level an energy of one level denoises worse than one of many, at its own level not."""
    k, ratios, own = len(DENOISED) - 1, [], []
    for rows in found.values():
        many, *single = rows
        ratios.append(min(s.errors[k] / many.errors[k] for s in single[:2]))
        own.append(single[1].errors[2] / many.errors[2])
    return (
        Claim(
            "An energy of one level denoises near that level alone; one of many denoises at all of them",
            "error at 1.2 of those of 0.1 and 0.3, the better, over that of many levels: "
            + ", ".join(f"{r:.2f} (d = {d})" for r, d in zip(ratios, found, strict=True))
            + "; at its own level 0.3: "
            + ", ".join(f"{r:.2f}" for r in own),
            True if min(ratios) > 1.5 else False if max(ratios) < 1.0 else None,
        ),
    )


def _shell_table(around: dict[str, list[Shells]], draws: int) -> Table:
    rows = [
        (name, s.dimension, s.width, s.least, s.most, s.exact, s.measured, *s.interval)
        for name, each in around.items()
        for s in each
    ]
    columns = ("ladder", "d", "width", "least", "most", "middle", "measured", "95 % from", "to")
    return Table(
        columns,
        tuple(rows),
        f"Shells of 128 levels from {MANY[0]} to {MANY[1]}: relative width of a shell, and overlap of neighbours"
        f" (smallest, largest, of the middle pair), in closed form; the last from {draws} draws of each level.",
    )


def _toy_table(found: dict[int, list[Trained]]) -> Table:
    rows = [
        (d, t.name, t.loss, t.finite / t.chains, t.share, *t.interval, t.modes, t.residual)
        for d, each in found.items()
        for t in each
    ]
    columns = ("d", "levels", "loss", "finite", "at a mode", "95 % from", "to", "modes hit", "median residual")
    return Table(
        columns,
        tuple(rows),
        "Energies of eight modes. Loss: sigma^-2 |x_0 - x + sigma_0^2 grad E|^2, d before training. At a mode: within"
        f" {NEAR} of its centre (root mean square over coordinates). One training of each.",
    )


def _error_table(found: dict[int, list[Trained]]) -> Table:
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


def _chain_figure(theme: Theme, found: dict[int, list[Trained]]) -> Figure:
    figure, (ax,) = grid_of_axes(theme, 1, 1, (4.6, 2.6), below=0.5)
    for k, name in enumerate([t.name for t in next(iter(found.values()))]):
        chosen = [each[k] for each in found.values()]
        spans = [
            [max(0.0, t.share - t.interval[0]) for t in chosen],
            [max(0.0, t.interval[1] - t.share) for t in chosen],
        ]
        # Side by side, so that equal shares stay apart.
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


def _error_figure(theme: Theme, found: dict[int, list[Trained]]) -> Figure:
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
        title="Energies of one noise level and of many, and the shells that noise lies on",
        shows="In high dimensions the noise of one level lies on a thin shell, so that an energy trained at one level"
        " is not constrained elsewhere: it denoises near that level alone and gives no realistic samples. Trained at"
        " many levels it denoises at all of them and synthesises.",
        minutes=13.0,
        memory=0.6,
        run=levels,
    ),
)
