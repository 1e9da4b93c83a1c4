"""A command line sorted into words, flags and kinds, before it is known what they mean."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unmask.console.flag_table import Choice, every_flag, repeatable, word_counts
from unmask.errors import SettingsError

KIND = re.compile(r"[a-z_.-]+:[a-z0-9-]+")
"""A word that chooses the kind of a setting, such as objective.masking:block."""

_FILE_FLAGS = ("labels-file", "out")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """A command line in parts, not checked yet."""

    words: list[str] = field(default_factory=list[str])
    flags: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The words of each flag's value; none for a switch."""
    kinds: dict[str, str] = field(default_factory=dict[str, str])
    """Chosen kinds by the path of their choice."""
    help: bool = False
    help_all: bool = False


def is_file(word: str) -> bool:
    """Whether a word names a file or folder."""
    try:
        return Path(word).exists()
    except OSError:  # too long for a name, or in a folder that cannot be read
        return False


def is_kind(word: str) -> bool:
    """Whether a word chooses a kind, and names neither a file nor an object in a file (FILE.py:NAME)."""
    return KIND.fullmatch(word) is not None and ".py:" not in word and not is_file(word)


def from_anywhere(arguments: Sequence[str]) -> list[str]:
    """A command line with absolute paths: those of its words and of the flags for files, so that it holds in any folder.

    Other values stay, also where a file has their name.
    """
    words, counts, result = set(split(arguments).words), word_counts(), list[str]()
    before = ""  # the flag whose value this argument is
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            is_path = _names_file(before, argument) if before else argument in words
            result.append(absolute(argument) if is_path else argument)
            before = ""
        elif equals:
            is_path = _names_file(flag[2:].replace("_", "-"), value)
            result.append(f"{flag}={absolute(value)}" if is_path else argument)
            before = ""
        else:
            result.append(argument)
            name = flag[2:].replace("_", "-")
            before = name if counts.get(name, 1) else ""
    return result


def _names_file(flag: str, value: str) -> bool:
    """Whether the value of a flag is a path; a recipe is one only as FILE.py:NAME."""
    return flag in _FILE_FLAGS or (flag == "recipe" and ".py:" in value)


def absolute(word: str) -> str:
    """The absolute path of a file, of FILE.py:NAME, or of a pattern such as shards/*.tar; other words as they are."""
    file, dot, _ = word.rpartition(".py:")
    named = f"{file}.py" if dot else word
    while any(sign in named for sign in "*?[{"):  # the folder that a pattern begins with
        named = str(Path(named).parent)
    return str(Path(word).absolute()) if is_file(named) else word


def split(arguments: Sequence[str], command: str | None = None) -> Line:
    """Sort a command line into words, flags and kinds; `--flag value` and `--flag=value` are the same.

    Args:
        arguments: the command line after the command.
        command: the command, if it is known; some have no kinds.

    Raises:
        SettingsError: for a flag without a value, and for a file whose name looks like a flag.
    """
    counts = word_counts()
    has_kinds = command is None or any(isinstance(each, Choice) for each in every_flag(command))
    words: list[str] = []
    flags: dict[str, list[str]] = {}
    chosen: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":  # all that follow are words
            words += rest
            break
        # a name with two dashes and no ending is a flag, whatever file has that name too
        is_flag = word.startswith("--") and "." not in word.partition("=")[0]
        if word.startswith("-") and word != "-h" and not is_flag and is_file(word):
            raise SettingsError(
                f"{word} looks like a flag; for the file of that name, write {shlex.quote('./' + word)}"
            )
        if word in ("-h", "--help", "--help-all"):
            flags[word.lstrip("-")] = []
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("_", "-")
            count = counts.get(name, 1)
            value_words = [value] if equals else _taken(rest, count)
            flags[name] = (
                [*flags.get(name, ()), *value_words] if name in repeatable() else value_words
            )
        elif has_kinds and is_kind(word):
            path, _, kind = word.partition(":")
            chosen[path.replace("_", "-")] = kind
        else:
            words.append(word)
    asked = {name for name in ("h", "help", "help-all") if flags.pop(name, None) is not None}
    return Line(words, flags, chosen, bool(asked), "help-all" in asked)


def _taken(rest: list[str], count: int) -> list[str]:
    """Take the words of a value from a command line: one, or up to `count` numbers; fewer if another flag comes first."""
    words: list[str] = []
    while rest and len(words) < count and not rest[0].startswith("--"):
        if words and not _NUMBER.fullmatch(rest[0]):
            break
        words.append(rest.pop(0))
    return words
