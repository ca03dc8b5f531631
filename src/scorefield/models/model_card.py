"""The model files of a folder: model.safetensors and the model card, README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scorefield._files import write_text
from scorefield.data_spec import DataSpec
from scorefield.models.experiment import AnyExperiment, Experiment, GuideExperiment
from scorefield.models.weights import Sets, save_tensors

CARD = """# {name}

A score-based generative model trained with scorefield.

| | |
| --- | --- |
{table}

```python
import scorefield as sf

model = sf.load("path/to/this/folder")
x = model.sample(16).x  # data units
```
"""

GUIDE_CARD = """# {name}

A guidance model p_t(y | x) of noisy examples, trained with scorefield: its gradient guides a model of the same process.

| | |
| --- | --- |
{table}

```python
import scorefield as sf

model = sf.load("path/to/the/model").guided(sf.load_guide("path/to/this/folder"), scale=1.0)
```
"""


def write_model(run: Path, experiment: AnyExperiment, sets: Sets, parameters: int, step: int) -> None:
    """Write model.safetensors and README.md, as training does at each checkpoint.

    Args:
        run: The run folder.
        experiment: The experiment, with `spec` filled in.
        sets: Every set of weights by its name.
        parameters: Number of parameters of the network.
        step: Training step of the weights.
    """
    save_tensors(run / "model.safetensors", sets, {"step": str(step)})
    if isinstance(experiment, GuideExperiment):
        card = guide_card(experiment, parameters, step)
    else:
        card = model_card(experiment, parameters, step, tuple(sets))
    write_text(run / "README.md", card)


def guide_card(experiment: GuideExperiment, parameters: int, step: int) -> str:
    """Model card of a trained guidance model, in Markdown."""
    assert experiment.spec is not None
    rows = [
        ("answers", f"`{experiment.answer}`"),
        ("model", f"`{experiment.model}`"),
        ("data", f"`{experiment.data.path}`, shape {experiment.spec.shape}, {units(experiment.spec)}"),
        ("process", f"`{experiment.process}`"),
        ("network", f"`{experiment.network}`, {parameters:,} parameters"),
        ("trained", f"{step:,} steps of {experiment.training.batch_size} examples, seed {experiment.training.seed}"),
    ]
    return GUIDE_CARD.format(name=experiment.name, table=_table(rows))


def model_card(experiment: Experiment, parameters: int, step: int, weights: Sequence[str]) -> str:
    """Model card of a trained model, in Markdown."""
    rows = [
        ("data", f"`{experiment.data.path}`"),
        *fact_table(experiment, parameters),
        ("trained", f"{step:,} steps of {experiment.training.batch_size} examples, seed {experiment.training.seed}"),
        ("weights", ", ".join(f"`{name}`" for name in weights if name != "fixed")),
    ]
    return CARD.format(name=experiment.name, table=_table(rows))


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def fact_table(experiment: Experiment, parameters: int) -> list[tuple[str, str]]:
    """Facts for the card of any model, trained or imported: (fact, value in Markdown)."""
    spec = experiment.spec
    assert spec is not None
    rows = [
        ("examples", f"shape {spec.shape}"),
        ("data units", units(spec)),
        ("process", f"`{experiment.process}`"),
        ("network", f"`{type(experiment.network).__name__}`, {parameters:,} parameters"),
        ("output", f"`{type(experiment.form).__name__}`, conditioned on `{type(experiment.time_input).__name__}`"),
        ("objective", f"`{experiment.objective}`"),
    ]
    if experiment.adversary is not None:
        rows.append(("critic", f"`{experiment.adversary}`"))
    if experiment.source:
        rows.append(("configuration", experiment.source))
    if experiment.paper:
        rows.append(("published numbers", ", ".join(f"{k} {v:g}" for k, v in experiment.paper.items())))
    return rows


def units(spec: DataSpec) -> str:
    """Description of the data units and the model units of a spec."""
    name = f" {spec.units}" if spec.units else ""
    if not spec.bounded:
        offset, scale = _numbers(spec.offset), _numbers(spec.scale)
        return f"unbounded values{f' in{name}' if name else ''}; (x - {offset}) / {scale} in model units"
    low, high = spec.model_range
    levels = f", {spec.levels} grey levels" if spec.levels else ""
    return f"{spec.low} to {spec.high}{name}{levels}; {low:g} to {high:g} in model units, those of the noise levels"


def _numbers(value: float | tuple[float, ...]) -> str:
    """A number, or one for each channel, with six digits."""
    values = value if isinstance(value, tuple) else (value,)
    return f"{values[0]:.6g}" if len(values) == 1 else f"({', '.join(f'{v:.6g}' for v in values)})"
