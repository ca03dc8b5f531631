"""Tables and figures that need an accelerator, published weights or feature networks: what they show, with commands.

Nothing here is run; each entry gives the commands that run the experiment on a suitable machine.
"""

from __future__ import annotations

from scorefield.studies.papers.entry import Entry, Paper, State

EVALUATE = "scorefield evaluate runs/{run} -n 50000"


def _train(run: str, data: str) -> str:
    return f"scorefield train {run} --data {data} --out runs/{run}"


def _entry(
    name: str, paper: Paper, item: str, title: str, shows: str, *commands: str, state: State = "needs CUDA"
) -> Entry:
    return Entry(name=name, paper=paper, item=item, title=title, shows=shows, state=state, instead=commands)


ENTRIES = (
    _entry(
        "ncsn-table-1",
        "NCSN",
        "table 1",
        "Inception score and FID on CIFAR-10",
        "Inception score 8.87 +- 0.12 and FID 25.32 of 50,000 samples.",
        _train("ncsn-cifar10", "CIFAR10"),
        EVALUATE.format(run="ncsn-cifar10"),
    ),
    _entry(
        "ncsn-figure-5",
        "NCSN",
        "figure 5",
        "Samples of MNIST, CelebA and CIFAR-10",
        "Uncurated samples of annealed Langevin dynamics that look like the data.",
        _train("ncsn-mnist", "MNIST"),
        "scorefield sample runs/ncsn-mnist",
    ),
    _entry(
        "ncsnv2-table-1",
        "NCSNv2",
        "table 1",
        "FID with and without the final denoising",
        "CIFAR-10: 31.75 without and 10.87 with denoising; NCSN 25.32 and 29.8. CelebA at 64 pixels: 28.86 and 10.23.",
        _train("ncsnv2-cifar10", "CIFAR10"),
        EVALUATE.format(run="ncsnv2-cifar10"),
    ),
    _entry(
        "ncsnv2-samples",
        "NCSNv2",
        "samples at 96 to 256 pixels",
        "Churches, bedrooms, towers and faces",
        "Samples at up to 256 pixels, where NCSN fails above 96.",
        _train("ncsnv2-ffhq", "FFHQ"),
        "scorefield sample runs/ncsnv2-ffhq -n 16",
    ),
    _entry(
        "mdsm-table-1",
        "MDSM",
        "table of CIFAR-10",
        "Inception score, FID and likelihood of an energy",
        "Inception score 8.31, FID 31.7 and 7.04 bits/dim (of data smoothed by 0.1, from reverse annealed importance"
        " sampling).",
        _train("mdsm-cifar10", "CIFAR10"),
        EVALUATE.format(run="mdsm-cifar10"),
    ),
    _entry(
        "mdsm-samples",
        "MDSM",
        "samples of Fashion-MNIST, CelebA and CIFAR-10",
        "Samples of annealed-temperature Langevin dynamics",
        "Samples, denoised at the end, of one energy without a noise input.",
        _train("mdsm-celeba", "CELEBA"),
        "scorefield sample runs/mdsm-celeba",
    ),
    _entry(
        "acsm-cifar10",
        "ACSM",
        "table of FID on CIFAR-10",
        "Final denoising, consistent annealing and the discriminator, with two networks, at full size",
        "FID of 10,000 samples: the final denoising closes most of the gap between samplers; consistent annealing needs"
        " it least; the adversarial term helps the weaker network.",
        _train("acsm-cifar10", "CIFAR10"),
        EVALUATE.format(run="acsm-cifar10"),
    ),
    _entry(
        "acsm-figure-3",
        "ACSM",
        "figure 3",
        "FID against the step size",
        "Consistent annealing is less sensitive to epsilon than annealed Langevin dynamics.",
        _train("acsm-cifar10", "CIFAR10"),
        "scorefield tune runs/acsm-cifar10",
    ),
    _entry(
        "acsm-stacked-mnist",
        "ACSM",
        "table of 3-stacked MNIST",
        "Modes covered",
        "All of the 1,000 modes are covered with and without the adversarial term.",
        _train("acsm-stackedmnist", "MNIST"),
        "scorefield evaluate runs/acsm-stackedmnist -n 26000",
    ),
    _entry(
        "score-sde-table-1-cifar10",
        "Score-SDE",
        "tables 1, 4 and 5",
        "Predictors, correctors and both on CIFAR-10",
        "Reverse diffusion is at least as good as ancestral sampling; predictor and corrector together are better than"
        " either alone at equal numbers of network evaluations; the best signal-to-noise ratios are 0.16 to 0.17 (VE)"
        " and 0.01 to 0.04 (VP).",
        _train("ve-cifar10-ddpm", "CIFAR10"),
        "scorefield compare-samplers runs/ve-cifar10-ddpm",
    ),
    _entry(
        "score-sde-table-2",
        "Score-SDE",
        "table 2",
        "Likelihood and FID of the probability flow",
        "Bits/dim 3.28 (DDPM, VP discrete), 3.21 and 3.05 (VP and sub-VP, continuous), 2.99 (DDPM++ deep, sub-VP).",
        "scorefield import score-sde CHECKPOINT --config CONFIG --out runs/subvp",
        "scorefield likelihood runs/subvp --data CIFAR10-TEST --method flow",
        state="needs weights",
    ),
    _entry(
        "score-sde-table-3",
        "Score-SDE",
        "table 3",
        "FID and Inception score of every model",
        "FID 2.20 and Inception score 9.89 of NCSN++ cont. (deep, VE).",
        "scorefield import score-sde CHECKPOINT --config CONFIG --out runs/ve",
        EVALUATE.format(run="ve"),
        state="needs weights",
    ),
    _entry(
        "score-sde-figure-3",
        "Score-SDE",
        "figure 3",
        "Fewer network evaluations at larger tolerances, CelebA-HQ at 256 pixels",
        "Samples look alike at 14, 86 and 548 network evaluations.",
        "scorefield import score-sde CHECKPOINT --config CONFIG --out runs/celebahq",
        "scorefield sample runs/celebahq --sampler ode -n 4",
        state="needs weights",
    ),
    _entry(
        "score-sde-1024",
        "Score-SDE",
        "samples at 1024 pixels",
        "Faces at 1024 pixels",
        "The first samples of a score model at this size, by predictor-corrector sampling.",
        "scorefield import score-sde CHECKPOINT --config CONFIG --out runs/ffhq",
        "scorefield sample runs/ffhq --sampler pc -n 1",
        state="needs weights",
    ),
)
