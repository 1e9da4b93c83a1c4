"""All flags, kinds and recipes as data, so that help, completion and errors of flags need no torch.

`flags.json` is written by `scripts/flags.py` from the `Arguments` of the commands and the specs below them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unmask.files import read_json

REQUIRED = object()
"""The default of a flag that has none."""

_METAVARS = {
    "recipe": "NAME",
    "out": "PATH",
    "resume": "RUN",
    "like": "RUN",
    "init": "WEIGHTS",
    "labels-file": "FILE",
    "mask": "IMAGE",
    "device": "NAME",
    "data": "DATA",
    "image-size": "SIZE",
    "budget": "TIME",
    "channels": "A,B,C",
    "bands": "A,B,C",
    "only": "A,B,C",
    "encoder": "WEIGHTS",
    "queries": "FILE",
    "where": "COLUMN=VALUE",
}
"""Values in a help text, where the type says too little."""

Values = dict[str, Any]
"""The values of a spec as in spec.json; a value that is missing is the default of its field."""


_WIDEST = 64  # columns of the choices of a flag; more are named in its help alone


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag with a value, a switch, or a word without a flag."""

    path: str
    """Its name on the command line, without dashes before it: epochs, objective.masking.ratio."""

    keys: tuple[str, ...]
    """Where its value lies in the values of the command."""

    help: str
    """What it says, in a sentence."""

    type: str
    """str, int, float, bool (a switch), size, or choice."""

    choices: tuple[str, ...] = ()
    """The values that a choice may have."""

    optional: bool = False
    """Whether it may be None."""

    count: int = 1
    """Number of words of its value."""

    positional: bool = False
    """Whether it is a word without a flag."""

    many: bool = False
    """Whether it is any number of values: words; a flag of words is given several times, numbers have commas between them."""

    default: Any = REQUIRED
    """Its value if it is not given."""

    ranges: tuple[tuple[str, str], ...] = ()
    """Intervals of its numbers, each with what ends the message, see `ranges.outside`."""

    under: tuple[str, ...] = ()
    """The kinds that it belongs to, from the outside in, such as objective:mae, objective.masking:block."""

    @property
    def metavar(self) -> str:
        """Its value in a help text."""
        if self.positional:
            return self.path.upper() + ("..." if self.many else "")
        if self.type == "choice":
            words = "|".join(self.choices)
            return words if len(words) <= _WIDEST else self.path.rpartition(".")[2].upper()
        names = {"int": "N", "float": "X", "size": "SIZE", "bool": "", "str": "TEXT"}
        name = _METAVARS.get(self.path, names[self.type])
        is_list = self.many and self.type != "str"
        return f"{name},{name},..." if is_list else " ".join([name] * self.count)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting that is one of several kinds, chosen by the word PATH:KIND."""

    path: str
    """Its name on the command line: objective.masking."""

    keys: tuple[str, ...]
    """Where its kind lies in the values of the command."""

    help: str
    """What is chosen, in a sentence."""

    kinds: tuple[str, ...]
    """The kinds that it can have."""

    kind: str | None
    """The kind that it has; None if the command does not say."""

    under: tuple[str, ...] = ()
    """The kinds that it belongs to, see `Flag`."""


@cache
def table() -> dict[str, Any]:
    """The whole table: `commands`, `specs`, `recipes`, `models`, `studies` and `scales`."""
    return read_json(Path(__file__).parent / "flags.json")


def flags_of(
    command: str, values: Values | None = None, chosen: Mapping[str, str] | None = None
) -> list[Flag | Choice]:
    """The flags and choices of a command, in the order of its fields.

    Args:
        command: the command.
        values: the values that the flags start from; the defaults of the fields if not given.
        chosen: kinds by the path of their choice, in place of those of the values.
    """
    return list(_walk(table()["commands"][command], values or {}, chosen or {}))


@cache
def every_flag(command: str) -> tuple[Flag | Choice, ...]:
    """The flags and choices of a command under every kind; a path may occur several times."""
    return tuple(_walk(table()["commands"][command], {}, None))


@cache
def word_counts() -> dict[str, int]:
    """The number of words that follow each flag, for all commands and kinds together: the largest; 0 for a switch."""
    counts: dict[str, int] = {}
    for command in table()["commands"]:
        for flag in every_flag(command):
            if isinstance(flag, Flag):
                count = 0 if flag.type == "bool" else flag.count
                counts[flag.path] = max(count, counts.get(flag.path, 0))
    return counts


@cache
def repeatable() -> frozenset[str]:
    """The flags that may be given several times, each time with one value."""
    return frozenset(
        flag.path
        for command in table()["commands"]
        for flag in every_flag(command)
        if isinstance(flag, Flag) and flag.many and flag.type == "str" and not flag.positional
    )


def recipe_root(command: str) -> str | None:
    """The command whose recipes a command takes: pretrain, finetune or tokenizer."""
    spec = table()["commands"][command].get("recipe", {}).get("spec")
    return {"Recipe": "pretrain", "Transfer": "finetune", "Tokenizing": "tokenizer"}.get(spec)


def recipes_for(root: str) -> dict[str, dict[str, Any]]:
    """The recipes of a command by name, with `source` and `values`."""
    return {name: entry for name, entry in table()["recipes"].items() if entry["for"] == root}


def _walk(
    fields: dict[str, Any],
    values: Values,
    chosen: Mapping[str, str] | None,
    prefix: str = "",
    keys: tuple[str, ...] = (),
    under: tuple[str, ...] = (),
) -> Iterator[Flag | Choice]:
    """The flags below a spec; those of all kinds if `chosen` is None."""
    for field, entry in fields.items():
        name = entry.get("name", field.replace("_", "-"))
        path = ".".join(part for part in (prefix, name) if part)
        value = values.get(field, entry.get("default", REQUIRED))
        here = (*keys, field)
        if "spec" in entry:
            inner = value if isinstance(value, dict) else {}
            yield from _walk(table()["specs"][entry["spec"]], inner, chosen, path, here, under)
        elif "kinds" in entry:
            own = value["kind"] if isinstance(value, dict) else None
            kind = own if chosen is None else chosen.get(path, own)
            kinds = entry["kinds"]
            yield Choice(
                path=path,
                keys=here,
                help=entry["help"],
                kinds=tuple(kinds),
                kind=kind,
                under=under,
            )
            for name in kinds if chosen is None else [kind] if kind in kinds else []:
                inner = value if name == own and isinstance(value, dict) else {}
                yield from _walk(
                    table()["specs"][kinds[name]],
                    inner,
                    chosen,
                    path,
                    here,
                    (*under, f"{path}:{name}"),
                )
        else:
            yield _flag(entry, path, here, value, under)


def _flag(
    entry: dict[str, Any], path: str, keys: tuple[str, ...], default: Any, under: tuple[str, ...]
) -> Flag:
    return Flag(
        path=path,
        keys=keys,
        help=entry["help"],
        type="choice" if "choices" in entry else entry["type"],
        choices=tuple(entry.get("choices", ())),
        optional=entry.get("optional", False),
        count=entry.get("values", 1),
        positional=entry.get("positional", False),
        many=entry.get("many", False),
        default=default,
        ranges=tuple(map(tuple, entry.get("ranges", ()))),
        under=under,
    )
