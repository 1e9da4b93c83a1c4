"""The margin at which an answer counts as a fix, from the map itself.

Pieces of the map are turned, scaled and relit as a drone might show them, and located twice: among all tiles, and among those far
from where they were cut, where every answer is wrong. The threshold is the margin that 96 of 100 wrong answers do not reach.
Other parts of the same map look more alike than pictures from elsewhere do, so these are refused at least as often.
"""

import contextlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.data.ground_map import MapTiles
from unmask.data.map_rasters import Window
from unmask.data.relighting import relit
from unmask.data.relighting import uniform as between
from unmask.errors import DataError
from unmask.files import read_json, write_text
from unmask.geo.distance import metres_between, metres_per_degree
from unmask.places.field import margin_of, peaks_of
from unmask.places.grid import Grid
from unmask.places.locating import Beliefs, Near, cells_near, field_for, grid_for, judged
from unmask.places.looks import View
from unmask.places.opened import OpenedPlaces
from unmask.progress import counted
from unmask.vectors.folder import state_of

PIECES = 64
"""Pieces of the map that a threshold is measured on."""

FALSE_RATE = 0.04
"""Share of wrong answers that may reach the threshold."""

_LEAST_FOUND = 0.1  # below it, no margin tells right answers from wrong ones
_FILE = "_calibration.json"
_MOST_PIXELS = 1024  # a side of a piece
_TRIES = 10
_SEED = 0


@dataclass(frozen=True)
class Calibration:
    """What was measured."""

    threshold: float
    """The least margin of a fix; infinite if no margin is good enough."""
    found: float
    """Share of the pieces that are found within half a tile, at the threshold."""
    right: float
    """Share of the pieces whose best place is within half a tile, whatever the margin."""
    false_fixes: float
    """Share of the wrong answers that reach the threshold."""
    pieces: int


def calibrated(
    opened: OpenedPlaces,
    tiles: MapTiles,
    size: Size,
    beliefs: Beliefs,
    radius: float | None = None,
) -> Calibration:
    """The calibration for pictures of these proportions and beliefs, measured once and kept in the folder.

    With a radius, of answers within circles of so many metres: fewer places compete there.
    """
    question = {
        "pieces": "without holes",  # thresholds of before were measured on others
        "vectors": state_of(opened.searched.folder.facts(opened.searched.manifest)),
        "proportions": round(size.height / size.width, 2),
        "width": None if beliefs.width is None else float(f"{beliefs.width:.2g}"),
        "heading": beliefs.heading is not None,
        "turns": beliefs.turns,
        "radius": None if radius is None else float(f"{radius:.2g}"),
    }
    path = opened.searched.folder.root / _FILE
    known: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, DataError, KeyError, TypeError, AttributeError):
        known = [
            one for one in read_json(path) if one["question"]["vectors"] == question["vectors"]
        ]
        for one in known:
            if one["question"] == question:
                answer: dict[str, Any] = {
                    k: math.inf if v is None else v for k, v in one["answer"].items()
                }
                return Calibration(**answer)
    result = measured(opened, tiles, size, beliefs, radius)
    answer = {k: None if v == math.inf else v for k, v in asdict(result).items()}
    with contextlib.suppress(OSError):  # a folder that this user may only read
        write_text(
            path, json.dumps([*known, {"question": question, "answer": answer}], indent=1) + "\n"
        )
    return result


def measured(
    opened: OpenedPlaces,
    tiles: MapTiles,
    size: Size,
    beliefs: Beliefs,
    radius: float | None = None,
    *,
    seed: int = _SEED,
) -> Calibration:
    """Measure it on pieces of the map."""
    pieces = PIECES
    grid = grid_for(opened, size, beliefs)
    generator = torch.Generator().manual_seed(seed)
    wrong: list[float] = []
    margins: list[tuple[float, bool]] = []
    for _ in counted(range(pieces), pieces, "calibrating on pieces of the map"):
        piece = drawn(tiles, grid, size, beliefs, generator)
        field = field_for(opened, piece.image, piece.beliefs)
        within = _circle(opened, field.grid, piece.degrees, radius, generator)
        best = judged(field, 2, within)
        away = float(metres_between(np.array(best.degrees[0]), piece.degrees))
        margins.append((best.margin, away <= field.grid.metres / 2))
        reach = field.grid.metres + min(piece.beliefs.width or 0.0, 2 * field.grid.metres) / 2
        near = cells_near(opened, field.grid, Near(piece.degrees[1], piece.degrees[0], reach))
        elsewhere = peaks_of(field, 2, _elsewhere(opened, field.grid, near, radius, generator))
        if len(elsewhere) > 1:
            wrong.append(margin_of(elsewhere))
    right = [margin for margin, is_right in margins if is_right]
    threshold = _threshold(wrong)
    found = sum(margin >= threshold for margin in right) / pieces
    if found < _LEAST_FOUND:
        threshold, found = math.inf, 0.0
    false = sum(margin >= threshold for margin in wrong) / max(1, len(wrong))
    return Calibration(threshold, found, len(right) / pieces, false, pieces)


Cells = Bool[NDArray[np.bool_], "r c"]


