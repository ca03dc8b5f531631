"""Features from a small classifier trained on the labelled real data at hand.

Inception features are features of photographs. For digits, fields or vectors a classifier of the data's own classes
sees what distinguishes them, is trained in seconds to a minute on a CPU, and needs no download: its penultimate
activations are the features. It is a function of (data, seed, settings) on one kind of machine; `save` it to use the
very same one elsewhere, since the receipt holds the hash of its weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import decode, encode, record
from scorefield._random import philox
from scorefield.data_spec import DataSpec
from scorefield.metrics.receipt import module_hash

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class _SmallClassifier(nn.Module):
    """Convolutions down to about 4 positions a side (or two hidden layers for vectors), then features, then logits."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int):
        super().__init__()
        channels, grid = shape[0], list(shape[1:])
        layers: list[nn.Module] = []
        if not grid:
            layers += [nn.Linear(channels, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU()]
            flat = 128
        else:
            conv, flat = _CONV[len(grid)], 32
            # Large grids shrink in the first layer, so that the cost of an example stays at a few million products.
            stride = 2 if max(grid) > 16 else 1
            while True:
                layers += [conv(channels, flat, 3, stride=stride, padding=1), nn.GroupNorm(8, flat), nn.SiLU()]
                grid = [math.ceil(n / stride) for n in grid]
                if max(grid) <= 4:
                    break
                channels, flat, stride = flat, min(2 * flat, 128), 2
            flat *= math.prod(grid)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, width), nn.SiLU())
        self.head = nn.Linear(width, classes)

    def forward(self, m: Tensor) -> Tensor:
        """Model units (B, *event) -> logits (B, classes)."""
        return self.head(self.body(m))


@record(tag="ClassifierFacts")
class ClassifierFacts:
    """Description and accuracy of a feature classifier.

    Args:
        data: The data it takes.
        classes: Number of classes.
        width: Number of features.
        accuracy: Share of held-out examples classified rightly.
        held_out: Number of held-out examples.
        seed: Seed of its initialisation and batches.
        steps: Training steps.
    """

    data: DataSpec
    classes: int
    width: int
    accuracy: float
    held_out: int
    seed: int
    steps: int


