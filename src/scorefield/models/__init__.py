"""Running experiments: data in, model folders out.

experiment    everything that decides a run, as one record
bridges       checkpoints of the releases as models, and back
recipes       functions that return experiments
data          readers, splits, the order of examples
trainer       the loop, players who plays and turns what one does; averages, weights, checkpoints, tally and run_folder
              are what it keeps; observer, stopping
guides        trained guides, and models led by them; guiding makes one
model         a trained model: score, sample, posterior (measured), log_prob, encode, decode
evaluation    samples against real data; sample_folder keeps samples
choosing      which sampler, with which settings: measured, budgeted, tuned
comparing     the methods of the lineage on the same data for the same time
reproduce     the papers' experiments, with their claims
selftest      every claim measured on the machine at hand, with a certificate
doctor        whether a model's score is what it should be, and what is wrong with it
trust         whether posterior samples are to be trusted: simulated problems and their calibration
stacked       the classifier that counts the modes of stacked examples
report        pages from curves, figures and metrics; describe says what an experiment is
paper         the words and works that a paper needs of a run; bibliography holds the works
operators     operators and masks by name, with the files they name
ranks, files  several processes; files that are never half written
"""

from scorefield.lab import (
    averages,
    bibliography,
    bridges,
    checkpoints,
    choosing,
    comparing,
    curves,
    data,
    describe,
    doctor,
    evaluation,
    experiment,
    figures,
    files,
    guides,
    guiding,
    measured,
    model,
    observer,
    operators,
    page,
    paper,
    players,
    ranks,
    recipes,
    report,
    reproduce,
    run_folder,
    sample_folder,
    selftest,
    stacked,
    stopping,
    tally,
    trainer,
    training_report,
    trust,
    turns,
    weights,
)
from scorefield.lab.experiment import Experiment
from scorefield.lab.guides import Guide, load_guide
from scorefield.lab.model import Model, Samples, load
from scorefield.lab.trainer import train

__all__ = [
    "Experiment",
    "Guide",
    "Model",
    "Samples",
    "averages",
    "bibliography",
    "bridges",
    "checkpoints",
    "choosing",
    "comparing",
    "curves",
    "data",
    "describe",
    "doctor",
    "evaluation",
    "experiment",
    "figures",
    "files",
    "guides",
    "guiding",
    "load",
    "load_guide",
    "measured",
    "model",
    "observer",
    "operators",
    "page",
    "paper",
    "players",
    "ranks",
    "recipes",
    "report",
    "reproduce",
    "run_folder",
    "sample_folder",
    "selftest",
    "stacked",
    "stopping",
    "tally",
    "train",
    "trainer",
    "training_report",
    "trust",
    "turns",
    "weights",
]
