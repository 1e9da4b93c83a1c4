"""A map in degrees is as good far from the equator as at it."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import torch
from PIL import Image
from places.landscape import landscape

from unmask.contracts import Size
from unmask.data import GroundMap
from unmask.geo.distance import metres_per_degree
from unmask.places.calibration import measured
from unmask.places.controls import raw, raw_vectors
from unmask.places.grid import grids_of
from unmask.places.locating import Beliefs
from unmask.places.opened import OpenedPlaces
from unmask.runs.model import Model
from unmask.vectors.matrix import Searched

PIXELS, PIXEL = 600, 0.5
"""Rows of the map, and metres of each."""


def found_at(latitude: float, root: Path) -> float:
    """The share of pieces of one landscape that raw pixels find, on a map in equal steps of degrees."""
    east, north = metres_per_degree(np.array(latitude)).tolist()
    step = PIXEL / north
    picture = Image.fromarray(landscape(PIXELS, 1))
    picture.resize((round(PIXELS * north / east), PIXELS), Image.Resampling.BICUBIC).save(
        root / "map.png"
    )
    bottom = latitude - PIXELS * step
    corners = (latitude, 10.0, bottom, 10.0 + PIXELS * PIXEL / east)
    source = GroundMap(
        path=str(root / "map.png"), corners=corners, tile_metres=(40.0,), tile_overlap=0.75
    )
    tiles = source.open()
    places = tiles.places()
    model = Mock(Model)
    model.spec = Mock(image_size=Size(32, 32))
    colours = tiles.overview(200).float()
    opened = OpenedPlaces(
        Mock(Searched),
        places,
        grids_of(places),
        model,
        source,
        torch.zeros(len(tiles), 1),
        raw_vectors,
        colours.mean((1, 2)),
        colours.std((1, 2)),
    )
    return measured(raw(opened, tiles), tiles, Size(96, 96), Beliefs(130.0)).found


def test_as_much_is_found_in_the_north_as_at_the_equator(tmp_path: Path) -> None:
    """The pixels of the northern map are half as wide as they are high; cropped tiles would lose most of the places."""
    equator, north = (found_at(latitude, tmp_path) for latitude in (0.0, 60.0))
    assert equator > 0.4
    assert north > equator - 0.1
