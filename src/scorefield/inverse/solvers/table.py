"""Which solver goes with which step, process and operator: the table, the choice, and refusals that name what works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scorefield._codec import near
from scorefield.inverse.observation import Observation
from scorefield.inverse.solvers.solver import Solver
from scorefield.sampling.named import NAMED, named
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Hold
from scorefield.score.score import Score

PREFERRED = (
    (
        "pigdm",
        "A is linear with singular values and the noise normal, so each step can weigh y by what is known of x_0",
    ),
    ("moment-matched", "A is linear and the noise normal, so the denoiser's Jacobian says how to weigh y at each step"),
    ("dps", "it needs no more than a differentiable A and a density of the noise"),
    ("diffpir", "y is exact and A not linear, so each denoised x can be fitted to y and no more"),
)
"""Solvers in the order in which `choose` tries them, each with what it says."""


def all_solvers() -> dict[str, type[Solver]]:
    """Every solver of this package by its name, in alphabetical order."""
    return dict(sorted((cls.name, cls) for cls in _concrete(Solver) if cls.__module__.startswith("scorefield.")))


def _concrete(cls: type[Solver]) -> list[type[Solver]]:
    below = [found for child in cls.__subclasses__() for found in _concrete(child)]
    return below if getattr(cls, "__abstractmethods__", None) else [cls, *below]


def solver_named(name: str) -> Solver:
    """The solver of that name with its default settings.

    Raises:
        ValueError: No such name; near matches are shown.
    """
    known = all_solvers()
    if name not in known:
        raise ValueError(f"there is no solver {name!r}.{near(name, ['auto', *known])}")
    return known[name]()


# ---------------------------------------------------------------------------------------------------- what works


def refusals(solver: Solver, score: Score, observation: Observation, sampler: Sampler | None = None) -> list[str]:
    """Why a solver cannot be used so, in full sentences; empty where it can.

    Args:
        solver: The solver with its settings.
        score: Score of x, the prior.
        observation: The observation, in model units.
        sampler: None for the solver's own.
    """
    try:
        return solver.refusals(score, solver.default_sampler(score) if sampler is None else sampler, observation)
    except ValueError as error:
        return [str(error)]


def legal_solvers(score: Score, observation: Observation, sampler: Sampler | None = None) -> list[str]:
    """Names of the solvers that take this observation, with this sampler or their own."""
    return [name for name, cls in all_solvers().items() if not refusals(cls(), score, observation, sampler)]


def legal_samplers(solver: Solver, score: Score, observation: Observation) -> list[str]:
    """Names of the samplers that a solver goes with here."""
    legal = []
    for name in NAMED:
        try:
            sampler = named(name, score.process)
        except ValueError:
            continue
        if not refusals(solver, score, observation, sampler):
            legal.append(name)
    return legal


def require(solver: Solver, score: Score, observation: Observation, sampler: Sampler | None = None) -> None:
    """Refuse a combination that cannot work.

    Raises:
        ValueError: They do not fit; the message holds the reason, the solvers that do take this observation and
            sampler, and the samplers that this solver goes with.
    """
    why = refusals(solver, score, observation, sampler)
    if not why:
        return
    words = ["; ".join(why)]
    takers = legal_solvers(score, observation, sampler)
    what = "this observation" if sampler is None else "this observation and sampler"
    words.append(f"solvers that take {what}: {', '.join(takers)}" if takers else f"no solver takes {what}")
    if sampler is not None:
        works = legal_samplers(solver, score, observation)
        own = not refusals(solver, score, observation)
        names = [*works, *(["its own (sampler=None)"] if own else [])]
        if names:
            words.append(f"samplers that {solver.name} goes with here: {', '.join(names)}")
    raise ValueError("; ".join(words))


@dataclass(frozen=True)
class Choice:
    """A solver, and in a sentence why it was chosen."""

    solver: Solver
    why: str


def choose(score: Score, observation: Observation, sampler: Sampler | None = None) -> Choice:
    """The first solver of `PREFERRED` that takes the observation.

    Args:
        score: Score of x, the prior.
        observation: The observation, in model units.
        sampler: The sampler that the solver must admit; None for the solver's own.

    Raises:
        ValueError: None does; each says why.
    """
    known, passed = all_solvers(), []
    for name, reason in PREFERRED:
        if name not in known:
            continue
        solver = known[name]()
        why = refusals(solver, score, observation, sampler)
        if not why:
            passed_by = "".join(f"; not {other}: {because}" for other, because in passed)
            return Choice(solver, f"{name}: {reason}{passed_by}")
        passed.append((name, why[0]))
    raise ValueError("no solver takes this observation" + "".join(f"; {name}: {why}" for name, why in passed))


# ---------------------------------------------------------------------------------------------------- the table


COLUMNS = ("solver", "exact", "needs", "goes with", "its own sampler", "calls")


def table(score: Score, observation: Observation) -> list[dict[str, Any]]:
    """A row for each solver: when it is exact, what it needs, the steps it goes with, its own sampler and its calls.

    Args:
        score: The score, whose process the samplers are for.
        observation: Linear, with normal noise.
    """
    rows = []
    for name, cls in all_solvers().items():
        solver = cls()
        rows.append(
            {
                "solver": name,
                "exact": cls.exact,
                "needs": ", ".join(_needs(cls)) or "nothing more",
                "goes with": _goes_with(cls),
                "its own sampler": _in_words(solver.default_sampler(score)),
                "calls": calls_of(solver, score, observation, solver.default_sampler(score)) or "several a step",
            }
        )
    return rows


def calls_of(solver: Solver, score: Score, observation: Observation, sampler: Sampler) -> int | None:
    """Network calls of a sample by a solver with a sampler; None where they depend on the state."""
    _, sampler = solver.prepare(score, sampler, observation)
    each = sampler.step.calls_per_step()
    if each is None:
        return None
    times, process = sampler.times(score.process), sampler.process or score.process
    last = 1 if sampler.final == "denoise" and float(process.sigma(times[-1:])) > 0.0 else 0
    return getattr(solver, "particles", 1) * (each * (len(times) - 1) + last)


def _goes_with(cls: type[Solver]) -> str:
    if cls.steps is None:
        return "every step"
    return "its own move alone" if cls.steps == (Hold,) else ", ".join(kind.__name__ for kind in cls.steps)


def _needs(cls: type[Solver]) -> list[str]:
    needs = []
    if cls.spectrum:
        needs.append("a linear A with singular values")
    elif cls.linear:
        needs.append("a linear A")
    if cls.gaussian:
        needs.append("normal noise")
    if cls.noisy:
        needs.append("noise above 0")
    return needs


def _in_words(sampler: Sampler) -> str:
    steps = " + ".join(type(part).__name__ for part in sampler.step.parts() if not isinstance(part, Hold))
    count = getattr(sampler.grid, "steps", None)
    return f"{steps or 'its own move'} on {type(sampler.grid).__name__}" + ("" if count is None else f"({count})")


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table for documents."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(str(row[c]) for c in COLUMNS) + " |" for row in rows)])
