"""Configurations of the SDE framework's release, and the `Experiment` that each describes.

The release describes a run by a few fields: which SDE, which network, discrete or continuous times, which predictor and
corrector. `Configuration` has these under our names; recipes and the import of the release's checkpoints both use
it, so that a published row and its checkpoint are the same experiment.

Networks, processes, objectives, optimisers and averages are the published ones. The samplers differ where the
published code ties an example to its batch mates or to a grid artefact; `Configuration.departures` says where.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses.denoising import DenoisingScoreMatching, Likelihood, NoiseVariance
from scorefield.models.experiment import Adam, Averaging, Experiment, Training
from scorefield.nets.refinenets.ncsn import NCSN
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.process.families import VE, VP, SubVP
from scorefield.process.grids import EveryLevel, Uniform
from scorefield.process.process import Process
from scorefield.process.tabulated import GeometricSigmas, LinearBetas, Tabulated
from scorefield.sampling.adaptive import AdaptiveFlow
from scorefield.sampling.langevin import Langevin, NoiseScaled, NormRatio
from scorefield.sampling.predictors import Ancestral, EulerMaruyama, FlowEuler, ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Hold, Repeat, Step
from scorefield.score.parametrisation import (
    Form,
    LevelLabel,
    LogScaledTime,
    LogSigma,
    NoiseForm,
    ScaledScoreForm,
    ScaledTime,
    ScoreForm,
    TimeInput,
)

PAPER = "Song et al. 2021, arXiv:2011.13456"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A run of the release; the defaults are those of its CIFAR-10 VE runs.

    Args:
        process: Family of the SDE.
        network: Its `centered` also says where the data lie: [-1, 1], or [0, 1] if the network maps its input itself.
        continuous: Trained with continuous times, not on N levels.
        shape: Shape of one image, (C, H, W).
        divided: The release divides the network's output by sigma (`scale_by_sigma`); VE only.
        sigma_min: Smallest noise of VE, model units.
        sigma_max: Largest noise of VE.
        beta_min: beta(0) of VP and sub-VP.
        beta_max: beta(1).
        levels: N: levels of a discrete model, steps of the sampler.
        method: "pc", the predictor and the corrector, or "ode", the probability flow by an adaptive solver.
        predictor: Predictor of the sampler.
        corrector: Corrector of the sampler.
        snr: r of the corrector.
        corrections: Corrector steps per predictor step.
        denoise: End on the mean of the last step (`noise_removal`).
        flow: The predictor follows the probability flow.
        reduce: Reduction of the loss over the dimensions of an image.
        likelihood_weighting: Weigh the loss by g^2 instead of sigma^2.
        optimiser: Optimiser of the run.
        ema: Decay of the averaged weights.
        steps: Optimiser steps.
        batch_size: Images per step.
        seed: Seed of the run.
        checkpoint_every: Steps between checkpoints to resume from.
        sample_every: Steps between sample grids.

    Raises:
        ValueError: The release has no such run; the message says why.
    """

    process: Literal["ve", "vp", "subvp"]
    network: NCSNpp | DDPM | NCSN | NCSNv2
    continuous: bool
    shape: tuple[int, int, int] = (3, 32, 32)
    divided: bool
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    beta_min: float = 0.1
    beta_max: float = 20.0
    levels: int = 1000
    method: Literal["pc", "ode"] = "pc"
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral_sampling", "none"]
    corrector: Literal["langevin", "ald", "none"]
    snr: float = 0.16
    corrections: int = 1
    denoise: bool = True
    flow: bool = False
    reduce: Literal["mean", "half_sum"]
    likelihood_weighting: bool = False
    optimiser: Adam = Adam()
    ema: float
    steps: int = 1_300_001
    batch_size: int = 128
    seed: int = 42
    checkpoint_every: int = 10_000
    sample_every: int = 50_000

    def __post_init__(self) -> None:
        why = None
        if self.process == "subvp" and not self.continuous:
            why = "sub-VP has no discrete levels, and its models are continuous"
        elif self.process != "ve" and self.divided:
            why = "scale_by_sigma divides by the noise levels of VE, and VP and sub-VP models predict the noise itself"
        elif self.process != "ve" and not self._unet:
            why = f"{type(self.network).__name__} is a network for VE"
        elif self._fourier and not self.continuous:
            why = "Fourier embeddings take a noise level, and discrete models are conditioned on the number of a level"
        elif self.process == "ve" and self.continuous and not self._fourier:
            why = "only a Fourier embedding takes the sigma of a continuous VE model"
        elif self.likelihood_weighting and not self.continuous:
            why = "likelihood weighting is for continuous times"
        elif self.process == "subvp" and self.predictor == "ancestral_sampling":
            why = "ancestral sampling is defined for VE and VP"
        elif self.method == "ode" and self.process == "ve" and not self.continuous:
            why = "a discrete VE model has no score between its levels, which the flow needs"
        elif self.flow and self.predictor not in ("reverse_diffusion", "euler_maruyama"):
            why = f"there is no probability flow of the predictor {self.predictor}"
        if why is not None:
            raise ValueError(f"the release has no such configuration: {why}")

    @property
    def _unet(self) -> bool:
        return isinstance(self.network, NCSNpp | DDPM)

    @property
    def _fourier(self) -> bool:
        return isinstance(self.network, NCSNpp) and self.network.embedding == "fourier"

    @property
    def model_range(self) -> tuple[float, float]:
        """Where black and white lie in the model's units."""
        return (-1.0, 1.0) if self.network.centered else (0.0, 1.0)

    def experiment(
        self, name: str, *, data: DataSource | None = None, source: str = PAPER, paper: dict[str, float] | None = None
    ) -> Experiment:
        """The experiment.

        Args:
            name: Name of the recipe or of the imported model.
            data: The data source of the images; `model_range` is filled in.
            source: What it reproduces.
            paper: Published numbers.
        """
        table = self._table()
        return Experiment(
            name=name,
            data=replace(data or DataSource(flip=True), model_range=self.model_range),
            spec=DataSpec(self.shape, 0, 255, 256, model_range=self.model_range),
            process=self._process(),
            network=self.network,
            form=self._form(),
            time_input=self._time_input(),
            levels=table,
            objective=DenoisingScoreMatching(
                weighting=Likelihood() if self.likelihood_weighting else NoiseVariance(),
                reduce=self.reduce,
                levels=table,
            ),
            sampler=self._sampler(table),
            optimiser=self.optimiser,
            averaging=Averaging((self.ema,)),
            training=Training(
                steps=self.steps,
                batch_size=self.batch_size,
                validate_every=5000,
                checkpoint_every=self.checkpoint_every,
                sample_every=self.sample_every,
                sample_steps=None,
                seed=self.seed,
            ),
            source=source,
            paper=paper,
        )

    def _process(self) -> Process:
        if self.process == "ve":
            return VE(self.sigma_min, self.sigma_max)
        return (VP if self.process == "vp" else SubVP)(self.beta_min, self.beta_max)

    def _table(self) -> Tabulated | None:
        if self.continuous:
            return None
        if self.process == "ve":
            ladder = GeometricSigmas(self.sigma_min, self.sigma_max, self.levels)
        else:
            ladder = LinearBetas(self.beta_min, self.beta_max, self.levels)
        # The conversion of F uses the level's own sigma, whatever the (possibly fractional) label says.
        return Tabulated(ladder, between="floor")

    def _form(self) -> Form:
        if self.process != "ve":
            return NoiseForm()
        return ScaledScoreForm() if self.divided else ScoreForm()

    def _time_input(self) -> TimeInput:
        if not self.continuous:
            ve = self.process == "ve"
            return LevelLabel(descending=ve, between="refuse" if ve else "linear")
        if self.process == "ve":
            return LogSigma()
        return LogScaledTime(999.0) if self._fourier else ScaledTime(999.0)

    # ------------------------------------------------------------------------------------------- sampling

    def _sampler(self, table: Tabulated | None) -> Sampler:
        if self.method == "ode":
            return Sampler(AdaptiveFlow(), Uniform(1), final="denoise" if self.denoise else "none")
        step = self._predictor()
        correct = {
            "langevin": Langevin(NormRatio(self.snr, norm="example")),
            "ald": Langevin(NoiseScaled(self.snr)),
            "none": None,
        }[self.corrector]
        chain: Step = step
        if correct is not None:
            chain = Chain((correct if self.corrections == 1 else Repeat(correct, self.corrections), step))
        end = "denoise" if self.denoise else "none"
        if table is None:
            return Sampler(chain, Uniform(self.levels), final=end)
        if step.needs == "rates":  # a drift exists between levels, not below them
            return Sampler(chain, EveryLevel(clean=False), final=end, process=replace(table, between="linear"))
        if isinstance(step, ReverseDiffusion | Ancestral) and self.denoise:
            end = "mean"
        return Sampler(chain, EveryLevel(), final=end, process=table)

    def _predictor(self) -> Step:
        match self.predictor:
            case "reverse_diffusion":
                return ReverseDiffusion(flow=self.flow)
            case "euler_maruyama":
                return FlowEuler() if self.flow else EulerMaruyama()
            case "ancestral_sampling":
                return Ancestral(variance="posterior" if self.process == "ve" else "forward")
            case "none":
                return Hold()

    def departures(self) -> tuple[str, ...]:
        """Sentences: where our sampler of this configuration is not the release's, and what would be."""
        sentences = []
        if self.method == "ode":
            sentences.append("The flow is solved for each image by itself; the release solves the batch as one.")
        elif self.corrector == "langevin":
            sentences.append(
                "The Langevin corrector takes each image's own norms; the release averages them over the batch, which"
                " NormRatio(norm='batch') does."
            )
        pc = self.method == "pc"
        if pc and self.corrector != "none" and self.process == "subvp":
            sentences.append(
                "The release cannot run a corrector on sub-VP models; here its step has the factor"
                " (alpha_t / alpha_s)^2 of the process."
            )
        if pc and self.continuous and self.predictor != "none":
            sentences.append(
                f"The sampler takes {self.levels} steps that end at t_min and denoises there; the release's steps are"
                f" 1/{self.levels} long, and it takes the last one's mean."
            )
        if pc and not self.continuous and self.process == "vp":
            sentences.append(
                "Levels have whole labels in sampling; the release's drift by up to 1 towards the last step."
            )
        if pc and self.predictor == "none" and self.denoise:
            sentences.append(
                "Samples are denoised at the end; with predictor 'none' the release's code does not do so."
            )
        if self.optimiser.warmup:
            sentences.append("Training would begin with 1/warmup of the learning rate; the release's first rate is 0.")
        return tuple(sentences)
