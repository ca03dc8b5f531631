"""The papers that define each part of the library, as bibliography entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from scorefield._version import __version__


@dataclasses.dataclass(frozen=True)
class Paper:
    """A published work.

    Args:
        key: Key of its BibTeX entry.
        authors: Authors in the form of BibTeX, joined by "and".
        title: Title as published.
        venue: Journal or proceedings.
        year: Year of the venue.
        of: Names of the classes, and of the commands in lower case, that rest on it.
        arxiv: Its number there.
    """

    key: str
    authors: str
    title: str
    venue: str
    year: int
    of: tuple[str, ...]
    arxiv: str | None = None

    def bibtex(self) -> str:
        """Its entry."""
        journal = self.venue.startswith(_JOURNALS)
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            "journal" if journal else "booktitle": self.venue,
            "year": str(self.year),
            **({"eprint": self.arxiv, "archivePrefix": "arXiv"} if self.arxiv else {}),
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{'article' if journal else 'inproceedings'}{{{self.key},\n{lines}\n}}"


_JOURNALS = (
    "Journal", "Neural Computation", "Bernoulli", "Statistics", "Communications", "arXiv", "Transactions", "Biometrics",
    "Handbook",
)  # fmt: skip
_NIPS, _ICLR, _ICML = (
    "Advances in Neural Information Processing Systems",
    "International Conference on Learning Representations",
    "International Conference on Machine Learning",
)
_CVPR = "IEEE/CVF Conference on Computer Vision and Pattern Recognition"

SOFTWARE = f"""@software{{scorefield,
  author = {{{{The scorefield authors}}}},
  title = {{{{scorefield: score-based generative models}}}},
  version = {{{__version__}}}
}}"""


def _entry(key: str, of: str, authors: str, title: str, venue: str, year: int, arxiv: str | None = None) -> Paper:
    return Paper(key, authors, title, venue, year, tuple(of.split()), arxiv)


PAPERS: tuple[Paper, ...] = (
    # ---------------------------------------------------------------------------------- the lineage
    _entry("song2019ncsn", "NCSN LevelLabel InstanceNormPlus GeometricSigmas LadderScaled",
           "Song, Yang and Ermon, Stefano", "Generative modeling by estimating gradients of the data distribution",
           _NIPS, 2019, "1907.05600"),
    _entry("li2019mdsm", "EnergyResNet EnergyForm TemperatureLangevin InpaintingLangevin TemperatureSchedule",
           "Li, Zengyi and Chen, Yubei and Sommer, Friedrich T.",
           "Learning energy-based models in high-dimensional spaces with multi-scale denoising score matching",
           "arXiv preprint", 2019, "1910.07762"),
    _entry("song2020ncsnv2", "NCSNv2 FarthestPair Averaging",
           "Song, Yang and Ermon, Stefano", "Improved techniques for training score-based generative models",
           _NIPS, 2020, "2006.09011"),
    _entry("jolicoeur2021acsm", "Consistent AdversarialScoreMatching Adversary ACSMUNet ScaledScoreForm",
           "Jolicoeur-Martineau, Alexia and Pich{\\'e}-Taillefer, R{\\'e}mi and Tachet des Combes, R{\\'e}mi and"
           " Mitliagkas, Ioannis",
           "Adversarial score matching and improved sampling for image generation", _ICLR, 2021, "2009.05475"),
    _entry("song2021sde", "VE VP SubVP NCSNpp ReverseDiffusion EulerMaruyama NoiseScaled NormRatio FlowSettings"
           " AdaptiveFlow Replacement Likelihood likelihood latents",
           "Song, Yang and Sohl-Dickstein, Jascha and Kingma, Diederik P. and Kumar, Abhishek and Ermon, Stefano and"
           " Poole, Ben",
           "Score-based generative modeling through stochastic differential equations", _ICLR, 2021, "2011.13456"),
    # ---------------------------------------------------------------------------------- training
    _entry("hyvarinen2005", "ImplicitScoreMatching", "Hyv{\\\"a}rinen, Aapo",
           "Estimation of non-normalized statistical models by score matching",
           "Journal of Machine Learning Research", 2005),
    _entry("vincent2011", "DenoisingScoreMatching AdversarialScoreMatching", "Vincent, Pascal",
           "A connection between score matching and denoising autoencoders", "Neural Computation", 2011),
    _entry("song2019sliced", "SlicedScoreMatching",
           "Song, Yang and Garg, Sahaj and Shi, Jiaxin and Ermon, Stefano",
           "Sliced score matching: a scalable approach to density and score estimation",
           "Conference on Uncertainty in Artificial Intelligence", 2019, "1905.07088"),
    _entry("pang2020", "FiniteDifferenceScoreMatching",
           "Pang, Tianyu and Xu, Kun and Li, Chongxuan and Song, Yang and Ermon, Stefano and Zhu, Jun",
           "Efficient learning of generative models via finite-difference score matching", _NIPS, 2020, "2007.03317"),
    _entry("ho2020ddpm", "DDPM NoiseForm Ancestral LinearBetas VariationalBound",
           "Ho, Jonathan and Jain, Ajay and Abbeel, Pieter", "Denoising diffusion probabilistic models",
           _NIPS, 2020, "2006.11239"),
    _entry("karras2022edm", "KarrasForm KarrasHeun PowerSigma FlowHeun StochasticHeun",
           "Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli",
           "Elucidating the design space of diffusion-based generative models", _NIPS, 2022, "2206.00364"),
    _entry("salimans2022", "VelocityForm", "Salimans, Tim and Ho, Jonathan",
           "Progressive distillation for fast sampling of diffusion models", _ICLR, 2022, "2202.00512"),
    _entry("kingma2015adam", "Adam", "Kingma, Diederik P. and Ba, Jimmy",
           "Adam: a method for stochastic optimization", _ICLR, 2015, "1412.6980"),
    _entry("brock2019biggan", "BigGANCritic", "Brock, Andrew and Donahue, Jeff and Simonyan, Karen",
           "Large scale GAN training for high fidelity natural image synthesis", _ICLR, 2019, "1809.11096"),
    _entry("mao2017lsgan", "LSGAN SaturatingLSGAN",
           "Mao, Xudong and Li, Qing and Xie, Haoran and Lau, Raymond Y. K. and Wang, Zhen and Smolley, Stephen Paul",
           "Least squares generative adversarial networks", "IEEE International Conference on Computer Vision", 2017,
           "1611.04076"),
    _entry("jolicoeur2019relativistic", "RpGAN RaGAN RpLSGAN RaLSGAN RaHingeGAN", "Jolicoeur-Martineau, Alexia",
           "The relativistic discriminator: a key element missing from standard GAN", _ICLR, 2019, "1807.00734"),
    # ---------------------------------------------------------------------------------- sampling and density
    _entry("song2021ddim", "DDIM", "Song, Jiaming and Meng, Chenlin and Ermon, Stefano",
           "Denoising diffusion implicit models", _ICLR, 2021, "2010.02502"),
    _entry("lu2022dpmpp", "ExponentialMultistep StochasticMultistep",
           "Lu, Cheng and Zhou, Yuhao and Bao, Fan and Chen, Jianfei and Li, Chongxuan and Zhu, Jun",
           "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models", "arXiv preprint", 2022,
           "2211.01095"),
    _entry("roberts1996mala", "MALA", "Roberts, Gareth O. and Tweedie, Richard L.",
           "Exponential convergence of Langevin distributions and their discrete approximations", "Bernoulli", 1996),
    _entry("neal2011hmc", "HMC", "Neal, Radford M.", "MCMC using Hamiltonian dynamics",
           "Handbook of Markov Chain Monte Carlo", 2011, "1206.1901"),
    _entry("neal2001ais", "AISSettings logz", "Neal, Radford M.", "Annealed importance sampling",
           "Statistics and Computing", 2001),
    _entry("hutchinson1989", "Hutchinson FlowSettings", "Hutchinson, Michael F.",
           "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines",
           "Communications in Statistics: Simulation and Computation", 1989),
    _entry("meyer2021hutchpp", "HutchPlusPlus",
           "Meyer, Raphael A. and Musco, Cameron and Musco, Christopher and Woodruff, David P.",
           "Hutch++: optimal stochastic trace estimation", "Symposium on Simplicity in Algorithms", 2021,
           "2010.09649"),
    _entry("dhariwal2021", "Guided NetworkGuide GuideExperiment", "Dhariwal, Prafulla and Nichol, Alex",
           "Diffusion models beat GANs on image synthesis", _NIPS, 2021, "2105.05233"),
    _entry("ho2022cfg", "ClassifierFree", "Ho, Jonathan and Salimans, Tim", "Classifier-free diffusion guidance",
           "arXiv preprint", 2022, "2207.12598"),
    # ---------------------------------------------------------------------------------- posteriors
    _entry("lugmayr2022repaint", "RePaint",
           "Lugmayr, Andreas and Danelljan, Martin and Romero, Andres and Yu, Fisher and Timofte, Radu and"
           " Van Gool, Luc",
           "RePaint: inpainting using denoising diffusion probabilistic models", _CVPR, 2022, "2201.09865"),
    _entry("kawar2022ddrm", "DDRM", "Kawar, Bahjat and Elad, Michael and Ermon, Stefano and Song, Jiaming",
           "Denoising diffusion restoration models", _NIPS, 2022, "2201.11793"),
    _entry("zhu2023diffpir", "DiffPIR",
           "Zhu, Yuanzhi and Zhang, Kai and Liang, Jingyun and Cao, Jiezhang and Wen, Bihan and Timofte, Radu and"
           " Van Gool, Luc",
           "Denoising diffusion models for plug-and-play image restoration", f"{_CVPR} Workshops", 2023,
           "2305.08995"),
    _entry("chung2023dps", "DPS",
           "Chung, Hyungjin and Kim, Jeongsol and McCann, Michael T. and Klasky, Marc L. and Ye, Jong Chul",
           "Diffusion posterior sampling for general noisy inverse problems", _ICLR, 2023, "2209.14687"),
    _entry("song2023pigdm", "PiGDM",
           "Song, Jiaming and Vahdat, Arash and Mardani, Morteza and Kautz, Jan",
           "Pseudoinverse-guided diffusion models for inverse problems", _ICLR, 2023),
    _entry("boys2024tmpd", "MomentMatched",
           "Boys, Benjamin and Girolami, Mark and Pidstrigach, Jakiw and Reich, Sebastian and Mosca, Alan and"
           " Akyildiz, O. Deniz",
           "Tweedie moment projected diffusions for inverse problems", "Transactions on Machine Learning Research",
           2024, "2310.06721"),
    _entry("jalal2021", "PosteriorLangevin",
           "Jalal, Ajil and Arvinte, Marius and Daras, Giannis and Price, Eric and Dimakis, Alexandros G. and"
           " Tamir, Jon",
           "Robust compressed sensing MRI with deep generative priors", _NIPS, 2021, "2108.01368"),
    _entry("wu2023twisted", "TwistedParticles",
           "Wu, Luhuan and Trippe, Brian L. and Naesseth, Christian A. and Blei, David M. and Cunningham, John P.",
           "Practical and asymptotically exact conditional sampling in diffusion models", _NIPS, 2023, "2306.17775"),
    _entry("talts2018sbc", "calibrate",
           "Talts, Sean and Betancourt, Michael and Simpson, Daniel and Vehtari, Aki and Gelman, Andrew",
           "Validating Bayesian inference algorithms with simulation-based calibration", "arXiv preprint", 2018,
           "1804.06788"),
    _entry("lemos2023tarp", "calibrate",
           "Lemos, Pablo and Coogan, Adam and Hezaveh, Yashar and Perreault-Levasseur, Laurence",
           "Sampling-based accuracy testing of posterior estimators for general inference", _ICML, 2023,
           "2302.03026"),
    # ---------------------------------------------------------------------------------- metrics and diagnoses
    _entry("heusel2017fid", "FrechetDistance",
           "Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter, Sepp",
           "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", _NIPS, 2017,
           "1706.08500"),
    _entry("chong2020infinity", "FrechetInfinity", "Chong, Min Jin and Forsyth, David",
           "Effectively unbiased FID and Inception score and where to find them", _CVPR, 2020, "1911.07023"),
    _entry("binkowski2018kid", "KernelDistance",
           "Bi{\\'n}kowski, Miko{\\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton, Arthur",
           "Demystifying MMD GANs", _ICLR, 2018, "1801.01401"),
    _entry("gretton2012", "GaussianDiscrepancy",
           "Gretton, Arthur and Borgwardt, Karsten M. and Rasch, Malte J. and Sch{\\\"o}lkopf, Bernhard and"
           " Smola, Alexander",
           "A kernel two-sample test", "Journal of Machine Learning Research", 2012),
    _entry("kynkaanniemi2019", "Precision Recall",
           "Kynk{\\\"a}{\\\"a}nniemi, Tuomas and Karras, Tero and Laine, Samuli and Lehtinen, Jaakko and Aila, Timo",
           "Improved precision and recall metric for assessing generative models", _NIPS, 2019, "1904.06991"),
    _entry("naeem2020", "Density Coverage",
           "Naeem, Muhammad Ferjad and Oh, Seong Joon and Uh, Youngjung and Choi, Yunjey and Yoo, Jaejun",
           "Reliable fidelity and diversity metrics for generative models", _ICML, 2020, "2002.09797"),
    _entry("salimans2016", "InceptionScore",
           "Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and Radford, Alec and Chen, Xi",
           "Improved techniques for training GANs", _NIPS, 2016, "1606.03498"),
    _entry("friedman2023vendi", "VendiScore", "Friedman, Dan and Dieng, Adji Bousso",
           "The Vendi score: a diversity evaluation metric for machine learning",
           "Transactions on Machine Learning Research", 2023, "2210.02410"),
    _entry("bonneel2015", "SlicedWasserstein",
           "Bonneel, Nicolas and Rabin, Julien and Peyr{\\'e}, Gabriel and Pfister, Hanspeter",
           "Sliced and Radon Wasserstein barycenters of measures",
           "Journal of Mathematical Imaging and Vision", 2015),
    _entry("szekely2013", "EnergyDistance tune compare-samplers", "Sz{\\'e}kely, G{\\'a}bor J. and Rizzo, Maria L.",
           "Energy statistics: a class of statistics based on distances",
           "Journal of Statistical Planning and Inference", 2013),
    _entry("metz2017unrolled", "StackedModes",
           "Metz, Luke and Poole, Ben and Pfau, David and Sohl-Dickstein, Jascha",
           "Unrolled generative adversarial networks", _ICLR, 2017, "1611.02163"),
    _entry("lin2018pacgan", "StackedModes",
           "Lin, Zinan and Khetan, Ashish and Fanti, Giulia and Oh, Sewoong",
           "PacGAN: the power of two samples in generative adversarial networks", _NIPS, 2018, "1712.04086"),
    _entry("delong1988", "outliers", "DeLong, Elizabeth R. and DeLong, David M. and Clarke-Pearson, Daniel L.",
           "Comparing the areas under two or more correlated receiver operating characteristic curves:"
           " a nonparametric approach",
           "Biometrics", 1988),
    _entry("lai2023fpe", "doctor",
           "Lai, Chieh-Hsin and Takida, Yuhta and Murata, Naoki and Uesaka, Toshimitsu and Mitsufuji, Yuki and"
           " Ermon, Stefano",
           "FP-Diffusion: improving score-based diffusion models by enforcing the underlying score Fokker-Planck"
           " equation",
           _ICML, 2023, "2210.04296"),
)  # fmt: skip
"""Every paper, in the order in which a bibliography shows them."""


def cited(parts: Iterable[Any]) -> tuple[Paper, ...]:
    """The papers behind the given parts.

    Args:
        parts: Records, which are searched to their last field, and names of classes or commands.
    """
    names = {name for part in parts for name in _names(part)}
    return tuple(paper for paper in PAPERS if names & set(paper.of))


def bibliography(parts: Iterable[Any]) -> str:
    """BibTeX of the software and of the papers behind the given parts."""
    return "\n\n".join([SOFTWARE, *(paper.bibtex() for paper in cited(parts))])


def _names(part: Any) -> Iterable[str]:
    """Names of the classes of a record and of all records in it; a string is a name itself."""
    if isinstance(part, str):
        yield part
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield type(part).__name__
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if not isinstance(value, str):
                yield from _names(value)
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _names(value)
    elif isinstance(part, (tuple, list)):
        for value in part:
            if not isinstance(value, str):
                yield from _names(value)
    else:
        yield type(part).__name__
