"""What series of runs is asked for, by a command line, by `--resume` or from Python."""

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

from unmask.console.arguments import Peek
from unmask.console.hardware import RunFlags
from unmask.console.series_table import Member
from unmask.data import AnySource
from unmask.data.draws import check_amount
from unmask.data.labelled import Labelled
from unmask.errors import RunError, SettingsError
from unmask.evaluation.frozen import PRETRAINED, SCRATCH
from unmask.files import read_object
from unmask.recipes import Transfer
from unmask.runs.weights import Found

FILE = "series.json"
"""The file by which the folder of a series is known."""

_SEEDS = 3


class Asked(NamedTuple):
    """What a command line or a call asks for, with the images opened."""

    data: AnySource
    labelled: Labelled
    recipe_name: str
    recipe: Transfer
    """For all training images."""
    weights: Found | None
    out: str | Path | None
    seed: int
    running: RunFlags


class Wanted(NamedTuple):
    """A series that is wanted."""

    members: Callable[[], list[Member]]
    """Its runs, in their order."""
    ask: Callable[[], Asked]
    seed: int
    """The first one."""
    arguments: list[str] | None = None
    """The command line; None of a call from Python."""


def is_series(line: Peek) -> bool:
    """Whether a command line asks for a new series."""
    is_new = not line.help and "resume" not in line.flags
    return is_new and bool({"labels", "seeds"} & line.flags.keys())


def again(arguments: list[str], line: Peek) -> list[str] | None:
    """The command line of the series that `--resume` names, with the further flags of this one; None if it names none."""
    root = line.flags.get("resume", "")
    series = read_object(Path(root) / FILE) if root and not line.help else {}
    saved = series.get("arguments")
    if series and saved is None:
        raise RunError(
            f"the series in {root} was begun by unmask.finetune; call it again with the same arguments, and out={root!r}"
        )
    if not isinstance(saved, list):
        return None
    at = next(place for place, word in enumerate(arguments) if word.startswith("--resume"))
    more = arguments[:at] + arguments[at + (1 if "=" in arguments[at] else 2) :]
    return [*map(str, saved), *more, "--out", root]


def amounts_of(labels: object) -> list[str]:
    """The amounts of labels that a program gives: one as a number or text, several as a list, or as text with commas.

    Raises:
        SettingsError: if they are anything else.
    """
    if isinstance(labels, str):
        labels = labels.split(",")
    amounts = list(labels) if isinstance(labels, Sequence) else [labels]
    for amount in amounts:
        if isinstance(amount, bool) or not isinstance(amount, str | Integral):
            raise SettingsError(
                f'labels must be amounts such as 5, "10%" or ["1%", "all"], got {labels!r}'
            )
    return [str(amount).strip() for amount in amounts]


def check_seeds(seeds: object) -> None:
    """Refuse what is no number of seeds.

    Raises:
        SettingsError: with what it must be.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, Integral) or seeds < 1:
        raise SettingsError(
            f"seeds must be the number of runs of each amount, such as 3, got {seeds!r}"
        )


def members_of(
    labels: Sequence[str] | None, seeds: int | None, first: int, only_scratch: bool
) -> list[Member]:
    """The runs of a series, in their order: all of a seed before the next one.

    Raises:
        SettingsError: if an amount of labels is not valid, or there are no seeds.
    """
    seeds, amounts = _SEEDS if seeds is None else seeds, ["all"] if labels is None else list(labels)
    if seeds < 1 or not amounts:
        raise SettingsError(
            f"a series needs an amount of labels and a seed, got {len(amounts)} and {seeds}"
        )
    for amount in amounts:
        check_amount(amount)
    if len(set(amounts)) < len(amounts):
        raise SettingsError(
            f"an amount of labels is there twice: {','.join(amounts)}; leave out one"
        )
    arms = (SCRATCH,) if only_scratch else (PRETRAINED, SCRATCH)
    every = range(first, first + seeds)
    return [Member(amount, seed, arm) for seed in every for amount in amounts for arm in arms]
