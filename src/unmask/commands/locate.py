"""`unmask locate PLACES IMAGE...`: where on a map pictures were taken."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from unmask.console.arguments import parse
from unmask.console.bars import progress_on
from unmask.console.geojson import places_as_features
from unmask.console.hardware import Threads, use_threads
from unmask.console.on_map import (
    Known,
    as_json,
    check_angle,
    elsewhere,
    is_fix,
    near_gps,
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
from unmask.places.field import Field
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
from unmask.places.track import on_track, smoothed
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

    prior_from_exif: float | None = None
    """Look only within so many metres of a picture's GPS position in EXIF, which is otherwise never read."""

    sequence: float | None = None
    """The pictures are in order of flight, at most so many metres apart: find their track."""

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
        within(self, "(0, inf)", "ground_size", "height", "prior_from_exif", "sequence")
        within(self, "(0, 180)", "fov")
        within(self, "[-360, 360]", "heading")
        within(self, "[4, 360]", "turns")
        within(self, "[1, inf)", "k", "threads")


class Query(NamedTuple):
    """What is believed of a picture; its pixels are not kept, since a flight has hundreds."""

    name: str
    size: Size
    """In pixels."""
    beliefs: Beliefs
    source: str
    """Where its ground size comes from."""
    near: Near | None
    """Where it was taken at most, if something is known."""


class Asked(NamedTuple):
    """A picture that is compared with the map."""

    number: int
    """Its place among all pictures, of which some may be refused."""
    query: Query
    field: Field
    calibration: Calibration | None


class Answer(NamedTuple):
    """Where a picture may have been taken."""

    query: Query
    located: Located
    fix: bool | None


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "locate")
    near = parse_near(args.near)
    if near is not None and args.prior_from_exif is not None:
        raise SettingsError("--near and --prior-from-exif both say where to look; leave one out")
    if args.ground_size is not None and (args.height is not None or args.fov is not None):
        raise SettingsError(
            "--ground-size says how wide the pictures are, and so do --height and --fov; leave out one of the two"
        )
    if not args.images:
        raise SettingsError("which pictures? `unmask locate PLACES a.jpg b.jpg`")
    known = Known(args.ground_size, args.height, args.fov)
    check_angle(known, [(Path(name), None) for name in args.images])
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
        asked, refused = _compared(args, opened, tiles, near)
        answers = [_judged(opened, one, one.field, args.k) for one in asked]
        if args.sequence is not None and asked:
            answers = _on_track(opened, asked, answers, args.sequence, args.k)
    found = iter(answers)
    results = [
        refused[number] if number in refused else as_json(name, *next(found)[1:], args.k)
        for number, name in enumerate(args.images)
    ]
    if args.json:
        print(json.dumps({"places": args.places, "queries": results}, indent=1))
    else:
        for result in results:
            _say(result)
    if args.geojson:
        with writing(Path(args.geojson)):
            write_text(Path(args.geojson), json.dumps(places_as_features(results), indent=1) + "\n")
    if picture is not None and answers:
        _draw(opened, tiles, answers, args.k, picture, args.json)
    return 0


def _compared(
    args: Arguments, opened: OpenedPlaces, tiles: MapTiles | str, near: Near | None
) -> tuple[list[Asked], dict[int, dict[str, Any]]]:
    """The pictures compared with the map, and the answers, by number, for those whose own GPS position leaves no tile."""
    priors = [near] * len(args.images)
    if args.prior_from_exif is not None:
        priors = near_gps([Path(name) for name in args.images], args.prior_from_exif)
    said: set[Any] = set()
    asked: list[Asked] = []
    refused: dict[int, dict[str, Any]] = {}
    for number, (name, prior) in enumerate(zip(args.images, priors, strict=True)):
        image = opened.model.read(name)
        query = _query(args, name, Size(*image.shape[-2:]), prior)
        if near is None and prior is not None and not _leaves_tiles(opened, query, prior):
            refused[number] = elsewhere(name, prior)
            continue
        calibration = _calibration(opened, tiles, query)
        if not args.json:
            _say_once(said, opened, query, calibration, tiles)
        field = field_for(opened, image, query.beliefs)
        asked.append(Asked(number, query, field, calibration))
    return asked, refused


