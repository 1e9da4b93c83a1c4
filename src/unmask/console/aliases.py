"""Short names for the settings that are changed most: --lr, --mask-ratio, --masking, --model and --patch-size.

An alias stands for dotted flags or for a kind. It may be combined with all others, but not with what it stands for.
"""

import re
from dataclasses import replace

from unmask.console.command_line import Line
from unmask.console.flag_table import Choice, Flag, Values, every_flag, flags_of, table
from unmask.errors import SettingsError, closest, did_you_mean

_ABOUT = {
    "lr": ("X", "Base learning rate (--schedule.base-lr)."),
    "mask-ratio": ("X", "Share of patches to hide."),
    "masking": (
        "KIND",
        "How they are hidden: random, block, grid, inverse-block, partition, noise, squares.",
    ),
    "model": (
        "vit-s16",
        "Encoder: vit-ti, vit-s, vit-b, vit-l, vit-h, with or without a patch size.",
    ),
    "patch-size": ("N", "Side of a patch in pixels."),
}
_PATHS = {
    "lr": "schedule.base-lr",
    "mask-ratio": "objective.masking.ratio",
    "masking": "objective.masking",
    "model": "encoder.embed-dim",
    "patch-size": "encoder.patch-size",
}
"""A path that a command must have for the alias to mean something."""

SINGLE = ("lr", "mask-ratio", "patch-size")
"""Those that stand for one flag with a number."""

_MODEL = re.compile(r"(vit-[a-z]+?)(\d*)")


def aliases_of(command: str) -> dict[str, str]:
    """The aliases of a command, with their values in a help text."""
    paths = {each.path for each in every_flag(command)}
    return {
        name: metavar
        for name, (metavar, _) in _ABOUT.items()
        if _PATHS[name] in paths and name not in paths
    }


def about_alias(name: str) -> str:
    """What an alias says, in a sentence."""
    return _ABOUT[name][1]


def stands_for(name: str) -> str:
    """The path of a flag or choice that an alias sets."""
    return _PATHS[name]


def in_full(flags: dict[str, str]) -> dict[str, str]:
    """The flags that are aliases of numbers, under the dotted names that they usually stand for."""
    return {_PATHS[name]: value for name, value in flags.items() if name in SINGLE}


def check_alias(command: str, name: str, word: str) -> None:
    """Check the value of an alias of several flags, or of a kind, before it is known what the recipe has.

    Raises:
        SettingsError: for an unknown model or masking.
    """
    if name == "masking":
        _masking(command, word)
    if name == "model":
        _model(word)


def with_aliases(command: str, line: Line, start: Values) -> Line:
    """The command line with dotted flags and kinds in place of aliases.

    Raises:
        SettingsError: for an alias beside what it stands for, for one that the objective does not have, and for an unknown
            model or masking.
    """
    known = aliases_of(command)
    given = {name: words[0] for name, words in line.flags.items() if name in known}
    if not given:
        return line
    flags = {name: words for name, words in line.flags.items() if name not in known}
    chosen = dict(line.kinds)
    if "masking" in given:
        path = _PATHS["masking"]
        if path in chosen:
            raise _clash("masking", f"{path}:{chosen[path]}")
        chosen[path] = _masking(command, given["masking"])
    layout = flags_of(command, start, chosen)
    if "masking" in given and not any(each.path == _PATHS["masking"] for each in layout):
        raise _without_masking(command, "masking", layout)
    set_by = {path: f"--{path}" for path in flags}
    for name, word in given.items():
        for path, value in _meant(command, name, word, layout).items():
            if path in set_by:
                raise _clash(name, set_by[path])
            flags[path], set_by[path] = [value], f"--{name}"
    return replace(line, flags=flags, kinds=chosen)


def _meant(command: str, name: str, word: str, layout: list[Flag | Choice]) -> dict[str, str]:
    """The dotted flags, and their values, that an alias stands for."""
    if name == "masking":
        return {}
    if name == "model":
        return _model(word)
    if name != "mask-ratio":
        return {_PATHS[name]: word}
    paths = {each.path for each in layout}
    # squares hide what another masking draws, so the ratio is that one's
    for path in (_PATHS[name], "objective.masking.masking.ratio"):
        if path in paths:
            return {path: word}
    raise _without_masking(command, name, layout)


def _model(word: str) -> dict[str, str]:
    models = table()["models"]
    found = _MODEL.fullmatch(word)
    if found is None or found[1] not in models:
        question = closest(word, models)
        known = f"{', '.join(models)}, with a patch size or without: vit-s16, vit-s"
        meant = f"did you mean {question}? Known: {known}" if question else f"known: {known}"
        raise SettingsError(f"--model {word} is not known; {meant}")
    shape = {
        f"encoder.{key.replace('_', '-')}": str(value) for key, value in models[found[1]].items()
    }
    return shape | ({_PATHS["patch-size"]: found[2]} if found[2] else {})


def _masking(command: str, word: str) -> str:
    every = [each for each in every_flag(command) if isinstance(each, Choice)]
    kinds = next(each.kinds for each in every if each.path == _PATHS["masking"])
    if word not in kinds:
        raise SettingsError(f"--masking {word} is not known; {did_you_mean(word, kinds)}")
    return word


def _clash(name: str, other: str) -> SettingsError:
    return SettingsError(f"--{name} and {other} set the same value; leave out one of them")


def _without_masking(command: str, name: str, layout: list[Flag | Choice]) -> SettingsError:
    """The error for a masking where the objective, or the masking itself, has no such thing."""
    choices = {each.path: each.kind for each in layout if isinstance(each, Choice)}
    if _PATHS["masking"] in choices:
        kind = f"objective.masking:{choices[_PATHS['masking']]}"
        return SettingsError(
            f"--{name}: {kind} has no ratio to set; see `unmask {command} --help-all`"
        )
    having = {
        each.under[0]
        for each in every_flag(command)
        if each.path == _PATHS["masking"] and each.under
    }
    return SettingsError(
        f"--{name}: the objective {choices.get('objective')} hides no patches, so it has no masking; "
        f"{' and '.join(sorted(having))} have one"
    )
