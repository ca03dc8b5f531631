"""Score-based generative models: train on any data, sample, and answer questions with the model.

    import scorefield as sf

    model = sf.fit(x, minutes=5)            # or sf.load("digits"), sf.load("runs/mine")
    samples = model.sample(16, sampler="dpm", steps=20)
    sf.plot.samples(samples)

fit, load, train        a model of data in one call; of a folder; a run of an experiment
recipe, Experiment      everything that decides a run, by name and as a record
evaluate                metrics of samples with intervals and provenance
posterior, Observation  samples of x given y = A(x) + noise
VE, VP, SubVP, Tabulated, Sampler, oracles    processes, samplers, and exact scores to try them on
DataSpec, ConditionSpec what the data are, and what is known of each example
Module, record          networks and other parts of your own
plot                    figures

The names are imported at first use (PEP 562), so that `import scorefield` costs nothing. Everything else is in the
packages, which docs/adding.md and CONTRIBUTING.md list.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scorefield._version import __version__ as __version__

if TYPE_CHECKING:
    from scorefield import plot as plot
    from scorefield._codec import record as record
    from scorefield.data_spec import ConditionSpec as ConditionSpec
    from scorefield.data_spec import DataSpec as DataSpec
    from scorefield.evaluation.evaluate import evaluate as evaluate
    from scorefield.inverse.observation import Observation as Observation
    from scorefield.models.experiment import Experiment as Experiment
    from scorefield.models.guidance import load_guide as load_guide
    from scorefield.models.model import Model as Model
    from scorefield.models.model import load as load
    from scorefield.models.posterior import posterior as posterior
    from scorefield.models.samples import Samples as Samples
    from scorefield.nets.module import Module as Module
    from scorefield.process import VE as VE
    from scorefield.process import VP as VP
    from scorefield.process import SubVP as SubVP
    from scorefield.process import Tabulated as Tabulated
    from scorefield.recipes import recipe as recipe
    from scorefield.sampling import Sampler as Sampler
    from scorefield.score import oracles as oracles
    from scorefield.training.fit import fit as fit
    from scorefield.training.trainer import train as train

# Public name -> its module. A new name is one line here and one above, for type checkers; a test compares the two.
_HOME = {
    "fit": "scorefield.training.fit",
    "load": "scorefield.models.model",
    "load_guide": "scorefield.models.guidance",
    "train": "scorefield.training.trainer",
    "recipe": "scorefield.recipes",
    "evaluate": "scorefield.evaluation.evaluate",
    "posterior": "scorefield.models.posterior",
    "Observation": "scorefield.inverse.observation",
    "Model": "scorefield.models.model",
    "Samples": "scorefield.models.samples",
    "Experiment": "scorefield.models.experiment",
    "DataSpec": "scorefield.data_spec",
    "ConditionSpec": "scorefield.data_spec",
    "Module": "scorefield.nets.module",
    "record": "scorefield._codec",
    "VE": "scorefield.process",
    "VP": "scorefield.process",
    "SubVP": "scorefield.process",
    "Tabulated": "scorefield.process",
    "Sampler": "scorefield.sampling",
    "oracles": "scorefield.score",
    "plot": "scorefield",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    if home == __name__:  # a package
        value: Any = importlib.import_module(f"{home}.{name}")
    else:
        value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
