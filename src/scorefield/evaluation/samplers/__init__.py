"""Comparison and tuning of samplers by measurement.

The best number of steps, grid, order, snr or eta depends on the model. Here it is measured: every admissible sampler
draws from the same noise, and is compared

* with the converged flow out of the same latents, where its steps draw no noise: a root mean square error over samples
  and dimensions in model units, which is of the solver alone;
* with held-out data: the squared energy distance, which is of the model and the sampler; the part beyond that of the
  converged flow is known much better than the distance itself, since noise and data are shared.

candidates   which samplers a model admits, at which numbers of calls; found without the network
measuring    the table: errors, distances, calls, seconds, each with its uncertainty
budget       from a table and a budget to a sampler and its expected error
settings     the numbers of a sampler that can be chosen, and where they may lie
tuning       from a criterion to settings; differences within the noise count as ties
subject      what is measured: a model, or a score in closed form
records      the table and the tuned sampler, with receipts; files keeps them in a model folder
page         the table as a report; tuned_page, what tuning tried
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
