"""Score-based generative models: one lineage, one library, every part tested against a closed form.

    import scorefield as sf

    model = sf.load("digits")
    samples = model.sample(16, seed=0)

The names below are imported from their rooms at first use (PEP 562), so that `import scorefield` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scorefield._version import __version__ as __version__

if TYPE_CHECKING:
    from scorefield.data_spec import ConditionSpec as ConditionSpec
    from scorefield.data_spec import DataSpec as DataSpec
    from scorefield.models.guidance import load_guide as load_guide
    from scorefield.models.model import load as load
    from scorefield.process import VE as VE
    from scorefield.process import VP as VP
    from scorefield.process import SubVP as SubVP
    from scorefield.process import Tabulated as Tabulated
    from scorefield.sampling import Sampler as Sampler
    from scorefield.score import oracles as oracles

# Public name -> its module. A new name is one line here and one above, for type checkers; a test compares the two.
_HOME = {
    "ConditionSpec": "scorefield.data_spec",
    "DataSpec": "scorefield.data_spec",
    "load": "scorefield.models.model",
    "load_guide": "scorefield.models.guidance",
    "VE": "scorefield.process",
    "VP": "scorefield.process",
    "SubVP": "scorefield.process",
    "Tabulated": "scorefield.process",
    "Sampler": "scorefield.sampling",
    "oracles": "scorefield.score",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