def _query(args: Arguments, name: str, size: Size, near: Near | None) -> Query:
    known = Known(args.ground_size, args.height, args.fov)
    width, source = width_of(Path(name), size, known)
    return Query(name, size, Beliefs(width, args.heading, args.turns), source, near)


def _leaves_tiles(opened: OpenedPlaces, query: Query, near: Near) -> bool:
    """Whether there are tiles where a picture was taken at most."""
    grid = grid_for(opened, query.size, query.beliefs)
    return bool(cells_near(opened, grid, near).any())


def _calibration(opened: OpenedPlaces, tiles: MapTiles | str, query: Query) -> Calibration | None:
    if isinstance(tiles, str):
        return None
    radius = None if query.near is None else query.near.radius
    return calibrated(opened, tiles, query.size, query.beliefs, radius)


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
    radius = None if query.near is None else query.near.radius
    say_calibration(calibration, tiles if isinstance(tiles, str) else "", radius, grid.metres)


def _judged(opened: OpenedPlaces, one: Asked, field: Field, count: int) -> Answer:
    near = one.query.near
    allowed = None if near is None else cells_near(opened, field.grid, near)
    located = judged(field, count, allowed)
    return Answer(one.query, located, is_fix(located, one.calibration))


def _on_track(
    opened: OpenedPlaces, asked: list[Asked], alone: list[Answer], metres: float, count: int
) -> list[Answer]:
    """The answers of the best track through all pictures.

    The threshold is of single pictures, so what is a fix on a track follows from those (`on_track`).
    """
    if len({id(one.field.grid) for one in asked}) > 1:
        raise SettingsError(
            "the pictures of a sequence are compared with tiles of several sizes; embed the map with one of --tile-metres, or give "
            "pictures of about one size on the ground"
        )
    fields = [one.field for one in asked]
    for number, one in enumerate(asked):
        if one.query.near is not None:
            grid = one.field.grid
            allowed = cells_near(opened, grid, one.query.near)
            scores = np.where(allowed, one.field.scores, -np.inf).astype(np.float32)
            fields[number] = one.field._replace(scores=scores)
    smooth = smoothed(fields, metres, [one.number for one in asked])
    if not np.isfinite(smooth[0].scores).any():
        raise SettingsError(
            f"no track with steps of up to {metres:g} m goes through all pictures; take a larger --sequence, or another prior"
        )
    answers = [_judged(opened, one, field, count) for one, field in zip(asked, smooth, strict=True)]
    fixes = on_track([(a.located, a.fix) for a in alone], [answer.located for answer in answers])
    return [answer._replace(fix=fix) for answer, fix in zip(answers, fixes, strict=True)]


def _say(result: dict[str, Any]) -> None:
    """Print the places of a picture, a line each."""
    verdict = {True: "fix", False: "no fix", None: "no verdict"}[result["fix"]]
    reason = result.get("reason") or f"margin {result['margin']:.3f}"
    console.result(f"{result['image']}: {verdict}, {reason}")
    for place in result["places"]:
        console.result(f"  {place['score']:.3f}  {place['latitude']:.6f}, {place['longitude']:.6f}")


def _draw(
    opened: OpenedPlaces,
    tiles: MapTiles | str,
    answers: list[Answer],
    count: int,
    path: Path,
    quiet: bool,
) -> None:
    """Draw the scores of the first pictures over the map."""
    if isinstance(tiles, str):
        notes.note(f"no picture is drawn, because the map cannot be read ({tiles})")
        return
    statistics = opened.model.spec.statistics
    overview = tiles.overview(_OVERVIEW) / (255 if statistics.values == "uint8" else 1)
    if statistics.values != "uint8":
        low, high = np.nanquantile(overview.numpy(), [0.02, 0.98]).tolist()
        overview = (overview - low) / max(high - low, 1e-9)
    shown = answers[:_MOST_PANELS]
    panels = [_panel(tiles, query, located, fix, count) for query, located, fix in shown]
    size = (tiles.raster.size.width, tiles.raster.size.height)
    with writing(path):
        note = drawn(path, lambda file: draw_fields(overview, size, panels, file))
    if note:
        notes.note(note)
        return
    if len(shown) < len(answers):
        notes.note(f"{path} shows the first {len(shown)} of {len(answers):,} pictures")
    if not quiet:
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
