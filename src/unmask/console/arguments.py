"""Specs as command-line flags, by tyro: the recipe gives the defaults, flags change single values.

Every flag except a switch takes exactly one value. So DATA and `--recipe` can be read before tyro knows the flags.
"""

import re
import shlex
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import tyro

from unmask.contracts import Size
from unmask.data import AnySource
from unmask.data.band_files import BandReading
from unmask.data.kinds import find_source, parse_bands, parse_channels
from unmask.errors import SettingsError, typed
from unmask.spec import kinds

T = TypeVar("T")

_SWITCHES = {"shard", "no-shard", "json", "no-json", "no-report"}
"""Flags without a value."""

_KIND = re.compile(r"[a-z_.-]+:[a-z0-9-]+")
"""A word that chooses the kind of a setting, such as objective.masking:block."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Flags that say how to read DATA."""

    data_kind: str | None = None
    """Format of DATA (folder, shards, parquet, tiff, digits); detected if not given."""

    channels: str | None = None
    """Channels of multi-band images to use, counted from 1, such as 4,3,2; all if not given."""

    no_data: float | None = None
    """The value that marks missing pixels in multi-band images; GeoTIFFs state their own."""

    frames: Literal["pictures", "bands"] | None = None
    """Whether frames (time, depth) and pages of TIFF files are images or bands; as the file's axes say if not given."""

    bands: str | None = None
    """Words in the names of files that hold one band each, such as B02,B03,B04: these are stacked to one image."""

    def reading(self) -> BandReading:
        """How multi-band images are read."""
        return BandReading(
            channels=parse_channels(self.channels),
            no_data=self.no_data,
            frames=self.frames,
            bands=parse_bands(self.bands),
        )


class Peek(NamedTuple):
    """The positional words and the flags of a command line, before it is parsed."""

    words: list[str]
    flags: dict[str, str]
    help: bool

    @property
    def seed(self) -> int:
        """The value of --seed, which also divides images into training and test images."""
        seed = self.flags.get("seed", "0")
        return int(seed) if seed.isdecimal() else 0  # another value is refused later, by tyro

    def source(self, like: BandReading | None = None) -> AnySource:
        """The images that DATA and its flags name; the reading of another run holds where no flag is given."""
        asked: dict[str, Any] = {}
        if "channels" in self.flags:
            asked["channels"] = parse_channels(self.flags["channels"])
        if "no-data" in self.flags:
            asked["no_data"] = _number(self.flags["no-data"])
        if "frames" in self.flags:
            asked["frames"] = self.flags["frames"]  # another word is refused later, by tyro
        if "bands" in self.flags:
            asked["bands"] = parse_bands(self.flags["bands"])
        how = replace(like or BandReading(), **asked) if asked else BandReading()
        return find_source(self.words[0], self.flags.get("data-kind"), how, like=like)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"--no-data must be a number, got {text!r}") from None


def peek(arguments: list[str]) -> Peek:
    """Sort a command line into words and flags; `--flag value` and `--flag=value` are the same.

    Words that choose kinds of settings are dropped, unless a file has that name.
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
    cls: type[T], arguments: list[str], command: str, description: str, default: T | None = None
) -> T:
    """Read flags into `cls`, starting from a default; on an error tyro prints an explanation and exits."""
    check_words(arguments, command)
    _name_kinds(cls)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_size_rule)
    defaults: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        cls,
        prog=f"unmask {command}",
        description=description,
        args=arguments,
        config=(tyro.conf.CascadeSubcommandArgs,),
        registry=registry,
        **defaults,
    )


def check_words(arguments: list[str], command: str) -> None:
    """Refuse --data, where DATA is a word without a flag, and files whose names look like flags.

    Raises:
        SettingsError: with what to type.
    """
    for argument in arguments:
        if argument == "--":  # all that follows are words
            break
        # a name with two dashes and no ending is a flag, whatever file has that name too
        is_flag = argument.startswith("--") and "." not in argument
        if argument.startswith("-") and not is_flag and Path(argument).exists():
            raise SettingsError(
                f"{argument} looks like a flag; for the file of that name, write {shlex.quote('./' + argument)}"
            )
    value = peek(arguments).flags.get("data")
    if value is not None and command != "bench":
        raise SettingsError(
            f"DATA has no flag: write {typed(command, '...', value)} without --data"
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
    """Tell tyro the public names of all kinds inside a dataclass."""
    for kind in get_type_hints(cls, include_extras=True).values():
        for name, member in kinds(kind).items():
            if "__tyro_markers__" not in member.__dict__:
                tyro.conf.configure(tyro.conf.subcommand(name))(member)
            _name_kinds(member)
        inner = getattr(kind, "__origin__", kind)
        if is_dataclass(inner) and isinstance(inner, type) and not kinds(kind) and fields(inner):
            _name_kinds(inner)
