"""The command line, the only package that prints.

One file per command, or one package where it has actions or is long: its flags as a dataclass that needs no torch, then
`run`, which imports what it needs. `main` finds the commands by the table `VERBS`; `console` holds what they share.

    train, sample, evaluate, likelihood, latents, edit, energy, train_guide    work with models
    compare, compare_samplers, compare_methods, tune, calibrate, doctor, reproduce, selftest    measurements
    recipes, describe, data, import_, export, demo    experiments, data and checkpoints
    console    shared flags, progress, old spellings; main, the entry point
"""

from scorefield.cli.main import main

__all__ = ["main"]
