"""A process, network, loss, sampler, metric, reader and recipe of one's own, in one file outside the package.

python examples/own_parts.py runs/own       # trains with all of them; another process opens the result by --plugin:
scorefield sample runs/own --plugin examples/own_parts.py --sampler flow-midpoint --steps 20
scorefield evaluate runs/own --plugin examples/own_parts.py --metrics mean-distance
scorefield train own-ring --plugin examples/own_parts.py --data runs/own/ring.xy --out runs/again
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import scorefield as sf
from scorefield import losses, metrics, process, sampling, score
from scorefield.data import DataSource, reader
from scorefield.metrics import by_name
from scorefield.models.experiment import Adam, Training
from scorefield.recipes import RECIPES


@sf.record
class Cosine(process.Process):
    """A process is two functions of time; alpha(1) is small and not 0."""

    t_min = process.TimeLimits(training=1e-3, sampling=1e-3, likelihood=1e-3)

    def alpha(self, t):
        return torch.cos(math.pi * t / 2.02)

    def sigma(self, t):
        return torch.sin(math.pi * t / 2.02)


class TwoLayers(nn.Module):
    """A network is any module: noisy x, (B, *shape), and one number c per example -> the shape of x."""

    def __init__(self, shape, width=128):
        super().__init__()
        self.hidden, self.out = nn.Linear(math.prod(shape) + 1, width), nn.Linear(width, math.prod(shape))

    def forward(self, x, c):
        return self.out(nn.functional.silu(self.hidden(torch.cat([x.flatten(1), c[:, None]], dim=1)))).reshape(x.shape)


@sf.record
class HuberScoreMatching(losses.Objective):
    """A loss draws times and noise, and gives one value per example: here Huber's function of sigma score + z."""

    def draw(self, process, like, generator):
        t = 1e-3 + (1 - 1e-3) * torch.rand(len(like), generator=generator, dtype=torch.float64)
        return losses.Draw(t, torch.randn(like.shape, generator=generator).to(like))

    def __call__(self, score, x0, draw, condition=None):
        sigma = score.process.sigma(draw.t).to(x0).reshape(-1, *[1] * (x0.ndim - 1))
        error = sigma * score(score.process.perturb(x0, draw.t, draw.z), draw.t, condition) + draw.z
        return nn.functional.huber_loss(error, 0 * error, reduction="none").flatten(1).mean(1)


@sf.record
class Midpoint(sampling.Step):
    """A step moves x from time t to time s < t by the score: the midpoint rule on the probability flow."""

    order = 2

    def __call__(self, score, process, x, t, s, noise, memory=None):
        h, middle = (s - t).to(x).reshape(-1, *[1] * (x.ndim - 1)), (t + s) / 2
        half = x + h / 2 * process.flow_drift(x, t, score(x, t))
        x = x + h * process.flow_drift(half, middle, score(half, middle))
        return sampling.StepResult(x, mean=x)

    def calls_per_step(self):  # network evaluations
        return 2


@sampling.named.NAMED.add("flow-midpoint")
def flow_midpoint(_, steps=None):
    return sf.Sampler(Midpoint(), process.grids.LogSNR(steps or 20))


class MeanDistance(metrics.KeptRows):
    """A metric of all samples and all real examples, (N, F) and (M, F): the distance of their means."""

    name = "distance of means"
    settings = dict

    def compute(self):
        samples, real = self.pair()
        return metrics.Value(float((samples.mean(0) - real.mean(0)).norm()), better="lower")


by_name.NAMED["mean-distance"] = by_name.Named(MeanDistance, lambda i: MeanDistance(i.reference, i.features))


@reader("xy", ".xy")
def read_xy(path, source):
    """A reader returns what a file holds, one row per example: here columns of text."""
    return np.loadtxt(path, dtype=np.float32)


@RECIPES.add("own-ring")
def own_ring():
    """Points on a ring, with a process, network, loss and sampler of one's own."""
    net, steps = sf.Module(TwoLayers, width=128), Training(steps=600, batch_size=128, checkpoint_every=300)
    parts = {"objective": HuberScoreMatching(), "sampler": flow_midpoint(None), "training": steps}
    parts |= {"form": score.NoiseForm(), "time_input": score.LogSigma(), "optimiser": Adam(2e-3, warmup=50)}
    return sf.Experiment("own-ring", DataSource(), Cosine(), net, **parts)


if __name__ == "__main__":
    out, angle = Path(sys.argv[1]), np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    out.mkdir(parents=True)
    np.savetxt(out / "ring.xy", np.stack([3 + np.cos(angle), np.sin(angle)], axis=1))
    sf.train(own_ring().with_fields({"data.path": str(out / "ring.xy")}), out)
    print(sf.load(out).sample(500, sampler="flow-midpoint", steps=20, seed=1))
