"""`unmask evaluate PLACES --queries FILE`: how well pictures are located, beside controls and chance."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from unmask.console.bars import progress_on
from unmask.console.learned_queries import refuse_learned, say_unknown_start
from unmask.console.on_map import Known, check_angle, width_of
from unmask.console.output import check_writable, console, notes, writing
from unmask.console.place_queries import PlaceQueries, PlaceQuery, read_queries
from unmask.contracts import Size
from unmask.data import GroundMap
from unmask.data.ground_map import MapTiles
from unmask.errors import DataError, listed
from unmask.files import write_text
from unmask.geo.distance import metres_between
from unmask.places.calibration import Calibration, calibrated, measured
from unmask.places.controls import raw, untrained
from unmask.places.locating import Beliefs, field_for, grid_for, judged
from unmask.places.opened import OpenedPlaces, map_of, open_places, with_look
from unmask.places.scores import RANKS, Answer, Guess, PlacesScore, chance, score
from unmask.progress import counted


class PlacesRequest(NamedTuple):
    """What the flags ask for."""

    places: str
    queries: str
    known: Known
    headings: bool
    """Whether the column of headings is used."""
    controls: bool
    device: str
    out: str | None
    json: bool


class _Ready(NamedTuple):
    """A query that is read."""

    query: PlaceQuery
    image: Shaped[Tensor, "c h w"]
    beliefs: Beliefs

    @property
    def size(self) -> Size:
        return Size(*self.image.shape[-2:])


def evaluate_places(request: PlacesRequest) -> int:
    """Score the answers, print and write them."""
    path = Path(request.out) if request.out else _default_out(request)
    check_writable(path)
    with progress_on(notes):
        opened = open_places(Path(request.places).expanduser(), None, request.device)
        tiles = map_of(opened)
        if isinstance(tiles, str):
            raise DataError(f"the map cannot be read ({tiles}), and controls need it")
        opened = with_look(opened, tiles)
        queries = read_queries(Path(request.queries).expanduser(), tiles)
        say_unknown_start(opened.model)
        refuse_learned(opened.model.learned_from, [one.path for one in queries.rows])
        unknown = [(one.path, one.height) for one in queries.rows if one.width is None]
        check_angle(request.known, unknown)
        _say_far(tiles, queries)
        ready = [_ready(opened, one, request) for one in queries.rows]
        scores = [_scored("the encoder", opened, tiles, ready, calibrated)]
        if request.controls:
            scores.append(_scored("untrained", untrained(opened, tiles), tiles, ready, measured))
            scores.append(_scored("raw pixels", raw(opened, tiles), tiles, ready, measured))
    grids = [grid_for(opened, one.size, one.beliefs) for one in ready]
    scores.append(
        chance(
            [
                Guess(
                    one.query.degrees,
                    opened.places.degrees[grid.rows[grid.rows >= 0]],
                    grid.metres / 2,
                )
                for one, grid in zip(ready, grids, strict=True)
            ]
        )
    )
    sizes = sorted({grid.metres for grid in grids})
    learned = _learned_map(opened)
    result: dict[str, Any] = {
        "places": request.places,
        "queries": request.queries,
        "columns": queries.words,
        "tile_metres": sizes,
        "map_learned_from": learned,
        "scores": [one._asdict() for one in scores],
    }
    if request.json:
        print(json.dumps(result, indent=1))
    else:
        _say(scores, queries, learned, sizes)
    with writing(path):
        write_text(path, json.dumps(result, indent=1) + "\n")
    if not request.json:
        console.print(f"written: {path}")
    return 0


def _say_far(tiles: MapTiles, queries: PlaceQueries) -> None:
    """Say which queries lie farther outside the map than it is wide: their places are wrong, or it is another map."""
    height, width = tiles.raster.size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    middle = tiles.georeference.to_degrees(np.array([width / 2, height / 2]))
    reach = metres_between(tiles.georeference.to_degrees(corners), middle).max()
    places = np.array([one.degrees for one in queries.rows])
    away = metres_between(places, middle)
    # three half-diagonals from the middle: at least a diagonal beyond the edge
    far = np.flatnonzero(away > 3 * reach)
    if len(far):
        longitude, latitude = places[far[0]].tolist()
        metres = float(away[far[0]])
        distance = f"{metres:,.0f} m" if metres < 10_000 else f"{metres / 1000:,.0f} km"
        notes.note(
            f"{len(far):,} of {len(places):,} queries lie far outside the map, such as {queries.rows[far[0]].path.name}, "
            f"{distance} away, at latitude {latitude:g} and longitude {longitude:g}; they cannot be found"
        )


def _default_out(request: PlacesRequest) -> Path:
    return Path(request.places) / f"_evaluation-{Path(request.queries).stem}.json"


def _ready(opened: OpenedPlaces, query: PlaceQuery, request: PlacesRequest) -> _Ready:
    image = opened.model.read(query.path)
    known = request.known
    if known.width is None:
        known = known._replace(width=query.width)
    if known.height is None and (known.field_of_view is not None or known.width is None):
        known = known._replace(height=query.height)
    width, _ = width_of(query.path, Size(*image.shape[-2:]), known)
    heading = query.heading if request.headings else None
    return _Ready(query, image, Beliefs(width, heading))


Calibrating = Callable[[OpenedPlaces, MapTiles, Size, Beliefs], Calibration]


def _scored(
    arm: str, opened: OpenedPlaces, tiles: MapTiles, ready: list[_Ready], calibrating: Calibrating
) -> PlacesScore:
    """The scores of an arm, whose fixes are by a threshold of its own."""
    known: dict[Any, Calibration] = {}
    answers: list[Answer] = []
    for one in counted(ready, len(ready), f"locating ({arm})"):
        width = one.beliefs.width
        key = (one.size, width and float(f"{width:.2g}"), one.beliefs.heading is None)
        if key not in known:
            known[key] = calibrating(opened, tiles, one.size, one.beliefs)
        located = judged(field_for(opened, one.image, one.beliefs), max(RANKS))
        away = metres_between(np.array(located.degrees), one.query.degrees)
        fix = located.margin >= known[key].threshold
        answers.append(Answer(away.tolist(), located.field.grid.metres / 2, fix))
    return score(arm, answers)


def _learned_map(opened: OpenedPlaces) -> bool:
    maps = [data for data in opened.model.learned_from if isinstance(data, GroundMap)]
    embedded = Path(opened.source.path).expanduser().resolve()
    return any(Path(data.path).expanduser().resolve() == embedded for data in maps)


def _say(
    scores: list[PlacesScore], queries: PlaceQueries, learned: bool, sizes: list[float]
) -> None:
    console.print(f"queries   {len(queries.rows):,}; {queries.words}")
    console.print(
        f"tiles     of {listed([f'{size:g}' for size in sizes])} m; a place counts for R@K within half a tile"
    )
    if learned:
        console.print("map       the encoder has learned from this map, without the queries")
    heads = [*scores[0].within, *scores[0].recall]
    short = [head.replace(" a tile", "") for head in heads]
    console.result(f"{'':12}" + "".join(f"{h:>7}" for h in short) + "  median   mean  fixes  false")
    for one in scores:
        shares = "".join(f"{value:7.2f}" for value in [*one.within.values(), *one.recall.values()])
        last = f"{_share(one.coverage)}{_share(one.false_fixes)}"
        console.result(f"{one.arm:12}{shares}{one.median:6.0f} m{one.mean:5.0f} m{last}")


def _share(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.2f}"
