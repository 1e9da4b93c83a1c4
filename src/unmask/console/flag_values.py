"""A command line is checked against the table of flags and turned into values, or into one sentence of what is wrong.

Nothing here imports torch, so `unmask` answers a misspelt flag at once.
"""

import copy
import os
import re
import shlex
from pathlib import Path
from typing import Any

from unmask.console.aliases import SINGLE, aliases_of, check_alias, stands_for, with_aliases
from unmask.console.command_line import Line, is_file
from unmask.console.flag_table import REQUIRED, Choice, Flag, Values, every_flag, flags_of
from unmask.console.suggestions import other_choice, unknown_flag, unknown_kind
from unmask.console.word_order import check_order
from unmask.device_names import device_name
from unmask.errors import SettingsError, typed
from unmask.ranges import outside

_LONGEST_NAME = 255
"""Bytes in the name of a file, on all usual file systems."""

_SETTING = re.compile(r"([A-Za-z][\w.-]*)=(.*)")
_SIZE = re.compile(r"0*[1-9]\d*(x0*[1-9]\d*)?", re.IGNORECASE)

_SWITCH = {"true": True, "false": False}


def check(command: str, line: Line) -> None:
    """Check what can be checked before the recipe is known: each flag and kind must exist in some form.

    Raises:
        SettingsError: with what to type instead.
    """
    every = every_flag(command)
    known: dict[str, list[Flag]] = {}
    choices: dict[str, set[str]] = {}
    for each in every:
        if isinstance(each, Choice):
            choices.setdefault(each.path, set()).update(each.kinds)
        elif not each.positional:
            known.setdefault(each.path, []).append(each)
    _check_words(command, line)
    for path, kind in line.kinds.items():
        if kind not in choices.get(path, ()):
            raise unknown_kind(path, kind, choices)
    aliases = aliases_of(command)
    for name, words in line.flags.items():
        if name in aliases:
            _present(name, words, aliases[name])
            check_alias(command, name, words[0])
            if name in SINGLE:
                _check_any(known[stands_for(name)], words, f"--{name}")
        elif name not in known:
            raise unknown_flag(command, name, words, every)
        else:
            _check_any(known[name], words, f"--{name}")


def read(command: str, line: Line, start: Values) -> Values:
    """The values of a command, for `unmask.spec.from_json`.

    Args:
        command: the command.
        line: its command line.
        start: the values that the flags change, with every choice filled in (`unmask.spec.to_json`).

    Raises:
        SettingsError: with what to type instead.
    """
    check(command, line)
    typed_as = {stands_for(name): name for name in aliases_of(command) if name in line.flags}
    line = with_aliases(command, line, start)
    flags = flags_of(command, start, line.kinds)
    choices = {each.path: set(each.kinds) for each in flags if isinstance(each, Choice)}
    for path, kind in line.kinds.items():
        if kind not in choices.get(path, ()):
            raise unknown_kind(path, kind, choices, every_flag(command))
    named = {each.path for each in flags if isinstance(each, Flag) and not each.positional}
    for name, words in line.flags.items():
        if name not in named:
            raise unknown_flag(command, name, words, flags)
    values = copy.deepcopy(start)
    words = list(line.words)
    for each in flags:
        if isinstance(each, Choice):
            _choose(values, each)
        elif each.positional:
            _put(values, each.keys, _word(command, each, words))
        elif each.path in line.flags:
            name = f"--{typed_as.get(each.path, each.path)}"
            _put(values, each.keys, value_of(each, line.flags[each.path], name))
        elif each.default is REQUIRED:
            owner = each.under[-1] if each.under else f"`unmask {command}`"
            choices = f" {each.metavar}" if each.choices else ""
            text = each.help[0].lower() + each.help[1:].rstrip(".")
            raise SettingsError(f"{owner} needs --{each.path}{choices}: {text}")
        else:
            _put(values, each.keys, each.default)
    return values


def value_of(flag: Flag, words: list[str], name: str) -> Any:
    """The value that the words of a flag mean; `name` is the flag as it was typed.

    Raises:
        SettingsError: for a missing value, for one of another type, and for a number outside its range.
    """
    if flag.type == "bool":
        if words and words[0].lower() not in _SWITCH:
            raise SettingsError(f"{name} is a switch: {name}, or {name}=false to turn it off")
        return _SWITCH[words[0].lower()] if words else True
    _present(name[2:], words, flag.metavar)
    if flag.many:
        words = words if flag.type == "str" else words[0].split(",")
    elif len(words) != flag.count:
        raise SettingsError(f"{name} needs {flag.count} values: {name} {flag.metavar}")
    if flag.optional and words == ["None"]:
        return None
    values = [_value(flag, word, name) for word in words]
    for value in values:
        check_ranges(flag, name, value)
    return values if flag.many or flag.count > 1 else values[0]