class ClassifierFeatures:
    """Penultimate activations of a small classifier: (B, *event) in data units -> (B, width).

    Build one with `ClassifierFeatures.fit` or `ClassifierFeatures.load`.

    Args:
        module: The classifier, on any device.
        facts: What it is.
    """

    name = "classifier of the real data"

    def __init__(self, module: _SmallClassifier, facts: ClassifierFacts):
        self.facts = facts
        self._module = module.eval().requires_grad_(False)
        self._device = module.head.weight.device
        self.hash = module_hash(module)

    @property
    def note(self) -> str:
        """Size and held-out accuracy, for receipts."""
        f = self.facts
        return (
            f"{f.width} features, {f.classes} classes, held-out accuracy {100 * f.accuracy:.1f} % ({f.held_out}"
            f" examples), {f.steps} steps, seed {f.seed}"
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Features of a batch in data units, float32 on the CPU.

        Raises:
            ValueError: Another event shape than the classifier's.
        """
        self.facts.data.check(x, name="the batch", values=False)
        with torch.no_grad():
            m = self.facts.data.to_model(x.to(self._device)).to(torch.float32)
            return self._module.body(m).cpu()

    def classes_of(self, x: Tensor) -> Tensor:
        """The most probable class of each example of a batch in data units, (B,) int64 on the CPU.

        Raises:
            ValueError: Another event shape than the classifier's.
        """
        rows = self(x)
        with torch.no_grad():
            return self._module.head(rows.to(self._device)).argmax(dim=1).cpu()

    def probabilities(self, x: Tensor) -> Tensor:
        """Probability of each class for each example of a batch in data units, (B, classes) float64 on the CPU.

        Raises:
            ValueError: Another event shape than the classifier's.
        """
        rows = self(x)
        with torch.no_grad():
            return self._module.head(rows.to(self._device)).cpu().double().softmax(dim=1)

    @classmethod
    def fit(
        cls,
        x: Tensor,
        labels: Tensor,
        data: DataSpec,
        *,
        held_out: tuple[Tensor, Tensor] | None = None,
        width: int = 64,
        steps: int | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> ClassifierFeatures:
        """Train a classifier on labelled real data.

        AdamW with a one-cycle schedule on cross-entropy; small inputs (at most 256 numbers) take 300 steps, a few
        seconds on one core, larger ones 1,000 steps, about a minute for 32x32x3. The global random state is left as
        it was.

        Args:
            x: Real examples in data units, shape (N, *event).
            labels: Their classes, int64 of shape (N,), -1 where not known (those are left out).
            data: What the examples are.
            held_out: Examples and labels for the accuracy; None holds out every fifth labelled example.
            width: Number of features.
            steps: Training steps of 128 examples.
            seed: Seed of initialisation and batches.
            device: Device for training and evaluation.

        Raises:
            ValueError: Labels that do not belong to x, fewer than two classes, or too few examples.
        """
        data.check(x, name="examples for the feature classifier")
        if labels.shape != (len(x),) or labels.is_floating_point():
            raise ValueError(f"labels must be integers of shape ({len(x)},), got {labels.dtype} {tuple(labels.shape)}")
        x, labels = _labelled(x, labels)
        if held_out is None:
            every_fifth = torch.arange(len(x)) % 5 == 4
            held_out = (x[every_fifth], labels[every_fifth])
            x, labels = x[~every_fifth], labels[~every_fifth]
        held_x, held_labels = _labelled(*held_out)
        classes = int(labels.max()) + 1 if len(labels) else 0
        if classes < 2 or len(labels.unique()) < 2 or len(held_labels) == 0:
            raise ValueError(
                f"a feature classifier needs labelled examples of two classes or more; got {len(labels)} labelled"
                f" examples of {len(labels.unique())} classes and {len(held_labels)} held out; without labels use"
                " RawFeatures() or ModuleFeatures(module, name=...)"
            )
        steps = steps or (300 if data.dimension <= 256 else 1000)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = _SmallClassifier(data.shape, classes, width)
        _train(module.to(device), x, labels, data, steps=steps, seed=seed)
        facts = ClassifierFacts(data, classes, width, float("nan"), len(held_labels), seed, steps)
        features = cls(module, facts)
        guesses = torch.cat([features.classes_of(batch) for batch in held_x.split(512)])
        accuracy = float((guesses == held_labels).double().mean())
        return cls(module, dataclasses.replace(facts, accuracy=accuracy))

    def save(self, path: str | Path) -> None:
        """Write weights and facts to one safetensors file."""
        from safetensors.torch import save_file

        tensors = {k: v.detach().cpu().contiguous() for k, v in self._module.state_dict().items()}
        save_file(tensors, str(path), metadata={"classifier": json.dumps(encode(self.facts))})

    @classmethod
    def load(cls, path: str | Path) -> ClassifierFeatures:
        """Read what `save` wrote.

        Raises:
            ValueError: The file holds no feature classifier.
        """
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("classifier")
            if text is None:
                raise ValueError(f"{path} holds no feature classifier; ClassifierFeatures.save writes one")
            facts = decode(json.loads(text), ClassifierFacts)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        module = _SmallClassifier(facts.data.shape, facts.classes, facts.width)
        module.load_state_dict(tensors)
        return cls(module, facts)


class ClassProbabilities:
    """Class probabilities of a classifier as a feature function, (B, *event) -> (B, classes), for `InceptionScore`.

    Args:
        classifier: Trained on the data at hand.
    """

    name = "class probabilities by a classifier of the real data"

    def __init__(self, classifier: ClassifierFeatures):
        self._classifier = classifier
        self.hash = hashlib.sha256(f"probabilities {classifier.hash}".encode()).hexdigest()

    @property
    def note(self) -> str:
        """The classifier's note."""
        return self._classifier.note

    def __call__(self, x: Tensor) -> Tensor:
        """Probabilities of a batch in data units; raises as `ClassifierFeatures.probabilities`."""
        return self._classifier.probabilities(x)


def _labelled(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    known = labels >= 0
    return x[known].cpu(), labels[known].to("cpu", torch.int64)


def _train(module: _SmallClassifier, x: Tensor, labels: Tensor, data: DataSpec, *, steps: int, seed: int) -> None:
    device = module.head.weight.device
    batch = min(128, len(x))
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    order = torch.empty(0, dtype=torch.int64)
    epoch = 0
    module.train()
    with torch.enable_grad():
        for _ in range(steps):
            if len(order) < batch:
                order = torch.from_numpy(philox(seed, epoch).permutation(len(x)))
                epoch += 1
            rows, order = order[:batch], order[batch:]
            m = data.to_model(x[rows].to(device)).to(torch.float32)
            loss = functional.cross_entropy(module(m), labels[rows].to(device), label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
