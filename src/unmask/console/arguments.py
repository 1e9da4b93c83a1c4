"""Specs as command-line flags, by tyro: the recipe gives the defaults, flags change single values.

Every flag but a switch takes one value, so that DATA and `--recipe` can be found before the flags are known.
"""

import re
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import tyro

from unmask.contracts import Size
from unmask.data import AnySource, Digits
from unmask.errors import SettingsError
from unmask.spec import kinds

T = TypeVar("T")

_SWITCHES = {"shard", "no-shard", "json", "no-json"}
"""Flags without a value."""

_KIND = re.compile(r"[a-z_.-]+:[a-z0-9-]+")
"""Chooses a kind of a setting, such as objective.masking:block."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Flags that say what DATA holds."""

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    channels: str | None = None
    """Channels of multi-band images to take, counted from 1, such as 4,3,2; all if not given."""

    no_data: float | None = None
    """The value of multi-band images that means that there is none; GeoTIFFs say so themselves."""


class Peek(NamedTuple):
    """The words that name data, and the flags, of a command line before it is parsed."""

    words: list[str]
    flags: dict[str, str]
    help: bool


def peek(arguments: list[str]) -> Peek:
    """Sort a command line into words and flags; `--flag value` and `--flag=value` are the same.

    Words that choose kinds of settings are left out, unless a file has that name.
    """
    words: list[str] = []
    flags: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            name = name.replace("_", "-")
            switch = "True" if name in _SWITCHES else None
            flags[name] = value if equals else switch or next(rest, "")
        elif not _KIND.fullmatch(argument) or Path(argument).exists():
            words.append(argument)
    return Peek(words, flags, bool({"-h", "--help"} & set(arguments)))


def parse(
    cls: type[T], arguments: list[str], command: str, about: str, default: T | None = None
) -> T:
    """Read flags into `cls`, starting from a default; tyro explains what it cannot read and exits."""
    _name_kinds(cls)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_size_rule)
    given: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        cls,
        prog=f"unmask {command}",
        description=about,
        args=arguments,
        config=(tyro.conf.CascadeSubcommandArgs,),
        registry=registry,
        **given,
    )


def _size_rule(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    if info.type is not Size:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="SIDE|HEIGHTxWIDTH",
        instance_from_str=lambda words: Size.parse(words[0]),
        is_instance=lambda value: isinstance(value, Size),
        str_from_instance=lambda size: [str(size)],
    )


def _name_kinds(cls: type) -> None:
    """Give tyro the public names of all kinds below a dataclass."""
    for kind in get_type_hints(cls, include_extras=True).values():
        for name, member in kinds(kind).items():
            if "__tyro_markers__" not in member.__dict__:
                tyro.conf.configure(tyro.conf.subcommand(name))(member)
            _name_kinds(member)
        inner = getattr(kind, "__origin__", kind)
        if is_dataclass(inner) and isinstance(inner, type) and not kinds(kind) and fields(inner):
            _name_kinds(inner)


def number(flag: str, text: str) -> float:
    """The number that a flag was given, before the others are parsed."""
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"{flag} is a number, got {text!r}") from None


def as_typed(data: AnySource) -> str:
    """DATA as a user writes it."""
    return "digits" if isinstance(data, Digits) else data.path
