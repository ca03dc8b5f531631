"""`scorefield edit class`: samples of a class or conditioned on numbers y, by guidance."""

from __future__ import annotations

from pathlib import Path

from scorefield.cli.edit import ClassConditional
from scorefield.cli.sample import Sample
from scorefield.cli.sample import run as sample
from scorefield.models.guidance import load_guide
from scorefield.models.loading import find
from scorefield.models.run_folder import read_experiment


def class_conditional(action: ClassConditional) -> None:
    """Carry out the action by the `sample` command that it abbreviates.

    Raises:
        ValueError: Neither a class nor numbers are named, both are, or the model knows no condition of that kind.
    """
    model = action.model
    folder = find(model)
    if (action.label is None) == (action.y is None):
        raise ValueError("give the condition: either --label CLASS or --y Y1,Y2,...")
    wanted = "class" if action.label is not None else "vector"
    if action.guide is not None:
        known = [load_guide(action.guide, device="cpu").answer.spec]
    else:
        spec = read_experiment(folder).spec
        known = [] if spec is None else list(spec.conditions)
    names = [c.name for c in known if c.kind == wanted]
    if not names:
        if action.guide is not None or known:
            whose = f"the guidance model {action.guide}" if action.guide is not None else model
            other = "--y" if wanted == "class" else "--label"
            raise ValueError(f"{whose} knows no {wanted}, but {', '.join(repr(c.name) for c in known)}; give {other}")
        raise ValueError(
            f"{model} was trained without labels and knows no {wanted}: train a guidance model for it, scorefield"
            " train-guide"
            f" {model} --kind {'classifier' if wanted == 'class' else 'likelihood'} --data PATH, and give it as"
            " --guide, or train the model with data.conditional=true and training.condition_dropout=0.1"
        )
    value = action.label if action.label is not None else action.y
    sample(
        Sample(
            model,
            action.n,
            action.sampler,
            action.steps,
            seed=action.seed,
            condition=(f"{names[0]}={value}",),
            guide=action.guide,
            scale=action.scale,
            weights=action.weights,
            batch_size=action.batch_size,
            out=action.out or Path("edit") / folder.resolve().name / "class",
        )
    )
