"""`unmask locate PLACES IMAGE...`: where on a map pictures were taken."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import Shaped
from torch import Tensor

from unmask.console.arguments import parse
from unmask.console.bars import progress_on
from unmask.console.hardware import Threads, use_threads
from unmask.console.on_map import (
    Known,
    as_geojson,
    as_json,
    is_fix,
    parse_near,
    say_beliefs,
    say_calibration,
    width_of,
)
from unmask.console.output import check_writable, console, notes, writing
from unmask.contracts import Size
from unmask.data.ground_map import MapTiles
from unmask.errors import SettingsError
from unmask.files import write_text
from unmask.pictures.drawing import drawn
from unmask.pictures.score_field import Panel, draw_fields
from unmask.places.calibration import Calibration, calibrated
from unmask.places.locating import (
    TURNS,
    Beliefs,
    Located,
    Near,
    cells_near,
    field_for,
    grid_for,
    judged,
)
from unmask.places.opened import OpenedPlaces, map_of, open_places, with_look
from unmask.spec import within
from unmask.training.hardware import find_device

_PICTURE = "located.png"
_MOST_PANELS = 12
_OVERVIEW = 900  # pixels


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask locate`."""

    places: tyro.conf.Positional[str]
    """A folder that `unmask embed ENCODER MAP` made."""

    images: tyro.conf.Positional[tuple[str, ...]] = ()
    """Pictures from straight above whose places are wanted."""

    ground_size: float | None = None
    """Width of a picture on the ground, in metres."""

    height: float | None = None
    """Height of the camera above the ground in metres, in place of --ground-size."""

    fov: float | None = None
    """Field of view across a picture's width, in degrees; from the focal length in EXIF if not given."""

    heading: float | None = None
    """Compass direction of a picture's upper edge, in degrees from north over east."""

    turns: int = TURNS
    """How many directions are tried if no heading is given."""

    near: str | None = None
    """LATITUDE,LONGITUDE,RADIUS: look only within a radius in metres."""

    k: int = 3
    """How many places of each picture."""

    encoder: str | None = None
    """Where the encoder is now, if it is not where it was."""

    out: str | None = None
    """The picture of scores on the map; located.png if not given."""

    geojson: str | None = None
    """A file for the places as GeoJSON."""

    device: str = "cpu"
    """Where the pictures are encoded: cpu, cuda (or gpu), cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print places as JSON; a picture is drawn only with --out."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "ground_size", "height")
        within(self, "(0, 180)", "fov")
        within(self, "[-360, 360]", "heading")
        within(self, "[4, 360]", "turns")
        within(self, "[1, inf)", "k", "threads")


class Query(NamedTuple):
    """A picture and what is believed of it."""

    name: str
    image: Shaped[Tensor, "c h w"]
    beliefs: Beliefs
    source: str
    """Where its ground size comes from."""

    @property
    def size(self) -> Size:
        """In pixels."""
        return Size(*self.image.shape[-2:])


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "locate")
    near = parse_near(args.near)
    if not args.images:
        raise SettingsError("which pictures? `unmask locate PLACES a.jpg b.jpg`")
    picture = Path(args.out or _PICTURE) if args.out or not args.json else None
    for path in (picture, args.geojson):
        if path is not None:
            check_writable(Path(path))
    use_threads(args.threads)
    with progress_on(notes):
        opened = open_places(
            Path(args.places).expanduser(), args.encoder, str(find_device(args.device))
        )
        tiles = map_of(opened)
        if isinstance(tiles, MapTiles):
            opened = with_look(opened, tiles)
        answers: list[tuple[Query, Located, bool | None]] = []
        said: set[Any] = set()
        for name in args.images:
            query = _query(args, opened, name)
            calibration = _calibration(opened, tiles, query)
            if not args.json:
                _say_once(said, opened, query, calibration, tiles)
            located = _located(opened, query, args.k, near)
            answers.append((query, located, is_fix(located, calibration)))
    results = [as_json(query.name, located, fix, args.k) for query, located, fix in answers]
    if args.json:
        print(json.dumps({"places": args.places, "queries": results}, indent=1))
    else:
        for result in results:
            _say(result)
    if args.geojson:
        with writing(Path(args.geojson)):
            write_text(Path(args.geojson), json.dumps(as_geojson(results), indent=1) + "\n")
    if picture is not None:
        _draw(opened, tiles, answers, args.k, picture, args.json)
    return 0


def _query(args: Arguments, opened: OpenedPlaces, name: str) -> Query:
    image = opened.model.read(name)
    size = Size(*image.shape[-2:])
    known = Known(args.ground_size, args.height, args.fov)
    width, source = width_of(Path(name), size, known)
    return Query(name, image, Beliefs(width, args.heading, args.turns), source)


def _calibration(opened: OpenedPlaces, tiles: MapTiles | str, query: Query) -> Calibration | None:
    if isinstance(tiles, str):
        return None
    return calibrated(opened, tiles, query.size, query.beliefs)


def _say_once(
    said: set[Any],
    opened: OpenedPlaces,
    query: Query,
    calibration: Calibration | None,
    tiles: MapTiles | str,
) -> None:
    """Print what holds for several pictures before the first of them."""
    facts = (query.beliefs, query.source, calibration)
    if facts in said:
        return
    said.add(facts)
    grid = grid_for(opened, query.size, query.beliefs)
    console.print(f"tiles     {int((grid.rows >= 0).sum()):,} of {grid.metres:g} m")
    say_beliefs(query.beliefs, query.size, grid.metres, query.source)
    say_calibration(calibration, tiles if isinstance(tiles, str) else "")


def _located(opened: OpenedPlaces, query: Query, count: int, near: Near | None) -> Located:
    field = field_for(opened, query.image, query.beliefs)
    return judged(field, count, None if near is None else cells_near(opened, field.grid, near))


def _say(result: dict[str, Any]) -> None:
    """Print the places of a picture, a line each."""
    verdict = {True: "fix", False: "no fix", None: "no verdict"}[result["fix"]]
    console.result(f"{result['image']}: {verdict}, margin {result['margin']:.3f}")
    for place in result["places"]:
        console.result(f"  {place['score']:.3f}  {place['latitude']:.6f}, {place['longitude']:.6f}")


def _draw(
    opened: OpenedPlaces,
    tiles: MapTiles | str,
    answers: list[tuple[Query, Located, bool | None]],
    count: int,
    path: Path,
    quiet: bool,
) -> None:
    """Draw the scores of the first pictures over the map."""
    if isinstance(tiles, str):
        notes.note(f"no picture is drawn, because the map cannot be read ({tiles})")
        return
    statistics = opened.model.spec.statistics
    overview = tiles.overview(_OVERVIEW).float() / (255 if statistics.values == "uint8" else 1)
    if statistics.values != "uint8":
        low, high = np.nanquantile(overview.numpy(), [0.02, 0.98]).tolist()
        overview = (overview - low) / max(high - low, 1e-9)
    panels = [_panel(tiles, query, located, fix, count) for query, located, fix in answers]
    size = (tiles.raster.size.width, tiles.raster.size.height)
    with writing(path):
        note = drawn(path, lambda file: draw_fields(overview, size, panels[:_MOST_PANELS], file))
    if note:
        notes.note(note)
    elif not quiet:
        console.print(f"written: {path}")


def _panel(tiles: MapTiles, query: Query, located: Located, fix: bool | None, count: int) -> Panel:
    grid = located.field.grid
    corners = [grid.degrees(*cell) for cell in ((0, 0), (0, 1), (1, 0))]
    first, right, below = tiles.georeference.to_pixels(np.array(corners))
    places = tiles.georeference.to_pixels(np.array(located.degrees[:count]))
    verdict = {True: "fix", False: "no fix", None: "no verdict"}[fix]
    return Panel(
        f"{Path(query.name).name}: {verdict}",
        located.field.scores,
        (float(first[0]), float(first[1])),
        (float(right[0] - first[0]), float(below[1] - first[1])),
        [(float(x), float(y)) for x, y in places],
    )
