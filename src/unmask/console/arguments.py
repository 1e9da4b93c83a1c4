"""Specs as command-line flags: the recipe gives the defaults, flags change single values.

The flags themselves are in a table (`flag_table.py`), so DATA and `--recipe` can be read before the recipe is known.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import tyro

from unmask.console.aliases import in_full
from unmask.console.as_flags import as_flags
from unmask.console.command_line import split
from unmask.console.flag_values import read
from unmask.console.help_text import help_of
from unmask.data import AnySource
from unmask.data.band_files import BandReading
from unmask.data.ground_map import GroundReading
from unmask.data.kinds import find_source, parse_bands, parse_channels, parse_numbers
from unmask.errors import SettingsError
from unmask.spec import from_json, to_json, within

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Flags that say how to read DATA."""

    data_kind: str | None = None
    """Format of DATA (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc, ground-map); detected if not given."""

    channels: str | None = None
    """Channels of multi-band images to use, counted from 1, such as 4,3,2; all if not given."""

    no_data: float | None = None
    """The value that marks missing pixels in multi-band images; GeoTIFFs state their own."""

    frames: Literal["pictures", "bands"] | None = None
    """Whether frames (time, depth) and pages of TIFF files are images or bands; as the file's axes say if not given."""

    bands: str | None = None
    """Words in the names of files that hold one band each, such as B02,B03,B04: these are stacked to one image."""

    tile_metres: tuple[float, ...] = ()
    """Of a map: ground sizes of its tiles in metres, such as 60,120; that of 224 pixels if not given."""

    tile_overlap: float = 0.5
    """Of a map: share of a tile's side by which neighbours overlap."""

    crs: str | None = None
    """Of a map: the reference system of its world file or corners, such as EPSG:32651."""

    corners: str | None = None
    """Of a map: latitude and longitude of its top left and bottom right corner, or of all four, clockwise."""

    tms: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of a map in web tiles: rows count from the south."""

    map_zoom: int | None = None
    """Of a map in web tiles: the zoom to use; the finest if not given."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "tile_metres")
        within(self, "[0, 1)", "tile_overlap")
        within(self, "[0, 30]", "map_zoom")

    def ground(self) -> GroundReading:
        """How a map is cut."""
        return GroundReading(
            tile_metres=self.tile_metres,
            tile_overlap=self.tile_overlap,
            crs=self.crs,
            corners=parse_numbers(self.corners, "--corners"),
            tms=self.tms,
            map_zoom=self.map_zoom,
        )

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
        return int(seed) if seed.isdecimal() else 0  # another value is refused later, by `parse`

    def source(self, like: BandReading | None = None) -> AnySource:
        """The images that DATA and its flags name; the reading of another run holds where no flag is given."""
        asked: dict[str, Any] = {}
        if "channels" in self.flags:
            asked["channels"] = parse_channels(self.flags["channels"])
        if "no-data" in self.flags:
            asked["no_data"] = _number(self.flags["no-data"])
        if "frames" in self.flags:
            asked["frames"] = self.flags["frames"]  # another word is refused later, by `parse`
        if "bands" in self.flags:
            asked["bands"] = parse_bands(self.flags["bands"])
        how = replace(like or BandReading(), **asked) if asked else BandReading()
        ground = _ground(self.flags)
        return find_source(
            self.words[0], self.flags.get("data-kind"), how, like=like, ground=ground
        )


def _ground(flags: dict[str, str]) -> GroundReading:
    """How a map is cut, by flags that are not yet checked."""
    zoom, overlap = (parse_numbers(flags.get(n), f"--{n}") for n in ("map-zoom", "tile-overlap"))
    return DataFlags(
        tile_metres=parse_numbers(flags.get("tile-metres"), "--tile-metres"),
        tile_overlap=overlap[0] if overlap else GroundReading().tile_overlap,
        crs=flags.get("crs"),
        corners=flags.get("corners"),
        tms=flags.get("tms") == "True",
        map_zoom=int(zoom[0]) if zoom else None,
    ).ground()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"--no-data must be a number, got {text!r}") from None


def peek(arguments: list[str]) -> Peek:
    """Sort a command line into words and flags; `--flag value` and `--flag=value` are the same.

    Words that choose kinds of settings are dropped, unless a file has that name. An alias is there under both names.

    Raises:
        SettingsError: for a file whose name looks like a flag.
    """
    line = split(arguments)
    flags = {name: " ".join(words) if words else "True" for name, words in line.flags.items()}
    return Peek(line.words, flags | in_full(flags), line.help)


def parse(cls: type[T], arguments: list[str], command: str, default: T | None = None) -> T:
    """Read flags into `cls`, starting from a default; with --help, print the help and exit.

    Raises:
        SettingsError: with the flag that is wrong and what to type instead.
    """
    line = split(arguments, command)
    start = {} if default is None else to_json(default)
    if line.help:
        if not {"recipe", "like"} & line.flags.keys():
            start.pop("recipe", None)  # the recipe will be chosen, so its numbers are not known
        print(help_of(command, start, every=line.help_all))
        raise SystemExit(0)
    values = read(command, line, start)
    try:
        return from_json(cls, values)
    except SettingsError as error:
        raise as_flags(error, command, line) from None
