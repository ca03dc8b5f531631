"""Models: an experiment, the network it trained, and the folder that holds both.

experiment     everything that decides a run, as one record
model          a trained model: score, sample, posterior, log_prob, encode, decode
networks       from an experiment to its networks
loading        from a model folder to its network
checkpoint_folder  the checkpoints in a run folder
model_card     the model card, README.md, beside the weights
run_folder     the files of a run folder besides its checkpoints
weights        files of weights
guidance       guidance models, and models guided by them or by their own conditions
posterior      posterior samples of a model in data units
samples        what drawing samples returns; sample_folder keeps samples on disk
conditions     conditions as users give them
description    description of an experiment: every field, parameters, memory
sampler_records, sampler_files  the measured table of samplers and the tuned sampler of a model folder
"""

from __future__ import annotations

from scorefield.models import (
    conditions,
    description,
    experiment,
    guidance,
    loading,
    model,
    posterior,
    run_folder,
    sample_folder,
    sampler_files,
    sampler_records,
    samples,
    weights,
)
from scorefield.models.experiment import Experiment
from scorefield.models.guidance import Guide, load_guide
from scorefield.models.model import Model, Samples, load

__all__ = [
    "Experiment",
    "Guide",
    "Model",
    "Samples",
    "conditions",
    "description",
    "experiment",
    "guidance",
    "load",
    "load_guide",
    "loading",
    "model",
    "posterior",
    "run_folder",
    "sample_folder",
    "sampler_files",
    "sampler_records",
    "samples",
    "weights",
]
