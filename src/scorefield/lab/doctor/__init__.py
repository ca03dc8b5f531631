"""The score doctor for models: examples, other weights, the age of averages, receipts and the page.

averages     how much of its initial weights an average still holds
records      a checkup and what it depends on
checkup      examining a model, or a law that is known exactly
page         a checkup as a table and as a page
planted      known faults put into any score, for seeing that they are named
"""

from __future__ import annotations

from scorefield.lab.doctor import averages, checkup, page, planted, records
from scorefield.lab.doctor.averages import AverageAge, average_age
from scorefield.lab.doctor.checkup import Examples, Settings, examine_model, examine_oracle
from scorefield.lab.doctor.records import Checkup, DoctorReceipt

__all__ = [
    "AverageAge",
    "Checkup",
    "DoctorReceipt",
    "Examples",
    "Settings",
    "average_age",
    "averages",
    "checkup",
    "examine_model",
    "examine_oracle",
    "page",
    "planted",
    "records",
]
