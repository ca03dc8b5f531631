"""The samplers by name, for the commands that take one; nothing here imports torch."""

from __future__ import annotations

from typing import Literal

SamplerName = Literal[
    "pc",
    "em",
    "reverse-diffusion",
    "ancestral",
    "ald",
    "cas",
    "ode",
    "flow-euler",
    "flow-heun",
    "dpm",
    "sde-dpm",
    "ddim",
    "edm",
]
"""The names of `sampling.named.NAMED`; a test compares the two."""
