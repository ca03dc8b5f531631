"""Comparison and tuning of samplers by measurement.

The best number of steps, grid, order, signal-to-noise ratio or eta depends on the model. Every sampler that a model
admits draws samples from the same noise, and is compared

* with the converged probability flow from the same latents, if its steps draw no noise: a root mean square error over
  samples and dimensions in model units, which is the error of the solver alone;
* with held-out data: the squared energy distance, which includes the error of the model. The excess over the distance
  of the converged flow has a much narrower interval than the distance itself, since noise and data are shared.

    candidates   the samplers that a model admits, and their numbers of network calls, without a call of the network
    measurement  the table: errors, distances, calls and seconds, each with its uncertainty
    budget       from a table and a budget to a sampler and its expected error
    settings     the numbers of a sampler that can be tuned, and their intervals
    tuning       from a criterion to settings; differences within the noise count as ties
    subject      what is measured: a model, or a score in closed form
    page         the table as a report
    tuning_page  the settings that tuning tried, as a report
"""

from scorefield.evaluation.samplers import budget, candidates, measurement, page, settings, subject, tuning, tuning_page
from scorefield.evaluation.samplers.budget import Budget, Choice, choose, nearer_to_data, parse_budget
from scorefield.evaluation.samplers.candidates import Candidate
from scorefield.evaluation.samplers.measurement import Real, measure
from scorefield.evaluation.samplers.subject import Subject, of_model, of_score
from scorefield.evaluation.samplers.tuning import tune
from scorefield.models.sampler_files import StaleError, read_table, read_tuned, write_record
from scorefield.models.sampler_records import Measured, MeasureReceipt, SamplerRow, SamplerTable, TunedSampler

__all__ = [
    "Budget",
    "Candidate",
    "Choice",
    "MeasureReceipt",
    "Measured",
    "Real",
    "SamplerRow",
    "SamplerTable",
    "StaleError",
    "Subject",
    "TunedSampler",
    "budget",
    "candidates",
    "choose",
    "measure",
    "measurement",
    "nearer_to_data",
    "of_model",
    "of_score",
    "page",
    "parse_budget",
    "read_table",
    "read_tuned",
    "settings",
    "subject",
    "tune",
    "tuning_page",
    "tuning",
    "write_record",
]
