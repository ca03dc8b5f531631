"""Choosing a sampler and its settings by measurement, not by eye.

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

from scorefield.lab.choosing import (
    budget,
    candidates,
    files,
    measuring,
    page,
    records,
    settings,
    subject,
    tuned_page,
    tuning,
)
from scorefield.lab.choosing.budget import Budget, Choice, choose, nearer_to_data, parse_budget
from scorefield.lab.choosing.candidates import Candidate
from scorefield.lab.choosing.files import StaleError, read_table, read_tuned, write_record
from scorefield.lab.choosing.measuring import Real, measure
from scorefield.lab.choosing.records import Measured, MeasureReceipt, SamplerRow, SamplerTable, TunedSampler
from scorefield.lab.choosing.subject import Subject, of_model, of_score
from scorefield.lab.choosing.tuning import tune

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
    "files",
    "measure",
    "measuring",
    "nearer_to_data",
    "of_model",
    "of_score",
    "page",
    "parse_budget",
    "read_table",
    "read_tuned",
    "records",
    "settings",
    "subject",
    "tune",
    "tuned_page",
    "tuning",
    "write_record",
]
