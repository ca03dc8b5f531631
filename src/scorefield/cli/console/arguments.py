"""Types of flags and positional arguments, each with its help. A flag means the same in every command that has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

ModelName = Positional[
    Annotated[str, arg(metavar="MODEL", help="Run or model folder, or the name of a bundled model (digits).")]
]
ModelOrOracle = Positional[
    Annotated[
        str,
        arg(
            metavar="MODEL|oracle:NAME",
            help="Run or model folder, name of a bundled model (digits), or an exact distribution: oracle:gaussian-8d,"
            " oracle:mixture-2d, oracle:mixture-8d, oracle:mixture-64d or oracle:field.",
        ),
    ]
]
RecipeName = Positional[
    Annotated[
        str, arg(metavar="RECIPE", help="Name of a recipe (see `scorefield recipes`), or path of an experiment.json.")
    ]
]

Seed = Annotated[
    int, arg(metavar="N", help="Seed of every random draw; what is drawn for example i depends only on the seed and i.")
]
Weights = Annotated[
    str | None,
    arg(
        metavar="raw|ema|ema:DECAY",
        help="Which weights of the model to use. Default: the first EMA (moving average).",
        help_behavior_hint="",
    ),
]
BatchSize = Annotated[
    int | None, arg(metavar="N", help="Examples per network call. Default: up to 128.", help_behavior_hint="")
]
Steps = Annotated[
    int | None,
    arg(metavar="N", help="Number of steps of the sampler. Default: the sampler's own.", help_behavior_hint=""),
]
Data = Annotated[
    str | None,
    arg(
        metavar="DATA",
        help="Data to work on: a path or module:attribute. Default: the model's held-out data.",
        help_behavior_hint="",
    ),
]
Reference = Annotated[
    str | None,
    arg(
        metavar="DATA",
        help="Real data that samples are compared with. Default: the model's own held-out data.",
        help_behavior_hint="",
    ),
]
Out = Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")]
Rtol = Annotated[float, arg(metavar="X", help="Relative and absolute tolerance of the ODE solver.")]
Noise = Annotated[float | None, arg(metavar="SIGMA", help_behavior_hint="")]
Count = Annotated[int, arg(aliases=["-n"], metavar="N")]
Whole = Annotated[int, arg(metavar="N")]
Number = Annotated[float, arg(metavar="X")]
Flag = Annotated[bool, FlagCreatePairsOff]
Precision = arg(
    help="Arithmetic of the network; the sampler's state stays float32. bf16 is for samplers on a grid, not for ode."
)
Compile = Annotated[
    bool, FlagCreatePairsOff, arg(help="Compile the network with torch.compile; worth it on accelerators.")
]
Settings = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        name="set",
        metavar="FIELD=VALUE",
        help="Change a field of the experiment, for example training.steps=500; repeatable.",
    ),
]
Resume = arg(
    help="auto continues from the newest checkpoint in OUT, bit for bit; no refuses a folder that holds a run."
)

SAMPLERS = "pc|em|reverse-diffusion|ancestral|ald|cas|ode|flow-euler|flow-heun|dpm|sde-dpm|ddim|edm"
"""The samplers of `sampling.named`, for usage lines; a test compares the two. Plugins may add others."""
SamplerName = Annotated[str | None, arg(metavar=f"{SAMPLERS}|tuned", help_behavior_hint="")]
SOLVERS = "auto|ddrm|diffpir|dps|langevin|moment-matched|pigdm|repaint|replacement|twisted"
"""auto, and the posterior solvers of `inverse.solvers`, for usage lines; a test compares the two."""
