"""Words of version 0.1, translated with a warning. Delete this file, and its use in `main`, after one version."""

from __future__ import annotations

from collections.abc import Sequence

ACTIONS = {
    "edit": ("inpaint", "colorize", "class", "restore", "interpolate"),
    "energy": ("score", "denoise", "restore", "outliers", "logz"),
}
"""Verbs whose action once stood behind the model."""

FLAGS = {
    ("compare-samplers", "--data"): "--reference",
    ("tune", "--data"): "--reference",
    ("edit", "--answers"): "--samples",
    ("energy", "--answers"): "--samples",
    ("calibrate", "--answers"): "--samples",
    ("likelihood", "--way"): "--method",
    ("energy", "--most-rungs"): "--max-rungs",
}
"""(verb, old flag) -> new flag."""

OUTLIERS = {"--out": "--outliers", "--in": "--data", "--report": "--out"}
"""Flags of `energy MODEL outliers`, in that order of words."""


def translated(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words in the present spelling, and a warning for each that was not."""
    words, warnings = list(words), []
    verb = words[0] if words else ""
    actions = ACTIONS.get(verb, ())
    if len(words) > 2 and words[1] not in actions and words[2] in actions:
        warnings.append(f"`{verb} MODEL {words[2]}` is now `scorefield {verb} {words[2]} {words[1]}`")
        words[1], words[2] = words[2], words[1]
        if words[1] == "outliers":
            words = [_renamed(word, OUTLIERS, warnings) for word in words]
    flags = {old: new for (of, old), new in FLAGS.items() if of == verb}
    return [_renamed(word, flags, warnings) for word in words], warnings


def _renamed(word: str, flags: dict[str, str], warnings: list[str]) -> str:
    flag, equals, value = word.partition("=")
    if flag not in flags:
        return word
    warnings.append(f"{flag} is now {flags[flag]}")
    return f"{flags[flag]}{equals}{value}"
