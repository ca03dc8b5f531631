"""Ablation of ACSM on the digits: final denoising, consistent annealing and the discriminator, for two networks.

ACSM's tables give FID on CIFAR-10 for all combinations; here the bundled digits and the energy distance take their
place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from scorefield.metrics.energy_distance import Jackknifed, distance_sums, energy_distance
from scorefield.models.experiment import Experiment
from scorefield.models.model import load
from scorefield.nets.network import NetworkConfig
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.nets.unets.acsm_unet import ACSMUNet
from scorefield.recipes.acsm import digits_adversarial
from scorefield.recipes.ladders import annealed_langevin, consistent
from scorefield.score.parametrisation import ScaledScoreForm
from scorefield.studies.papers.digits_setup import SAMPLES, SPEC, DigitsEvaluator, IntervalRow, interval_figure
from scorefield.studies.papers.entry import Claim, Drawing, Entry, Findings, Job, Table
from scorefield.training.trainer import train

NETWORKS: dict[str, NetworkConfig] = {
    "NCSNv2": NCSNv2(channels=16),
    "U-Net": ACSMUNet(channels=16, channel_multipliers=(1, 2), blocks=1),
}
STEPS = 1500
"""Optimiser steps of a training."""
SIGMA_MIN, LEVELS, REPEATS = 0.01, 40, 5
"""Smallest level, number of levels, and Langevin steps per level."""
ETA = {"annealed Langevin": 0.05, "consistent": 0.125}
"""Step over sigma^2: for annealed Langevin dynamics the choice of Technique 4 at five steps per level, for consistent
annealing just above the smallest that the ladder of 40 levels admits with two steps per level."""
REFINE = 5
"""Consistent steps from one level to the next."""


def experiment(network: str, critic: bool, job: Job) -> Experiment:
    """Return the recipe `digits-adversarial` with one of the networks, with or without the discriminator."""
    recipe = digits_adversarial()
    return replace(
        recipe,
        name=f"digits-{network.lower()}" + ("-adversarial" if critic else ""),
        network=NETWORKS[network],
        form=ScaledScoreForm(),
        adversary=recipe.adversary if critic else None,
        training=replace(
            recipe.training,
            steps=job.scaled(STEPS, 10),
            batch_size=64,
            dequantise=True,
            seed=job.seed,
            validate_every=0,
            checkpoint_every=500,
        ),
    )


@dataclass(frozen=True)
class Cell:
    """Samples of one trained network by one sampler, and their squared energy distance to held-out digits.

    Args:
        network: Name of the network.
        critic: Whether it was trained with the discriminator.
        sampler: Name of the sampler.
        end: "raw", or "denoised" by the final step.
        distance: Squared energy distance with its jackknife error.
    """

    network: str
    critic: bool
    sampler: str
    end: str
    distance: Jackknifed


def _cells(network: str, critic: bool, job: Job, evaluator: DigitsEvaluator, inside: Tensor) -> list[Cell]:
    """Train one network, sample it by both samplers, and measure the samples before and after the final denoising."""
    what = f"{network}, {'with' if critic else 'without'} critic"
    job.observer.message(what)
    folder = job.folder / "runs" / what.replace(", ", "-").replace(" ", "-").lower()
    model = load(train(experiment(network, critic, job), folder, resume="auto", observer=job.observer))
    samplers = {
        "annealed Langevin": annealed_langevin(SIGMA_MIN, ETA["annealed Langevin"] * SIGMA_MIN**2, REPEATS),
        "consistent": consistent(SIGMA_MIN, ETA["consistent"] * SIGMA_MIN**2, REFINE),
    }
    cells = []
    for name, sampler in samplers.items():
        drawn = model.sample(job.scaled(SAMPLES, 16), sampler=sampler, seed=job.seed, batch_size=SAMPLES)
        for end, x in (("raw", drawn.raw), ("denoised", drawn.x)):
            flat = SPEC.to_model(x).flatten(1)
            cells.append(Cell(network, critic, name, end, energy_distance(flat, evaluator.held_out, inside)))
    return cells


def ablation(job: Job) -> Findings:
    """Train two networks with and without the discriminator, sample each by two samplers, and measure."""
    evaluator = DigitsEvaluator()
    inside = distance_sums(evaluator.held_out, evaluator.held_out)
    cells = [cell for n in NETWORKS for critic in (False, True) for cell in _cells(n, critic, job, evaluator, inside)]
    count = job.scaled(SAMPLES, 16)
    return Findings(
        claims=tuple(_claims(cells)),
        tables=(
            Table(
                ("network", "critic", "sampler", "end", "energy distance", "95 % +-"),
                tuple((c.network, c.critic, c.sampler, c.end, *_interval(c.distance)) for c in cells),
                f"Squared energy distance of {count} samples to 360 held-out digits, pixels in [0, 1]; intervals over"
                " samples, one training per network and setting. Training digits have"
                f" {evaluator.training_digits(count, job.seed).distance:.4f}.",
            ),
        ),
        drawings=(
            Drawing(
                "ablation",
                "Squared energy distance to held-out digits",
                "Bars are 95 % intervals over samples. Smaller distances, further left, are better.",
                lambda theme: interval_figure(theme, _panels(cells), (2.5, 2.4), beside=2.0),
            ),
        ),
        settings={
            "networks": NETWORKS,
            "training": f"{job.scaled(STEPS, 10)} steps of 64 digits, dequantised, EMA of the weights of decay 0.999",
            "critic": digits_adversarial().adversary,
            "steps over sigma^2": ETA,
            "network evaluations": f"{LEVELS} levels, {REPEATS} Langevin steps each; {REFINE} consistent steps between"
            " levels",
            "samples": count,
            "seed": job.seed,
        },
    )


def _interval(distance: Jackknifed) -> tuple[float, float]:
    """Return a distance and half of its 95 % interval."""
    return distance.number, 1.96 * distance.std_error


def _claims(cells: list[Cell]) -> list[Claim]:
    at = {(c.network, c.critic, c.sampler, c.end): c.distance for c in cells}
    claims = []
    for network in NETWORKS:

        def less(a: tuple, b: tuple, statement: str, network: str = network, one_model: bool = True) -> Claim:
            """Return the claim that cell `a` has a smaller distance than cell `b`."""
            # Both have the same noise and the same data, so that the error of the difference is below their own errors.
            difference, half = _interval(at[(network, *a)].minus(at[(network, *b)]))
            # An interval over samples does not contain the variation between trainings.
            held = None if abs(difference) <= half or not one_model else difference < 0
            note = "" if one_model else "; undecided, as there is only one training of each"
            found = f"difference of squared energy distances {difference:.4f} +- {half:.4f}{note}"
            return Claim(f"{network}: {statement}", found, held)

        raw, clean, langevin, cas = "raw", "denoised", "annealed Langevin", "consistent"
        claims += [
            less(
                (False, langevin, clean),
                (False, langevin, raw),
                "the final denoising improves samples of annealed Langevin dynamics",
            ),
            less(
                (False, cas, raw),
                (False, langevin, raw),
                "without the final denoising, consistent annealing is better than annealed Langevin dynamics",
            ),
            less((True, cas, clean), (False, cas, clean), "the discriminator improves samples", one_model=False),
        ]
    return claims


def _panels(cells: list[Cell]) -> dict[str, list[IntervalRow]]:
    """Return the rows of the figure by network; colours tell trainings with and without the discriminator apart."""
    return {
        network: [
            IntervalRow(
                f"{c.sampler}, {c.end}" + (", critic" if c.critic else ""), *_interval(c.distance), colour=int(c.critic)
            )
            for c in cells
            if c.network == network
        ]
        for network in NETWORKS
    }


ENTRIES = (
    Entry(
        name="acsm-ablation",
        paper="ACSM",
        item="tables of FID",
        title="Final denoising, consistent annealing and the discriminator, with two networks",
        shows="The final denoising closes most of the gap between samplers; without it consistent annealing is far"
        " better than annealed Langevin dynamics; the discriminator helps NCSNv2 more than the U-Net.",
        minutes=20.0,
        memory=0.9,
        run=ablation,
    ),
)