def _circle(
    opened: OpenedPlaces,
    grid: Grid,
    degrees: Float[NDArray[np.float64], "2"],
    radius: float | None,
    generator: torch.Generator,
) -> Cells | None:
    """The cells of a circle that holds a place, anywhere in it; all without a radius."""
    if radius is None:
        return None
    turn = between(generator, 0, 2 * math.pi)
    away = radius * math.sqrt(between(generator, 0, 1)) * 0.99
    per_degree = metres_per_degree(degrees[1:])[0]
    longitude, latitude = degrees + away * np.array([math.sin(turn), math.cos(turn)]) / per_degree
    cells = cells_near(opened, grid, Near(float(latitude), float(longitude), radius))
    return cells if cells.any() else None


def _elsewhere(
    opened: OpenedPlaces, grid: Grid, near: Cells, radius: float | None, generator: torch.Generator
) -> Cells:
    """Cells away from a place; with a radius, those of a circle around one of them."""
    away = ~near & (grid.rows >= 0)
    if radius is None or not away.any():
        return away
    there = np.argwhere(away)
    row, column = there[int(between(generator, 0, len(there) - 1e-6))]
    longitude, latitude = grid.degrees(int(row), int(column))
    return away & cells_near(opened, grid, Near(latitude, longitude, radius))


def _threshold(wrong: list[float]) -> float:
    """Just above the margin that a share of the wrong answers does not reach; infinite if there are too few of them."""
    if len(wrong) < PIECES // 2:
        return math.inf
    place = min(len(wrong), math.ceil((1 - FALSE_RATE) * (len(wrong) + 1))) - 1
    return math.nextafter(sorted(wrong)[place], math.inf)


@dataclass(frozen=True)
class Piece:
    """A piece of the map that looks like a photograph of it."""

    image: Shaped[Tensor, "c h w"]
    degrees: Float[NDArray[np.float64], "2"]
    """Longitude and latitude of its middle."""
    beliefs: Beliefs
    """What is believed of it, a little wrong as of real pictures."""


def drawn(
    tiles: MapTiles,
    grid: Grid,
    size: Size,
    beliefs: Beliefs,
    generator: torch.Generator,
) -> Piece:
    """A piece at a random place in a random direction, with another scale and light.

    Photographs show no holes of the map. A piece that does is drawn again; where every one does, they get the mean of the rest.
    """

    view, degrees, shown = _sight(tiles, grid, size, beliefs, generator)
    for _ in range(_TRIES - 1):
        if not bool(shown.isnan().any()):
            break
        view, degrees, shown = _sight(tiles, grid, size, beliefs, generator)
    mean = shown.flatten(1).nanmean(1).nan_to_num()[:, None, None]
    shown = torch.where(shown.isnan(), mean, shown)
    if tiles.values == "uint8":
        shown = shown.round().clamp(0, 255).to(torch.uint8)
    image = relit(shown, generator)
    known = None if beliefs.heading is None else view.heading + between(generator, -3, 3)
    return Piece(image, degrees, Beliefs(beliefs.width, known, beliefs.turns))


def _sight(
    tiles: MapTiles, grid: Grid, size: Size, beliefs: Beliefs, generator: torch.Generator
) -> tuple[View, Float[NDArray[np.float64], "2"], Float[Tensor, "c h w"]]:
    """A random view, its place, and what the map shows there."""

    def uniform(low: float, high: float) -> float:
        return between(generator, low, high)

    widths = beliefs.widths(size, grid.metres)
    width = uniform(min(widths), max(widths)) * uniform(0.95, 1.05)
    view = View(width, uniform(0, 360))
    there = np.argwhere(grid.rows >= 0)
    row, column = there[int(uniform(0, len(there) - 1e-6))] + [
        uniform(-0.5, 0.5),
        uniform(-0.5, 0.5),
    ]
    degrees = np.array(grid.degrees(row, column))
    return view, degrees, _photographed(tiles, degrees, size, view)


def _photographed(
    tiles: MapTiles, degrees: Float[NDArray[np.float64], "2"], size: Size, view: View
) -> Float[Tensor, "c h w"]:
    """What a camera straight above a place would show of the map, NaN near its holes; beyond its edge the map is mirrored."""
    middle = tiles.georeference.to_pixels(degrees)
    across, down = tiles.georeference.metres_per_pixel(middle).tolist()
    turn = math.radians(view.heading - float(tiles.georeference.bearing(middle)))
    proportions = size.height / size.width
    columns = max(16, min(_MOST_PIXELS, round(view.width / across)))
    rows = max(16, round(columns * proportions))
    right = ((torch.arange(columns) + 0.5) / columns - 0.5) * view.width
    below = ((torch.arange(rows) + 0.5) / rows - 0.5) * view.width * proportions
    v, u = torch.meshgrid(below, right, indexing="ij")
    x = middle[0] + (u * math.cos(turn) - v * math.sin(turn)) / across
    y = middle[1] + (u * math.sin(turn) + v * math.cos(turn)) / down
    height, width = tiles.raster.size
    left, top = max(0, int(x.min()) - 1), max(0, int(y.min()) - 1)
    window = Window(
        left, top, min(width, int(x.max()) + 2) - left, min(height, int(y.max()) + 2) - top
    )
    pixels = tiles.pixels(window)
    points = torch.stack(
        [(x - left) * 2 / window.width - 1, (y - top) * 2 / window.height - 1], dim=-1
    )
    return F.grid_sample(
        pixels[None], points[None].float(), padding_mode="reflection", align_corners=False
    )[0]