def check_ranges(flag: Flag, name: str, value: Any) -> None:
    """Check a number, or each side of a size, against the ranges of a flag.

    Raises:
        SettingsError: with the name that was typed.
    """
    for one in value if isinstance(value, list) else [value]:
        for interval, usual in flag.ranges:
            if refusal := outside(name, one, interval, usual):
                raise SettingsError(refusal)


def _value(flag: Flag, word: str, name: str) -> Any:
    if flag.type == "choice":
        if word not in flag.choices:
            question = other_choice(word, flag.choices)
            meant = f"; did you mean {question}?" if question else ""
            raise SettingsError(
                f"{name} must be one of {', '.join(flag.choices)}, got {word!r}{meant}"
            )
        return word
    if flag.path == "device":
        device_name(word)
        return word
    if flag.type == "size":
        if not _SIZE.fullmatch(word):
            raise SettingsError(
                f"{name} must be one number or HEIGHTxWIDTH, such as 224 or 192x320; got {word!r}"
            )
        height, _, width = word.lower().partition("x")
        return [int(height), int(width or height)]
    if flag.type in ("int", "float"):
        try:
            return int(word) if flag.type == "int" else float(word)
        except ValueError:
            kind = "a whole number" if flag.type == "int" else "a number"
            raise SettingsError(f"{name} must be {kind}, got {word!r}") from None
    return word


def _present(name: str, words: list[str], metavar: str) -> None:
    if not words or not words[0].strip():
        empty = ", and got an empty one" if words else ""
        raise SettingsError(f"--{name} needs a value{empty}: --{name} {metavar}")


def _check_any(flags: list[Flag], words: list[str], name: str) -> None:
    """Check a value against a flag that may have several types, under different kinds."""
    errors: list[SettingsError] = []
    for flag in flags:
        try:
            value_of(flag, words, name)
        except SettingsError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _check_words(command: str, line: Line) -> None:
    """Refuse words that are settings, short flags, too many, or in the wrong order."""
    own = [each for each in every_flag(command) if isinstance(each, Flag) and each.positional]
    named = {each.path for each in own}
    flags = {each.path for each in every_flag(command)} | set(aliases_of(command))
    settings = {word: match for word in line.words if (match := _SETTING.fullmatch(word))}
    found = {
        word: match
        for word, match in settings.items()
        if not is_file(word) and match[1].replace("_", "-").lower() in flags
    }
    if found:
        words = [word for word in line.words if word not in found]
        words += [match[2] for match in found.values() if match[1].lower() in named]
        for match in found.values():
            if match[1].lower() not in named:
                words += [f"--{match[1].replace('_', '-')}", match[2]]
        raise SettingsError(
            f"{next(iter(found))}: settings are written with dashes, not with =: {typed(command, *words)}"
        )
    for word in line.words:
        if not word.strip():
            raise SettingsError(
                f"a word of the command line is empty, perhaps from a variable that is not set; `unmask {command}` takes "
                f"{' '.join(each.metavar for each in own) or 'no words, only flags'}; write . for the current folder"
            )
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(word).parts):
            raise SettingsError(f"{word[:40]}... is too long for the name of a file")
        if word.startswith("-") and len(word) > 1:
            raise SettingsError(
                f"{word} is not a flag; flags have two dashes, see `unmask {command} --help`"
            )
    check_order(command, own, line)
    if len(line.words) > len(own) and not any(each.many for each in own):
        takes = " ".join(each.metavar for each in own) or "no words, only flags"
        images = ""
        if not own and "data" in flags:
            images = f"; give images as --data {shlex.quote(line.words[0])}"
        raise SettingsError(
            f"unexpected argument {line.words[len(own)]!r}; `unmask {command}` takes {takes}{images}"
        )


def _word(command: str, flag: Flag, words: list[str]) -> Any:
    """The next word of a command line, or all that are left."""
    if flag.many:
        rest = list(words)
        words.clear()
        return rest
    if words:
        return words.pop(0)
    if flag.default is REQUIRED:
        own = [each for each in flags_of(command) if isinstance(each, Flag) and each.positional]
        order = " ".join(each.metavar for each in own)
        raise SettingsError(f"{flag.metavar} is missing: unmask {command} {order}")
    return flag.default


def _choose(values: Values, choice: Choice) -> None:
    place = _place(values, choice.keys)
    present = place.get(choice.keys[-1])
    if not isinstance(present, dict) or present.get("kind") != choice.kind:
        place[choice.keys[-1]] = None if choice.kind is None else {"kind": choice.kind}


def _put(values: Values, keys: tuple[str, ...], value: Any) -> None:
    _place(values, keys)[keys[-1]] = value


def _place(values: Values, keys: tuple[str, ...]) -> Values:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    return values
